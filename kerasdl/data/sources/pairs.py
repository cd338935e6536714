"""`pairs:FILE_OR_FOLDER`: tables of texts and their translations."""

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass

from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.sources.text import Every, innermost, part_files, read_text
from kerasdl.data.sources.translation import divide, translation_source
from kerasdl.errors import UserError

GIVES = {"source_ids": "tokens", "target_ids": "tokens"}
ENDINGS = (".tsv", ".csv", ".tab", ".txt")
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
SOURCES = "source src input source_text source_sentence".split()  # names in a header
TARGETS = "target tgt trg output translation target_text target_sentence".split()
LANGUAGES = (  # in a header, by code or name
    "ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ka ko la lt lv ms nl no pl pt "
    "ro ru sk sl sr sv sw ta th tr uk ur vi zh eng deu fra spa ita por rus zho jpn kor nld "
    "arabic bulgarian bengali catalan czech danish german greek english spanish estonian persian "
    "finnish french hebrew hindi croatian hungarian indonesian italian japanese georgian korean "
    "latin lithuanian latvian malay dutch norwegian polish portuguese romanian russian slovak "
    "slovenian serbian swedish swahili tamil thai turkish ukrainian urdu vietnamese chinese"
).split()


def load(where, options):
    """A table of pairs, a line each, or a folder with tables that are the parts.

    The columns are a source and a target, with a tab between them, or, in a `.csv`, a comma,
    semicolon or tab and maybe quotes. A header of `SOURCES` and `TARGETS` or of two `LANGUAGES`
    says which columns these are, and so does `options.columns`, by name or number from 1 on. Parts
    are files such as `train.tsv valid.tsv test.tsv`, folders with such names, or the two sides of
    them, `train.en train.de`. Missing parts are a fraction `val_split` each, by a hash of the
    source, so that no source is in two parts.
    """
    notes = []
    if options.columns and len(options.columns) != 2:
        raise UserError(
            f"--columns {' '.join(options.columns)}: must be two, the source's and the target's"
        )
    if os.path.isfile(where):
        tables = {"train": [os.fspath(where)]}
    elif os.path.isdir(where):
        tables = _find(where, options, notes)
    else:
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no file or folder {readable(where)}{right}")
    parts = {}
    for part, paths in tables.items():
        parts[part] = []
        for path in paths:
            table = _sides(*path, options) if isinstance(path, tuple) else _table(path, options)
            parts[part] += table.pairs(options, notes)
    missing = [part for part in ("test", "validation") if part not in parts]
    if missing:
        parts |= divide(parts["train"], options, missing)
        for part in missing:
            notes.append(
                f"{part} part: {len(parts[part]):,} training pairs, by a hash of the source"
            )
    return translation_source(options, parts, notes)


def _find(where, options, notes):
    """`{part: tables}` of a folder: paths, or pairs of the paths of two sides."""
    left = layout.LeftOut(where)
    tree = layout.read_tree(where, ENDINGS, left, options.skip_bad_files)
    root = innermost(tree)
    parts = {}
    for folder in root.folders:
        if part := layout.part_of(folder.name):
            parts.setdefault(part, []).extend(folder.paths())
    if not parts.get("train"):
        parts = _of_group(root, part_files(root.files), options)
    if not parts:
        other = layout.LeftOut(where)
        every = innermost(layout.read_tree(where, Every(), other, options.skip_bad_files))
        if parts := _of_sides(every, options, notes):
            root, left = every, other
    if not parts:
        if root.count != 1:
            names = ", ".join(readable(os.path.relpath(p, where)) for p in root.paths()[:5])
            raise UserError(
                f"{options.name}: must hold one table ({' '.join(ENDINGS)}), or tables called "
                f"train, valid and test, but holds {names or 'none'}"
            )
        parts = {"train": root.paths()}
        notes.append(f"read from {readable(os.path.relpath(root.paths()[0], where))}")
    parts = {part: parts[part] for part in layout.PARTS if parts.get(part)}
    used = set()
    for tables in parts.values():
        for table in tables:
            used |= set(table) if isinstance(table, tuple) else {table}
    for path in root.paths():
        if path not in used:
            left.add("files beside the parts", path)
    notes += left.notes()
    return parts


def _of_group(root, groups, options):
    """`{part: paths}` of tables that are parts by their names."""
    if len(groups) > 1:
        raise UserError(
            f"{options.name}: {len(groups)} sets of tables are parts: "
            f"{', '.join(map(readable, groups))}; leave one"
        )
    return {
        part: [os.path.join(root.path, name) for name in names]
        for group in groups.values()
        for part, names in group.items()
    }


def _of_sides(root, options, notes):
    """`{part: [(source path, target path)]}` of files such as `train.en train.de`."""
    groups = {}
    for pattern, group in part_files(root.files).items():
        start, _, ending = pattern.rpartition(".")
        groups.setdefault(start, {})[ending] = group
    groups = {start: group for start, group in groups.items() if "*" in start}
    given = [str(column).casefold() for column in options.columns]
    for group in groups.values():
        endings = given or sorted(group)
        if len(endings) != 2 or not set(endings) <= set(group):
            continue
        source, target = (group[ending] for ending in endings)
        if not given:
            notes.append(
                f"source *.{endings[0]}, target *.{endings[1]}; --columns {endings[1]} "
                f"{endings[0]} exchanges them"
            )
        return {
            part: [
                tuple(os.path.join(root.path, name) for name in names)
                for names in zip(source[part], target[part], strict=False)
            ]
            for part in source
            if part in target
        }
    endings = sorted({ending for group in groups.values() for ending in group})
    if len(endings) > 1 or (endings and given):
        raise UserError(
            f"{options.name}: has the sides {', '.join(endings)}; --columns must name two of them"
        )
    return {}


