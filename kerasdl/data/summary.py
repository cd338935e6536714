"""What a data set holds: classes by part, columns, and what was left out."""

import numpy as np

from kerasdl.columns import PARTS
from kerasdl.system.terminal import printable

LISTED = 10  # classes that are named


def of_source(source) -> dict:
    """What a `Source` holds, as JSON values.

    Returns:
        `{"classes": {class name: {part: examples}}, "objects": {class name: {part: objects}},
        "columns": {name: {"kind", "shape", ...}}, "notes": [line, ...]}`; no classes where no
        column is one class per example, no objects where none is one per object.
    """
    columns = {}
    for name, column in source.info.columns.items():
        columns[name] = {"kind": column.kind, "shape": list(column.shape)}
        for key in ("tokenizer", "max_length", "rate", "unit"):
            if value := getattr(column, key):
                columns[name][key] = value
    return {
        "classes": classes(source.info, source.parts),
        "objects": objects(source.info, source.parts),
        "columns": columns,
        "notes": list(source.notes),
    }


def classes(info, splits) -> dict:
    """`{class name: {part: examples}}` of the first column of one class per example, else empty.

    Args:
        info: A `DataInfo`.
        splits: `{part: Split}`.
    """
    return _counts(info, splits, 0)


def objects(info, splits) -> dict:
    """`{class name: {part: objects}}` of the first column of a class per object, else empty; only
    of those that are valid."""
    return _counts(info, splits, 1)


def _counts(info, splits, axes):
    labels = info.named("label").items()
    name = next((n for n, c in labels if len(c.shape) == axes and c.class_names), None)
    if name is None:
        return {}
    class_names, counts = info.columns[name].class_names, {}
    for part, split in splits.items():
        rows = split.columns()
        if name not in rows:
            return {}
        label = np.asarray(rows[name])
        label = label[rows["valid"] if axes and "valid" in rows else label >= 0]
        counts[part] = np.bincount(label, minlength=len(class_names)).tolist()
    return {
        class_name: {part: counts[part][k] for part in counts}
        for k, class_name in enumerate(class_names)
    }


def notes(info, splits) -> list[str]:
    """Lines on classes that have no example or object, in a part or in all."""
    lines = []
    for kind, counts in (("example", classes(info, splits)), ("object", objects(info, splits))):
        absent = [name for name, of_part in counts.items() if not any(of_part.values())]
        if absent:
            lines.append(f"{_names(absent)}: no {kind}")
        for part in splits:
            if lacking := [n for n, c in counts.items() if not c[part] and n not in absent]:
                lines.append(f"{_names(lacking)}: no {kind} in the {part} part")
    return lines


def line(summary) -> str:
    """The classes of a summary in one line; empty where there are none."""
    parts = []
    for key, kind in (("classes", "examples"), ("objects", "objects")):
        if counts := summary.get(key):
            shown = [
                f"{printable(name)} ({'/'.join(str(of_part[part]) for part in PARTS)})"
                for name, of_part in list(counts.items())[:LISTED]
            ]
            more = f", and {len(counts) - LISTED:,} more" if len(counts) > LISTED else ""
            head = f"{_count(counts)} (training/validation/test {kind})"
            parts.append(f"{head}: {', '.join(shown)}{more}")
    return "; ".join(parts)


def _names(names):
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"class{'es' * (len(names) > 1)} {', '.join(map(printable, names[:LISTED]))}{more}"


def _count(names):
    return f"{len(names):,} class{'es' * (len(names) > 1)}"
