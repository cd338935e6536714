"""`csv:FILE`: a table of image files and their labels, or their captions."""

import csv
import io
import os
import re
import unicodedata
from dataclasses import dataclass, replace

from kerasdl.columns import DataInfo
from kerasdl.data import wanted
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.sources.folder import one_class, read_files
from kerasdl.data.sources.layout import part_of
from kerasdl.data.sources.text import captions_for, read_text
from kerasdl.data.splits import Beside
from kerasdl.errors import UserError

CAPTION_IDS = "caption_ids"
GIVES = {"image": "image", "label": "label", CAPTION_IDS: "tokens"}
NAMES = {  # of columns, in any case; the first of these that a table has is read
    "path": "path file filename file_name filepath file_path image image_path image_file "
    "image_name img img_path",
    "label": "label class category target class_name class_label label_name y",
    "split": "split part set subset partition",
}
OF_CAPTIONS = {  # where the task wants captions; labels are then optional
    "path": NAMES["path"],
    "caption": "caption captions text description title sentence comment",
    "label": NAMES["label"],
    "split": NAMES["split"],
}
DELIMITERS = ",;\t|"
WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


@dataclass
class Row:
    """One line of the table, or what is wrong with it.

    Attributes:
        line: Its number in the file, from 1.
        path: As it is written.
        label: The class, or None where the table has none.
        part: "train", "validation" or "test".
        wrong: The reason why it cannot be used, or "".
        caption: What is said of the image, or None where that is not wanted.
    """

    line: int
    path: str
    label: str | None
    part: str
    wrong: str = ""
    caption: str | None = None


def load(where, options):
    """A table with a header: a column of paths, one of labels, and maybe one of parts.

    Where the task wants captions there is a column of these, and that of labels is optional; of a
    file's captions the first is read, in more tokens than `options.max_length` its beginning.
    Columns go by their names, see `NAMES`, or by `options.columns`: path, label, split. Commas,
    semicolons, tabs and `|` are delimiters, whichever parts the header into most. Paths are
    relative to the table's folder. Class names are sorted, numbers by their value. Missing parts
    are sampled from the training rows with the seed.
    """
    if not os.path.isfile(where):
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no file {readable(where)}{right}")
    text, folder = read_text(where, options), os.path.dirname(os.path.abspath(where))
    header, lines = _lines(text, options)
    names = OF_CAPTIONS if CAPTION_IDS in wanted.needed(options.task) else NAMES
    columns = _columns(header, options, folder, names)
    notes = [_reading(header, columns)]
    rows = [_row(number, cells, header, columns, options) for number, cells in lines]
    if not rows:
        raise UserError(f"{options.name}: there are no rows below the header")
    _check_files(rows, folder)
    rows = _first_captions(rows, notes) if names is OF_CAPTIONS else rows
    _check_repeated(rows)
    _check_rows(rows, options, notes)
    rows = [row for row in rows if not row.wrong]
    class_of, class_names = _classes(rows, notes) if "label" in columns else ({}, [])
    if "label" in wanted.needed(options.task):
        if "label" not in columns:
            raise UserError(
                f"{options.name}: the model's task needs labels, and no column is called "
                f"{_choices('label')}; --columns PATH LABEL names them"
            )
        if len(class_names) == 1:
            raise UserError(f"{options.name}: {one_class(class_names[0])}")
    files = {}
    for part in layout.PARTS:
        chosen = [row for row in rows if row.part == part]
        if chosen:
            files[part] = {
                os.path.normpath(row.path): (_absolute(row, folder), class_of.get(row.label))
                for row in chosen
            }
    if "train" not in files:
        raise UserError(f"{options.name}: no row is of the training part")
    source = read_files(files, class_names, options, notes)
    return _with_captions(source, rows, options) if names is OF_CAPTIONS else source