@dataclass
class Table:
    """Lines of a file.

    Attributes:
        name: Of the file, for messages.
        lines: `[(number of the line, cells), ...]`, below the header.
        width: Cells that a line must have.
        columns: Numbers of the source's and the target's, from 0 on.
        between: What stands between the columns, in words.
        notes: Of how it is read.
    """

    name: str
    lines: list
    width: int
    columns: tuple
    between: str
    notes: list

    def pairs(self, options, notes):
        """`[(source, target), ...]`; UserError where lines are bad, or a note of those left out."""
        notes += [note for note in self.notes if note not in notes]
        good, bad = [], []
        for number, cells in self.lines:
            if wrong := self._wrong(cells):
                bad.append((number, wrong, len(cells)))
            else:
                good.append([cells[column] for column in self.columns])
        if not bad:
            return good
        number, wrong, count = bad[0]
        first = f"line {number} has {wrong}"
        more = f"; {len(bad):,} of {len(self.lines):,} lines cannot be used" * (len(bad) > 1)
        name = "" if self.name in options.name else f"{self.name}: "
        if good and options.skip_bad_files:
            notes.append(
                f"left out {len(bad):,} of {len(self.lines):,} lines: {name}{first}, the first"
            )
            return good
        hint = "; --skip-bad-files leaves them out" if good else ""
        if not good and count > 2 and not options.columns:
            hint = "; --columns 1 2 reads the first two"
        raise UserError(f"{options.name}: {name}{first}{more}{hint}")

    def _wrong(self, cells):
        if len(cells) != self.width:
            count = f"{len(cells)} column{'s' * (len(cells) > 1)}" if any(cells) else "nothing"
            what = f"a source, {self.between} and a target"
            return f"{count}, not {what if self.width == 2 else self.width}"
        if not all(cells[column].strip() for column in self.columns):
            return "an empty column"
        return ""


def _table(path, options):
    """The `Table` of a file."""
    text = read_text(path, options).rstrip("\n")
    if os.path.splitext(path)[1].lower() == ".csv":
        rows, between = _quoted(text, path, options)
    else:
        rows = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1)]
        between = "a tab"
    cells, notes = rows[0][1], []
    header, columns = _header(cells, options, path)
    width = 2
    if header:
        rows, width = rows[1:], len(cells)
        rest = [readable(cell) for k, cell in enumerate(cells) if k not in columns]
        line = f"columns: source {cells[columns[0]].strip()}, target {cells[columns[1]].strip()}"
        notes.append(readable(line + (f"; not read: {', '.join(rest)}" if rest else "")))
    elif options.columns:
        width = Counter(len(cells) for _, cells in rows if any(cells)).most_common(1)
        width = width[0][0] if width else 2
        if max(columns) >= width:
            raise UserError(
                f"--columns {' '.join(options.columns)}: {options.name} has {width} columns"
            )
        if width > 2:
            notes.append(f"columns: source {columns[0] + 1}, target {columns[1] + 1} of {width}")
    if not rows:
        raise UserError(f"{options.name}: {readable(path)} has no lines below its header")
    return Table(readable(os.path.basename(path)), rows, width, columns, between, notes)


def _quoted(text, path, options):
    """`[(line number, cells), ...]` of a table with quotes, and what is between two cells."""

    def parse(delimiter):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows, number = [], 1
        try:
            for cells in reader:
                rows.append((number, cells or [""]))
                number = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{options.name}: line {number} of {readable(os.path.basename(path))} is no line "
                f"of a table ({error})"
            ) from error
        return rows or [(1, [""])]

    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
    return parse(delimiter), DELIMITERS[delimiter]


def _header(cells, options, path):
    """Whether the first line of a table is a header, and the columns `(source, target)`."""
    names = [cell.strip().casefold() for cell in cells]
    sides = [[k for k, name in enumerate(names) if name in side] for side in (SOURCES, TARGETS)]
    languages = [k for k, name in enumerate(names) if name in LANGUAGES]
    if len(languages) > 2:
        languages = [k for k in languages if names[k] != "id"]  # a number, or Indonesian
    if not all(len(side) == 1 for side in sides) and len(languages) == 2:
        sides = [[k] for k in languages]
    known = all(len(side) == 1 for side in sides)
    if not options.columns:
        return known, (sides[0][0], sides[1][0]) if known else (0, 1)
    columns = []
    named = False
    for given in map(str, options.columns):
        if given.strip().casefold() in names:
            columns.append(names.index(given.strip().casefold()))
            named = True
        elif given.isdecimal() and int(given) > 0:
            columns.append(int(given) - 1)
        else:
            shown = ", ".join(map(readable, cells[:10]))
            raise UserError(
                f"--columns {given}: {options.name} has the columns {shown}, or 1 to {len(cells)}"
            )
    if columns[0] == columns[1]:
        raise UserError(f"--columns {' '.join(options.columns)}: names a column twice")
    if (named or known) and max(columns) >= len(cells):
        raise UserError(
            f"--columns {' '.join(options.columns)}: {options.name} has {len(cells)} columns"
        )
    return named or known, tuple(columns)


def _sides(source, target, options):
    """The `Table` of two files of which each line of one is the other's translation."""
    sides = [read_text(path, options).rstrip("\n").split("\n") for path in (source, target)]
    names = " and ".join(readable(os.path.basename(path)) for path in (source, target))
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{options.name}: {names} have {len(sides[0]):,} and {len(sides[1]):,} lines; "
            "they must have equal numbers"
        )
    lines = list(enumerate(map(list, zip(*sides, strict=True)), 1))
    return Table(names, lines, 2, (0, 1), "a line", [])
