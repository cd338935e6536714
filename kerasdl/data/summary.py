"""What a data set holds: classes by part, columns, and what was left out."""

import numpy as np

from kerasdl.columns import PARTS

LISTED = 10  # classes that are named


def of_source(source) -> dict:
    """What a `Source` holds, as JSON values.

    Returns:
        `{"classes": {class name: {part: examples}}, "columns": {name: {"kind", "shape", ...}},
        "notes": [line, ...]}`; no classes where no column is one class per example.
    """
    columns = {}
    for name, column in source.info.columns.items():
        columns[name] = {"kind": column.kind, "shape": list(column.shape)}
        for key in ("tokenizer", "max_length", "rate", "unit"):
            if value := getattr(column, key):
                columns[name][key] = value
    return {
        "classes": classes(source.info, source.parts),
        "columns": columns,
        "notes": list(source.notes),
    }


def classes(info, splits) -> dict:
    """`{class name: {part: examples}}` of the first column of one class per example, else empty.

    Args:
        info: A `DataInfo`.
        splits: `{part: Split}`.
    """
    labels = {n: c for n, c in info.named("label").items() if not c.shape and c.class_names}
    if not labels:
        return {}
    name, column = next(iter(labels.items()))
    counts = {}
    for part, split in splits.items():
        rows = split.columns()
        if name not in rows:
            return {}
        counts[part] = np.bincount(rows[name], minlength=len(column.class_names)).tolist()
    return {
        class_name: {part: counts[part][k] for part in counts}
        for k, class_name in enumerate(column.class_names)
    }


def notes(info, splits) -> list[str]:
    """Lines on classes that have no example, in a part or in all."""
    counts, lines = classes(info, splits), []
    absent = [name for name, of_part in counts.items() if not any(of_part.values())]
    if absent:
        lines.append(f"{_names(absent)}: no example")
    for part in splits:
        if lacking := [n for n, c in counts.items() if not c[part] and n not in absent]:
            lines.append(f"{_names(lacking)}: no example in the {part} part")
    return lines


def line(summary) -> str:
    """The classes of a summary in one line; empty where there are none."""
    counts = summary["classes"]
    if not counts:
        return ""
    shown = [
        f"{name} ({'/'.join(str(of_part[part]) for part in PARTS)})"
        for name, of_part in list(counts.items())[:LISTED]
    ]
    more = f", and {len(counts) - LISTED:,} more" if len(counts) > LISTED else ""
    return f"{_count(counts)} (training/validation/test examples): {', '.join(shown)}{more}"


def _names(names):
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"class{'es' * (len(names) > 1)} {', '.join(map(str, names[:LISTED]))}{more}"


def _count(names):
    return f"{len(names):,} class{'es' * (len(names) > 1)}"
