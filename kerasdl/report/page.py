"""A run as one self-contained page: metrics, curves, confusion, mistakes, export, settings."""

import csv
import json
import math
import re
from pathlib import Path
from string import Template

import numpy as np
import yaml

from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe, flag, to_dict
from kerasdl.report import plots, probes, samples
from kerasdl.report.html import data_url, duration, esc, is_number, number_text, table
from kerasdl.store import runs
from kerasdl.system import archives
from kerasdl.system.files import write_text
from kerasdl.system.terminal import printable

FILE = "report.html"
NORMS = "norms.json"  # {"weights/PATH" or "gradients/PATH": norm}
GRID_COLUMNS = 8  # of pictures/mistakes.png
NAMED_CLASSES = 20  # more than so many are a picture without text
LISTED_CLASSES = 100
CONFUSED_PAIRS = 12
LISTED_CLASSES = 100
LISTED = 24  # values of a setting
PHOTO = 200  # pixels of a side from which an image is smoothed
BARE = ("epoch", "step", "lr")  # columns of the summary that are no metrics


def write(folder, card: dict | None = None) -> Path:
    """Write `report.html` into a run's folder, from the files that are there.

    Args:
        folder: The run's folder.
        card: What the export wrote of its files; if None that of the run's export, where it is.

    Returns:
        The page's path.

    Raises:
        ValueError: It is no run's folder.
    """
    folder = Path(folder)
    if not (folder / runs.ARGS).exists():
        raise UserError(f"{folder} is no run folder: it has no {runs.ARGS}")
    args = yaml.safe_load(archives.read_text(folder / runs.ARGS)) or {}
    metadata = _json(folder / runs.MODEL)
    metrics = _json(folder / runs.METRICS)
    info = DataInfo.from_dict(metadata["info"]) if "info" in metadata else DataInfo()
    sections = [
        _header(folder, args, metrics),
        _tiles(metrics),
        *(f"<p class=warning>{esc(warning)}</p>" for warning in metrics.get("warnings", ())),
        _members(metrics),
        _curves(_rows(folder / "summary.csv"), metrics.get("best_epoch")),
        _confusion(metrics.get("confusion"), info.class_names),
        _confusion(metrics.get("objects"), (*info.class_names, "none"), "objects and detections"),
        _precision_recall(metrics.get("precision_recall")),
        _classes(metrics.get("classes")),
        _mistakes(folder / "pictures" / "mistakes.png", metrics.get("mistakes"), info.class_names),
        probes.section(metrics.get("probe")),
        _groups(metrics.get("groups")),
        _data(metrics.get("data")),
        _translations(metrics.get("translations")),
        _texts(folder / "pictures"),
        samples.samples(metrics.get("samples")),
        samples.pictures(folder / "pictures"),
        _export(card or _exported(metrics.get("exported"))),
        _norms(_json(folder / NORMS)),
        _settings(args, metadata),
    ]
    template = Template(Path(__file__).with_suffix(".html").read_text())
    page = template.substitute(title=esc(folder.name), body="\n".join(filter(None, sections)))
    write_text(folder / FILE, page)
    return folder / FILE


# -- sections -------------------------------------------------------------------------------------


def _header(folder, args, metrics):
    model = metrics.get("model") or args.get("model", "")
    dataset = metrics.get("dataset") or args.get("dataset") or ""
    metadata = [f"<b>{esc(model)}</b> on <b>{esc(dataset)}</b>"]
    if "trainable_parameters" in metrics:
        metadata.append(f"{metrics['trainable_parameters']:,} trainable parameters")
    if "seed" in metrics:
        metadata.append(f"seed {esc(metrics['seed'])}")
    if metrics.get("finished"):
        metadata.append(
            f"finished {esc(metrics['finished'].replace('T', ' ').replace('Z', ' UTC'))}"
        )
    return f"<h1>{esc(folder.name)}</h1><p class=note>{' &middot; '.join(metadata)}</p>"


