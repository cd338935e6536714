"""Tables of sources and targets: columns, headers, quotes, and lines that are no pair."""

import csv
import io
import os
import re
from collections import Counter
from dataclasses import dataclass, field

from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.sources.csv import DELIMITERS
from kerasdl.data.sources.text import Every, read_text
from kerasdl.errors import UserError

FORMATS = ((".tsv", ".csv", ".tab"), (".txt",))  # the first of which a folder has files
QUOTED = (".csv",)  # cells may be in quotes; any of DELIMITERS is between them
SAMPLE = 1000  # lines by which the delimiter is chosen
ROLES = frozenset(
    "source src target tgt trg input output original translation question answer".split()
)
LANGUAGES = frozenset(
    "english german french spanish italian portuguese dutch russian chinese japanese korean arabic "
    "hindi turkish polish czech swedish danish norwegian finnish greek hebrew hungarian romanian "
    "ukrainian vietnamese indonesian latin esperanto en de fr es it pt nl ru zh ja ko ar hi tr pl "
    "cs sv da no fi el he hu ro uk vi id la eo eng deu ger fra fre spa ita por nld rus zho cmn jpn "
    "kor ara hin tur pol ces swe dan nor fin ell heb hun ron ukr vie ind lat epo".split()
)
BESIDE = frozenset("text texts sentence sentences word words phrase lang language us gb br".split())


@dataclass
class Table:
    """The lines of one file.

    Attributes:
        rows: `(line number, cells)`; the numbers start at 1.
        bad: `(line number, what is wrong, how many lines)` of those that cannot be read.
        columns: The numbers of source and target, from 0.
        width: Columns of a line.
        header: The cells of the header, or None.
        between: Two cells, in words.
    """

    rows: list
    bad: list = field(default_factory=list)
    columns: tuple = (0, 1)
    width: int = 2
    header: list | None = None
    between: str = "a tab"


def read_pairs(files, root, options):
    """The pairs of each part, and notes.

    A line is a source and a target, with a tab between them; of `.csv` files cells may be in
    quotes, and whichever of `,;|` and the tab fits is between them. Of more columns
    `options.columns` names two, by the header or by their numbers from 1. A header, `en` and `de`
    or `source` and `target` say, is left out.

    Args:
        files: `{part: paths}`; or `{part: [(path, path)]}` of files of sources and of targets.
        root: The folder that messages name files from, or the only file.
        options: Of `open_source`.

    Returns:
        `{part: [(source, target), ...]}`, lines of text.

    Raises:
        UserError: Lines are no pairs, and `options.skip_bad_files` is not set; or none is.
    """
    parts, notes, bad, total, headers = {}, [], [], 0, {}
    for part, paths in files.items():
        pairs = parts[part] = []
        for path in paths:
            if isinstance(path, tuple):
                name = f"{' and '.join(readable(os.path.relpath(p, root)) for p in path)}: "
                table = _of_sides(path, name, options)
            else:
                name = "" if path == root else f"{readable(os.path.relpath(path, root))}: "
                table = _table(path, name, options)
            _check_same(headers, name, table, options)
            if table.header:
                notes.append(f"{name}line 1 is left out as a header: {_cells(table.header)}")
            total += len(table.rows) + sum(count for *_, count in table.bad)
            for number, cells in table.rows:
                if wrong := _wrong(cells, table):
                    table.bad.append((number, wrong, 1))
                else:
                    pairs.append([cells[k] for k in table.columns])
            bad += [(name, *one) for one in sorted(table.bad)]
    if bad:
        name, number, wrong, _ = bad[0]
        first, count = f"{name}line {number} {wrong}", sum(lines for *_, lines in bad)
        if not options.skip_bad_files:
            raise UserError(
                f"{options.name}: {first}; {count:,} of {total:,} lines are bad, and "
                "--skip-bad-files leaves them out"
            )
        notes.append(f"left out {count:,} of {total:,} lines, the first: {first}")
    for part, pairs in parts.items():
        if not pairs:
            what = "training" if part == "train" else part
            lines = "; ".join([f"{options.name}: the {what} part holds no pairs", *notes])
            raise UserError(lines)
    return parts, notes


def sides_of(where, options):
    """The endings of the files of sources and of targets, or None where these are in one table.

    They are the names of two languages, in their order, or `options.columns`.

    Args:
        where: A file or folder; only a folder without tables has sides.
        options: Of `open_source`.

    Raises:
        UserError: There are more than two, and none are chosen, or others are.
    """
    if not os.path.isdir(where):
        return None
    tree = layout.read_tree(where, Every(), layout.LeftOut(where), options.skip_bad_files)
    endings = {os.path.splitext(path)[1].casefold() for path in tree.paths()}
    if endings & {ending for formats in FORMATS for ending in formats}:
        return None
    found = sorted(ending for ending in endings if ending[1:] in LANGUAGES)
    if len(found) < 2:
        return None
    chosen = tuple(f".{given.removeprefix('.').casefold()}" for given in options.columns) or found
    if len(set(chosen)) != 2 or not set(chosen) <= set(found):
        raise UserError(
            f"{options.name}: there are files of {', '.join(one[1:] for one in found)}; --columns "
            "SOURCE TARGET must name two of them"
        )
    return tuple(chosen)


def joined_sides(paths, sides, options):
    """`[(source path, target path)]` of files that differ in their endings alone.

    Args:
        paths: Of the files of one part.
        sides: The endings of the two.
        options: Of `open_source`.
    """
    pairs = {}
    for path in paths:
        stem, ending = os.path.splitext(path)
        pairs.setdefault(stem, {})[ending.casefold()] = path
    for stem, pair in pairs.items():
        for side in sides:
            if side not in pair:
                name = readable(os.path.basename(stem))
                raise UserError(f"{options.name}: there is no {name}{side} for {name}.*")
    return [tuple(pair[side] for side in sides) for pair in pairs.values()]