def _first_captions(rows, notes):
    """The rows without further captions of a file."""
    seen, kept = {}, []
    for row in rows:
        first = seen.setdefault(os.path.normpath(row.path), row)
        if row.wrong or row is first or row.caption == first.caption:
            kept.append(row)
    if more := len(rows) - len(kept):
        notes.append(f"left out {more:,} captions: of each file the first is read")
    return kept


def _with_captions(source, rows, options):
    """A source of images with the token ids of their captions besides."""
    captions = {os.path.normpath(row.path): row.caption for row in rows}
    texts = {part: [captions[name] for name in found] for part, found in source.files.items()}
    ids, column, tokenizers = captions_for(options, texts)
    info = DataInfo({**source.info.columns, CAPTION_IDS: column}, tokenizers)
    splits = {part: Beside(split, {CAPTION_IDS: ids[part]}) for part, split in source.parts.items()}
    files = {  # a caption that changes is told by the fingerprint
        part: {name: (path, captions[name]) for name, (path, _) in found.items()}
        for part, found in source.files.items()
    }
    return replace(source, info=info, files=files, **splits)


def _lines(text, options):
    """The header's cells, and `(line number, cells)` of each line below it that is not empty."""

    def parse(text, delimiter):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        previous = 0
        try:
            for cells in reader:
                number, previous = previous + 1, reader.line_num
                if any(cell.strip() for cell in cells):
                    yield number, [cell.strip() for cell in cells]
        except csv.Error as error:
            raise UserError(
                f"{options.name}: line {previous + 1} is no line of a table ({error})"
            ) from error

    def cells_of(delimiter):
        try:
            return len(next(parse(text, delimiter), (0, []))[1])
        except UserError:
            return 0

    delimiter = max(DELIMITERS, key=cells_of)
    lines = parse(text, delimiter)
    _, header = next(lines, (0, []))
    if not header:
        raise UserError(f"{options.name}: the table is empty")
    return header, list(lines)


def _choices(kind, names=NAMES):
    *others, last = names[kind].split()
    return f"{', '.join(others)} or {last}"


def _columns(header, options, folder, known_names=NAMES):
    """`{"path": number, "label": ..., "split": ...}` of those that the table has."""
    names = [cell.casefold() for cell in header]
    if any(os.path.isfile(os.path.join(folder, cell)) for cell in header if cell):
        raise UserError(
            f"{options.name}: there is no header: the first line must name the columns, "
            "path,label say"
        )
    for name in names:
        if name and names.count(name) > 1 and not options.columns:
            raise UserError(f"{options.name}: two columns are called {name}")
    found = {}
    for kind, spellings in known_names.items():
        known = [name for name in spellings.split() if name in names]
        if known:
            found[kind] = names.index(known[0])
    if options.columns:
        found = {k: v for k, v in found.items() if k == "split"}
        if len(options.columns) > len(known_names):
            *others, last = known_names
            words = f"{', '.join(others)} and {last}"
            raise UserError(f"--columns: must be {words}, at most {len(known_names)}")
        for kind, given in zip(known_names, options.columns, strict=False):
            found[kind] = _number(str(given), header, names, options)
        if len(set(found.values())) < len(found):
            raise UserError(f"--columns {' '.join(options.columns)}: names a column twice")
    if "path" not in found:
        raise UserError(
            f"{options.name}: no column is called {_choices('path')}; it has "
            f"{', '.join(header)}; --columns PATH LABEL names them"
        )
    if "caption" in known_names and "caption" not in found:
        raise UserError(
            f"{options.name}: the model's task needs captions, and no column is called "
            f"{_choices('caption', known_names)}; --columns PATH CAPTION names them"
        )
    return found


def _number(given, header, names, options):
    if given in header:
        return header.index(given)
    if given.casefold() in names:
        return names.index(given.casefold())
    if given.isdecimal() and 1 <= int(given) <= len(header):
        return int(given) - 1
    raise UserError(
        f"--columns {given}: {options.name} has the columns {', '.join(header)}, "
        f"or 1 to {len(header)}"
    )