def _tiles(metrics):
    if not metrics:
        return "<p class=note>The run is not finished: it has no test metrics yet.</p>"
    test = {k: v for k, v in metrics.get("test", {}).items() if is_number(v)}
    tiles = [(f"test {name}", number_text(test[name])) for name in _loss_last(test)]
    if baseline := metrics.get("baseline"):
        name = baseline.get("name", "baseline")
        tiles += [(f"{k}, {name}", number_text(v)) for k, v in baseline.items() if is_number(v)]
    if is_number(metrics.get("best_epoch")):
        tiles.append(("best epoch", f"{metrics['best_epoch']} of {metrics.get('epochs', '?')}"))
    elif "epochs" in metrics:
        tiles.append(("epochs", f"{metrics['epochs']}"))
    if "steps" in metrics:
        tiles.append(("steps", f"{metrics['steps']:,}"))
    if "train_seconds" in metrics:
        tiles.append(("training", duration(metrics["train_seconds"])))
    if "examples_per_second" in metrics:
        tiles.append(("examples per second", f"{metrics['examples_per_second']:,.0f}"))
    if is_number(metrics.get("flops_utilisation")):
        tiles.append(("of the measured peak", f"{metrics['flops_utilisation']:.0%}"))
    divs = [
        f"<div{' class=first' if not i else ''}><b>{esc(v)}</b><span>{esc(k)}</span></div>"
        for i, (k, v) in enumerate(tiles)
    ]
    return f"<section class=tiles>{''.join(divs)}</section>"


def _members(metrics):
    """The members of an ensemble beside it, on the test part."""
    members, mean = metrics.get("members"), metrics.get("mean") or {}
    if not members:
        return ""
    names = list(_loss_last(metrics.get("test", {})))
    named = {**members, "mean of the members": mean, "mean of their probabilities": metrics}
    rows = [
        (printable(name), one.get("model", ""), *(number_text(one["test"].get(n)) for n in names))
        for name, one in named.items()
    ]
    shown = table(("run", "model", *(f"test {n}" for n in names)), rows, "num")
    return f"<h2>Members</h2>{shown}"


def _curves(rows, best):
    if not rows:
        return ""
    columns = [c for c in rows[0] if c not in BARE]
    names = list(dict.fromkeys(c.removeprefix("val_") for c in columns))
    metrics = []
    for name in [*names, "lr"]:
        lines = {"train": _points(rows, name), "val": _points(rows, f"val_{name}")}
        lines = {k: v for k, v in lines.items() if v}
        if not lines:
            continue
        label = {"train": "training", "val": "validation"} if name != "lr" else {"train": "last"}
        keys = [
            f'<span class="key {k}">{label[k]} {number_text(v[-1][1])}</span>'
            for k, v in lines.items()
        ]
        title = "learning rate" if name == "lr" else name
        chart = plots.curves(lines, best if name != "lr" else None, log="loss" in name)
        metrics.append(
            f"<figure><figcaption><h3>{esc(title)}</h3>{''.join(keys)}</figcaption>{chart}</figure>"
        )
    note = "By epoch; the values are the last epoch's."
    if best is not None:
        note += f" The dashed line is the best epoch, {esc(best)}."
    return (
        f"<h2>Curves</h2><p class=note>{note}</p><section class=charts>{''.join(metrics)}</section>"
    )


def _confusion(confusion, names, what="test examples"):
    matrix = np.asarray(confusion if confusion is not None else [], float)
    if matrix.ndim != 2 or not matrix.size:
        return ""
    k = len(matrix)
    names = [printable(n) for n in names] if len(names) == k else [str(i) for i in range(k)]
    fraction = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if k <= NAMED_CLASSES:
        shown = _confusion_table(matrix, fraction, names)
    else:
        shown = (
            '<div><img class=heat alt="confusion matrix" '
            f'src="{data_url(plots.heat_png(fraction))}">'
            f"<p class=note>{k} classes; darker is a larger fraction of the true class.</p></div>"
        )
    wrong = matrix * (1 - np.eye(k))
    order = np.argsort(wrong, axis=None)[::-1][:CONFUSED_PAIRS]
    pairs = [divmod(int(i), k) for i in order if wrong.flat[i] > 0]
    right = matrix.trace() / max(matrix.sum(), 1)
    note = f"{matrix.trace():,.0f} of {matrix.sum():,.0f} {what} are right ({right:.2%})."
    rows = [(names[t], names[p], f"{matrix[t, p]:,.0f}", f"{fraction[t, p]:.1%}") for t, p in pairs]
    maximum = table(("true", "taken for", "times", "of its class"), rows) if rows else ""
    return (
        f"<h2>Confusion</h2><p class=note>{note} Rows are the true classes, columns the "
        f"predicted ones.</p><div class=side>{shown}{maximum}</div>"
    )