def _of_sides(paths, name, options):
    """A `Table` of two files, each line of one the other's source or target."""
    sides = [read_text(path, options).rstrip("\n").split("\n") for path in paths]
    counts = [len(lines) for lines in sides]
    if counts[0] != counts[1]:
        raise UserError(f"{options.name}: {name}have {counts[0]:,} and {counts[1]:,} lines")
    return Table([(k, list(cells)) for k, cells in enumerate(zip(*sides, strict=True), 1)])


def _table(path, name, options):
    """A `Table` of a file, its header apart."""
    text = read_text(path, options)
    quoted = os.path.splitext(path)[1].lower() in QUOTED
    table = _quoted(text) if quoted else _plain(text)
    widths = Counter(len(cells) for _, cells in table.rows)
    table.width = max(widths, key=lambda n: (widths[n], n == 2, -n), default=2)
    first = table.rows[0][1] if table.rows else []
    if options.columns:
        table.columns = _chosen(first, table.width, name, options)
    elif table.width > 2:
        raise UserError(
            f"{options.name}: {name}line {table.rows[0][0]} has {len(first)} columns, not a source "
            f"and a target: {_cells(first)}; --columns SOURCE TARGET says which two are read, by "
            f"{'name' if _is_header(first, range(len(first))) else 'number, from 1'}"
        )
    else:
        table.width = 2
    named = any(_number(given, first) is None for given in options.columns)
    if len(first) == table.width and (named or _is_header(first, table.columns)):
        table.header = first
        del table.rows[0]
    return table


def _plain(text):
    """Lines of cells with tabs between them; quotes are as any other character."""
    lines = text.rstrip("\n").split("\n")
    return Table([(number, line.split("\t")) for number, line in enumerate(lines, 1)])


def _quoted(text):
    """Lines of cells that may be in quotes."""

    def parse(delimiter):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        previous = 0
        while True:
            try:
                cells, wrong = next(reader), None
            except StopIteration:
                return
            except csv.Error as error:
                cells, wrong = None, f"is no line of a table ({error})"
            number, count = previous + 1, reader.line_num - previous
            previous = reader.line_num
            if wrong and not count:
                return
            yield number, cells, wrong, count

    def fit(delimiter):
        lines = [cells for _, (_, cells, *_) in zip(range(SAMPLE), parse(delimiter), strict=False)]
        widths = Counter(len(cells) for cells in lines if cells and len(cells) > 1)
        return max(widths.values(), default=0)

    text = text.rstrip("\n")
    table = Table([], between="a comma")
    for number, cells, wrong, count in parse(max(DELIMITERS, key=fit)):
        if wrong:
            table.bad.append((number, wrong, count))
        else:
            table.rows.append((number, [cell.strip() for cell in cells] or [""]))
    return table


def _chosen(first, width, name, options):
    """The numbers from 0 of the two columns that `--columns` names."""
    if len(options.columns) != 2:
        given = " ".join(options.columns)
        raise UserError(f"--columns {given}: must be two for pairs, the source and the target")
    numbers = []
    for given in options.columns:
        number = _number(given, first)
        if number is None:
            folded = [cell.strip().casefold() for cell in first]
            if folded.count(given.casefold()) == 1:
                number = folded.index(given.casefold())
        if number is None or number >= width:
            raise UserError(
                f"--columns {given}: {options.name}: {name}the first line has {_cells(first)}, or "
                f"1 to {width}"
            )
        numbers.append(number)
    if numbers[0] == numbers[1]:
        raise UserError(f"--columns {' '.join(options.columns)}: names a column twice")
    return tuple(numbers)


def _number(given, first):
    """The number from 0 that is given, or None where it is a name."""
    number = given.isascii() and given.isdigit() and given not in first
    return int(given[:9]) - 1 if number and int(given[:9]) else None


def _is_header(cells, columns):
    """Whether the cells at some columns are names of languages, or of source and target."""
    names = [cells[k].strip().casefold() for k in columns if k < len(cells)]
    return len(set(names)) > 1 and all(map(_is_name, names))


def _is_name(text):
    words = re.findall(r"[^\W_]+", text)
    return set(words) <= ROLES | LANGUAGES | BESIDE and not set(words) <= BESIDE


def _check_same(headers, name, table, options):
    """UserError where the headers of two files differ, so that languages could be swapped."""
    if not table.header:
        return
    names = tuple(table.header[k].strip().casefold() for k in table.columns)
    other, first = headers.setdefault("first", (names, name))
    if other != names:
        raise UserError(
            f"{options.name}: {first}the columns are {_cells(other)}, but {name}{_cells(names)}; "
            "--columns SOURCE TARGET names those that are read"
        )


def _wrong(cells, table):
    """What is wrong with a line, or None."""
    if len(cells) != table.width:
        if cells == [""]:
            columns = "nothing"
        else:
            columns = f"{len(cells)} column{'s' * (len(cells) > 1)}"
        if table.width > 2:
            return f"has {columns}, not {table.width}"
        return f"has {columns}, not a source, {table.between} and a target"
    if not all(cells[k].strip() for k in table.columns):
        return "has an empty column"
    return None


def _cells(cells):
    """Cells of a line as they are shown: the first five, none long."""
    shown = [readable(cell if len(cell) <= 40 else f"{cell[:37]}...") for cell in cells[:5]]
    return ", ".join(shown) + (", ..." if len(cells) > 5 else "")