def _reading(header, columns):
    """Which columns are read, and which are not."""
    line = "columns: " + ", ".join(f"{kind} {header[k]}" for kind, k in columns.items())
    rest = [name for k, name in enumerate(header) if k not in columns.values()]
    return line + (f"; not read: {', '.join(rest)}" if rest else "")


def _row(number, cells, header, columns, options):
    def cell(kind):
        return cells[columns[kind]] if kind in columns and columns[kind] < len(cells) else ""

    label = unicodedata.normalize("NFC", cell("label")) if "label" in columns else None
    caption = cell("caption") if "caption" in columns else None
    row = Row(number, cell("path"), label, "train", caption=caption)
    if len(cells) != len(header):
        row.wrong = "have another number of columns than the header"
    elif not row.path:
        row.wrong = "have no path"
    elif "\0" in row.path:
        row.wrong = "have a path that no file can have"
    elif label == "":
        row.wrong = "have no label"
    elif caption == "":
        row.wrong = "have no caption"
    elif "split" in columns:
        row.part = part_of(cell("split")) or ""
        if not row.part:
            names = ", ".join(name for spelled in layout.PARTS.values() for name in spelled)
            row.wrong = f"have a part other than {names}"
    return row


def _absolute(row, folder):
    return os.path.join(folder, os.path.normpath(os.path.expanduser(row.path)))


def _check_files(rows, folder):
    for row in rows:
        if row.wrong:
            continue
        try:
            if not os.path.isfile(_absolute(row, folder)):
                row.wrong = "name files that do not exist"
        except (OSError, ValueError):
            row.wrong = "have a path that no file can have"


def _check_repeated(rows):
    """Rows of a file that was named before are wrong; all of them where they differ."""
    seen = {}
    for row in rows:
        if not row.wrong:
            seen.setdefault(os.path.normpath(row.path), []).append(row)
    for same in seen.values():
        if len({(row.label, row.part) for row in same}) > 1:
            for row in same:
                row.wrong = "give one file several labels or parts"
        for row in same[1:]:
            row.wrong = row.wrong or "repeat an earlier row"


def _check_rows(rows, options, notes):
    """UserError where rows are wrong, or a note where they may be left out."""
    wrong = {}
    for row in rows:
        if row.wrong:
            wrong.setdefault(row.wrong, []).append(row)
    if not wrong:
        return
    count = sum(map(len, wrong.values()))
    reasons = "; ".join(
        f"{len(found)} {reason} (line{'s' * (len(found) > 1)} "
        f"{', '.join(str(row.line) for row in found[:5])}{', ...' * (len(found) > 5)}: "
        f"{found[0].path or 'no path'})"
        for reason, found in wrong.items()
    )
    if count == len(rows):
        raise UserError(f"{options.name}: none of the {count} rows can be used: {reasons}")
    if not options.skip_bad_files:
        raise UserError(
            f"{options.name}: {count} of {len(rows)} rows cannot be used: {reasons}; "
            "--skip-bad-files leaves them out"
        )
    notes.append(f"left out {count} of {len(rows)} rows: {reasons}")


def _classes(rows, notes):
    """`{label: class name}` and the class names: whole numbers by their value, or texts."""
    labels = {row.label for row in rows}
    if all(WHOLE.fullmatch(label) for label in labels):
        class_of = {label: str(int(label.partition(".")[0])) for label in labels}
        if len(set(class_of.values())) < len(labels):
            notes.append("labels that are one number in other digits, 1 and 01 say, are one class")
        return class_of, sorted(set(class_of.values()), key=int)
    names = {}
    for row in rows:
        names.setdefault(row.part, set()).add(row.label)
    class_of = layout.joined_names(names, notes)
    return class_of, sorted(set(class_of.values()), key=layout.natural)