def _confusion_table(matrix, fraction, names):
    kind = "long" if max(map(len, names)) > 4 else ""
    head = "".join(f'<th><div class="{kind}">{esc(n)}</div></th>' for n in names)
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j in range(len(names)):
            s = math.sqrt(fraction[i, j])  # the root shows what is rare
            kind = "none" if not matrix[i, j] else "strong" if s > 0.6 else ""
            tip = f"{name} taken for {names[j]}: {matrix[i, j]:.0f}"
            cells.append(
                f'<td class="{kind}" title="{esc(tip)}" style="background:rgba(var(--tint),'
                f'{max(s, 0.04):.2f})">{matrix[i, j]:.0f}</td>'
            )
        rows.append(f"<tr><th>{esc(name)}</th>{''.join(cells)}</tr>")
    return (
        f"<div class=scroll><table class=confusion><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _precision_recall(precision):
    """The mean curve of a detector's classes."""
    points = [(i / (len(precision) - 1), p) for i, p in enumerate(precision or ())]
    if not points:
        return ""
    note = "Of boxes that overlap by half, where recall is what is below; the mean of the classes."
    chart = f"<section class=charts><figure>{plots.curves({'val': points})}</figure></section>"
    return f"<h2>Precision and recall</h2><p class=note>{note}</p>{chart}"


def _classes(classes):
    """Precision and recall of each class, where there are not too many."""
    if not classes:
        return ""
    note = "Of the test set."
    if len(classes) > LISTED_CLASSES:
        note = f"{len(classes)} classes: they stand in <code>{runs.METRICS}</code>."
        return f"<h2>Classes</h2><p class=note>{note}</p>"
    names = ("precision", "recall", "f1")
    rows = [
        (printable(name), *(number_text(row.get(n)) for n in names), f"{row.get('support', 0):,}")
        for name, row in classes.items()
    ]
    shown = table(("class", *names, "examples"), rows, "num")
    return f"<h2>Classes</h2><p class=note>{note}</p>{shown}"


def _mistakes(path, mistakes, names):
    """The examples that were wrong; each is a window on one cell of the grid."""
    data = path.read_bytes() if path.exists() else b""
    size = plots.png_size(data)
    if not mistakes or not size:
        return ""
    n = len(mistakes)
    rows = -(-n // GRID_COLUMNS)
    ratio = f"{size[0] // GRID_COLUMNS}/{size[1] // rows}"
    look = "pixelated" if size[0] // GRID_COLUMNS < PHOTO else "auto"
    metrics = []
    for i, m in enumerate(mistakes):
        row, column = divmod(i, GRID_COLUMNS)
        x = 100 * column / (GRID_COLUMNS - 1)
        y = 100 * row / max(1, rows - 1)
        true, predicted = (_class(names, m.get(key)) for key in ("true", "predicted"))
        metrics.append(
            f'<figure><i role=img aria-label="{esc(true)}" style="background-position:'
            f'{x:.4g}% {y:.4g}%"></i><figcaption><b>{esc(true)}</b> &rarr; <em>{esc(predicted)}'
            f"</em><br>{m.get('confidence', 0):.1%} &middot; no. {esc(m.get('index', '?'))}"
            "</figcaption></figure>"
        )
    style = (
        f"<style>.wrong i{{background-image:url({data_url(data)});aspect-ratio:{ratio};"
        f"background-size:{100 * GRID_COLUMNS}% {100 * rows}%;image-rendering:{look}}}</style>"
    )
    return (
        f"<h2>Wrong examples</h2><p class=note>The {n} most confident mistakes on the test set: "
        "true class &rarr; predicted class, its probability, and the example's number.</p>"
        f"{style}<section class=wrong>{''.join(metrics)}</section>"
    )


def _data(data):
    """Examples and objects of each class in each part, and what was left out."""
    data = data or {}
    counted = {"class": data.get("classes"), "objects of the class": data.get("objects")}
    notes = data.get("notes", ())
    if not any(counted.values()) and not notes:
        return ""
    result = "".join(f"<p class=note>{esc(note)}</p>" for note in notes)
    for head, counts in counted.items():
        if not counts:
            continue
        parts = list(next(iter(counts.values())))
        rows = [
            (printable(name), *(f"{of_part[p]:,}" for p in parts))
            for name, of_part in counts.items()
        ]
        rest = len(rows) - LISTED_CLASSES
        result += table((head, *parts), rows[:LISTED_CLASSES], "num")
        result += f"<p class=note>And {rest:,} more classes.</p>" if rest > 0 else ""
    return f"<h2>Data</h2>{result}"


def _groups(groups):
    """Exact matches of each group of pairs, the worst first."""
    if not groups:
        return ""
    rows = [
        (printable(name), f"{fraction:.2%}")
        for name, fraction in sorted(groups.items(), key=lambda g: g[1])
    ]
    note = "Fraction of exact matches on the test set, the worst first."
    return f"<h2>Groups</h2><p class=note>{note}</p>{table(('group', 'exact'), rows)}"


def _translations(pairs):
    if not pairs:
        return ""
    rows = [(p["source"], p["translation"], p["reference"]) for p in pairs]
    return (
        "<h2>Translations</h2><p class=note>Of the test set; wrong ones first.</p>"
        f"{table(('source', 'translation', 'reference'), rows)}"
    )


def _texts(folder):
    """Texts that were written after epochs: the last ones, and the others folded away."""
    result = []
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        heads = re.findall(r"^== epoch \d+,", text, re.MULTILINE)
        start = text.index(heads[-1]) if heads else 0
        result.append(f"<h3>{esc(path.stem)}</h3><pre class=text>{esc(text[start:].strip())}</pre>")
        if start:
            earlier = f"<pre class=text>{esc(text[:start].strip())}</pre>"
            result.append(f"<details><summary>Earlier epochs</summary>{earlier}</details>")
    return f"<h2>Texts</h2>{''.join(result)}" if result else ""


def _export(card):
    artifacts = (card or {}).get("artifacts") or {}
    if not artifacts:
        return ""
    result = dict.fromkeys(k for a in artifacts.values() for k in a.get("test") or {})
    metrics = _loss_last(k for k in result if k != "examples")
    # A latency is a number, or {threads: number}.
    times = {name: a.get("latency_ms") for name, a in artifacts.items()}
    threads = sorted({t for v in times.values() if isinstance(v, dict) for t in v}, key=_as_number)
    alone = any(is_number(v) for v in times.values())
    head = ["file", "size", "largest difference", *(f"test {m}" for m in metrics)]
    head += ["ms, all threads"] * alone + [f"ms, {t} thread{'s' * (t != '1')}" for t in threads]
    rows = []
    for name, a in artifacts.items():
        test, time = a.get("test") or {}, times[name]
        row = [name, _bytes(a.get("bytes")), _small(a.get("max_difference"))]
        row += [number_text(test.get(m)) for m in metrics]
        row += [number_text(time, 3)] if alone else []
        row += [number_text(time.get(t) if isinstance(time, dict) else None, 3) for t in threads]
        rows.append(row)
    notes = []
    if card.get("folder"):
        notes.append(f"In <code>{esc(card['folder'])}</code>.")
    notes.append(
        "Differences are the largest, relative to the trained model's answers; latencies are "
        "medians of one example."
    )
    counts = {
        a["test"]["examples"] for a in artifacts.values() if "examples" in (a.get("test") or {})
    }
    if len(counts) == 1:
        notes.append(f"Metrics are of {counts.pop():,} test examples.")
    if card.get("no_tflite"):
        notes.append(f"No TFLite files: {esc(card['no_tflite'])}")
    return f"<h2>Export</h2><p class=note>{' '.join(notes)}</p>{table(head, rows, 'num')}"


def _norms(norms):
    weights = {k.partition("/")[2]: v for k, v in norms.items() if k.startswith("weights/")}
    if not weights:
        return ""
    gradients = {k.partition("/")[2]: v for k, v in norms.items() if k.startswith("gradients/")}
    largest = [max(filter(is_number, d.values()), default=0) or 1 for d in (weights, gradients)]
    rows = []
    for path, value in weights.items():
        cells = [f"<td class=name>{esc(path)}</td>"]
        for v, maximum in zip((value, gradients.get(path)), largest, strict=True):
            fraction = min(1.0, v / maximum) if is_number(v) else 0
            cells.append(f'<td class=bar style="--fraction:{fraction:.3f}">{_small(v)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        "<h2>Norms</h2><details><summary>Weights and their last gradients, "
        f"{len(weights)} of them</summary><div class=scroll><table><thead><tr><th>weight</th>"
        f"<th>norm</th><th>of its gradient</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div></details>"
    )


def _settings(args, metadata):
    defaults = to_dict(Recipe())
    changed = {k: v for k, v in args.items() if v != defaults.get(k)}
    rest = {k: v for k, v in args.items() if k not in changed}
    parts = ["<h2>Settings</h2><p class=note>Those that differ from the defaults.</p>"]
    parts.append(_args(changed, defaults) if changed else "<p>none</p>")
    if rest:
        parts.append(f"<details><summary>The other {len(rest)}</summary>{_args(rest)}</details>")
    described = {f"model {k}": v for k, v in metadata.get("arguments", {}).items()}
    info = metadata.get("info", {})
    for name, column in info.get("columns", {}).items():
        described |= {
            f"data {name} {k}": v for k, v in column.items() if v not in (None, [], {}, "")
        }
    for name, text in info.get("tokenizers", {}).items():
        tokenizer = json.loads(text)
        described[f"tokenizer {name}"] = f"{tokenizer['kind']}, {len(tokenizer['pieces'])} tokens"
    if described:
        parts.append(f"<details><summary>Model and data</summary>{_args(described)}</details>")
    return "".join(parts)


def _args(values, defaults=None):
    """Settings as rows, with what each is by default where that is given."""
    rows = []
    for name, value in values.items():
        plain = flag(name)
        usual = f"<td class=note>default {esc(_value(defaults.get(name)))}</td>" if defaults else ""
        kind = " class=changed" if defaults else ""
        rows.append(f"<tr{kind}><td>{esc(plain)}</td><td>{esc(_value(value))}</td>{usual}</tr>")
    return f"<div class=scroll><table class=args><tbody>{''.join(rows)}</tbody></table></div>"


def _exported(folder):
    """The card of an exported model's folder; None where there is none."""
    path = Path(folder or "") / "assets.extra" / "card.json"
    return {**archives.read_json(path), "folder": folder} if folder and path.is_file() else None


# -- files and text -------------------------------------------------------------------------------


def _json(path) -> dict:
    return archives.read_json(path) if path.exists() else {}


def _rows(path) -> list[dict]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _points(rows, column):
    """`[(epoch, value)]` of a column, without its gaps."""
    result = []
    for i, row in enumerate(rows):
        if row.get(column) not in (None, ""):
            result.append((float(row.get("epoch") or i + 1), float(row[column])))
    return result


def _class(names, index):
    known = isinstance(index, int) and 0 <= index < len(names)
    return printable(names[index]) if known else index


def _value(value) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        more = f", and {len(value) - LISTED} more" if len(value) > LISTED else ""
        return ", ".join(map(str, value[:LISTED])) + more or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _loss_last(names) -> list[str]:
    """Names of metrics, those first that people look for."""
    return sorted(names, key=lambda name: "loss" in name)


def _as_number(text):
    return int(text) if str(text).isdecimal() else math.inf


def _small(value) -> str:
    return f"{value:.2g}" if is_number(value) else ""


def _bytes(value) -> str:
    if not is_number(value):
        return ""
    return f"{value / 1024:,.0f} KiB" if value < 10 * 2**20 else f"{value / 2**20:,.1f} MiB"
