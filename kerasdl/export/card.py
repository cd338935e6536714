"""The card of an exported model, for machines (`card.json`) and readers (`card.md`)."""

import dataclasses
import html
import json
import re
import subprocess
from importlib import metadata as packages
from pathlib import Path

import kerasdl
from kerasdl import catalog
from kerasdl import recipe as recipes
from kerasdl.columns import DataInfo
from kerasdl.export import CALIBRATED, CALIBRATION
from kerasdl.system.terminal import NAME, printable
from kerasdl.tasks import bounds

TEST = (
    "top1",
    "exact_match",
    "mean_iou",
    "ap",
    "mask_ap",
    "mse",
    "loss",
)  # metrics that are shown in the table
ACCURACIES = ("top1", "exact_match", "mean_iou", "ap", "mask_ap")
TOLERANCE = 0.02  # of an accuracy: files that lose more are named
MAX_LOSS = 0.03  # calibrated ones that lose more are left out
MARKUP = re.compile(r"([\\`*\[\]|])")  # of Markdown
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")


def contents(
    parts,
    name: str,
    folder: Path,
    report: dict,
    omitted: dict,
    interface: dict,
    batch: int | None = 1,
) -> dict:
    """The card of a version whose files are all written.

    Args:
        parts: What was exported.
        name: Name of the exported model.
        folder: Its files.
        report: Of `exporter.prove`.
        omitted: `{file: reason}` of requested files that could not be made.
        interface: Its inputs and outputs, of `kerasdl.inference.signatures.interface`.
        batch: Of its TFLite files.

    Returns:
        JSON values; the version is still missing.
    """
    row = catalog.row(parts.model_name)
    artifacts = report["artifacts"]
    for key, result in artifacts.items():
        path = folder if key == "savedmodel" else folder / f"{key}.tflite"
        result["bytes"] = _size(path)
        result["max_difference"] = max(result["difference"].values(), default=0.0)
    model = parts.model
    return {
        "name": name,
        "version": None,
        "model": parts.model_name,
        "model_arguments": parts.model_arguments,
        "task": row.task,
        "paper": row.paper,
        "dataset": parts.recipe.dataset or row.dataset,
        "weights_of": parts.weights_of,
        "data": dataclasses.asdict(parts.info),
        "parts": parts.parts,
        "seed": parts.recipe.seed,
        "recipe": recipes.to_dict(parts.recipe),
        "trainable_parameters": sum(int(v.shape.num_elements()) for v in model.trainable_variables),
        "metrics": parts.metrics,
        "signatures": report["signatures"],
        "interface": interface,
        "batch": f"dynamic; of TFLite {'dynamic' if batch is None else batch}",
        "artifacts": artifacts,
        "omitted": omitted,
        "calibration_examples": min(CALIBRATION, max(map(len, parts.train.values()), default=0)),
        "warmup_requests": report["warmup_requests"],
        "keras_bytes": _size(folder / "assets.extra" / "model.keras"),
        "versions": {"kerasdl": kerasdl.__version__}
        | {package: packages.version(package) for package in PACKAGES},
        "commit": commit(),
    }


def write_metadata(card: dict, folder: Path) -> None:
    """Write `metadata.json` beside TFLite files: what an application needs to know of each."""
    files = {
        f"{name.removeprefix('tflite/')}.tflite": result["signatures"]
        for name, result in card["artifacts"].items()
        if name.startswith("tflite/")
    }
    data = DataInfo.from_dict(card["data"])
    metadata = {
        "description": f"{card['model']} ({card['paper']}), {_origin(card, card['dataset'])}",
        "task": card["task"],
        "input": _input(data),
        "batch": card["batch"],
        "labels": list(data.class_names),
        "files": files,
    }
    if files:
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=1))


def write(card: dict, folder: Path) -> None:
    """Write `card.json` and `card.md` into `folder`."""
    (folder / "card.json").write_text(json.dumps(card, indent=1))
    (folder / "card.md").write_text(markdown(card))


def losses(artifacts: dict) -> list[str]:
    """Lines on files that are less accurate than the SavedModel, by more than `TOLERANCE`.

    Args:
        artifacts: Those of `proof.run`.
    """
    return [
        f"{name} has {key} {value:.4f}, the SavedModel {whole:.4f}"
        for name, key, value, whole in _accuracies(artifacts)
        if value < whole - TOLERANCE
    ]


def inaccurate(artifacts: dict) -> dict[str, str]:
    """`{name: reason}` of calibrated files that lose more than `MAX_LOSS` of an accuracy.

    Two examples of the test set may be lost however few it has.

    Args:
        artifacts: Those of `proof.run`.
    """
    allowed = max(MAX_LOSS, 2 / (artifacts["savedmodel"]["test"] or {}).get("examples", 1))
    return {
        name: f"its {key} would be {value:.4f}, the SavedModel's is {whole:.4f}"
        for name, key, value, whole in _accuracies(artifacts)
        if name.removeprefix("tflite/") in CALIBRATED and value < whole - allowed
    }


def _accuracies(artifacts):
    """File, name of the metric, its value, and the SavedModel's."""
    whole = artifacts["savedmodel"]["test"] or {}
    for name, file in artifacts.items():
        for key in ACCURACIES:
            if key in whole and key in (file["test"] or {}):
                yield name, key, file["test"][key], whole[key]


def table(card: dict) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table of artifacts, as texts."""
    threads = sorted(
        {
            t
            for a in card["artifacts"].values()
            if isinstance(a["latency_ms"], dict)
            for t in a["latency_ms"]
        },
        key=int,
    )
    names = [n for n in TEST if any(n in (a["test"] or {}) for a in card["artifacts"].values())]
    head = ["file", "KiB", "largest difference", *names, "ms"]
    head[-1:] = [_threads(t) for t in threads] or head[-1:]
    compiled = [
        (a.get("compiled_model") or {}).get("latency_ms", {}) for a in card["artifacts"].values()
    ]
    device = sorted({t for one in compiled for t in one}, key=int)
    head += [f"{_threads(t)}, compiled model" for t in device]
    rows = []
    for (name, a), more in zip(card["artifacts"].items(), compiled, strict=True):
        test = a["test"] or {}
        times = a["latency_ms"]
        if isinstance(times, dict):
            times = [f"{times[t]:.3f}" for t in threads]
        else:  # TensorFlow takes all threads
            times = [""] * (len(threads) - 1) + [f"{times:.3f}"]
        metrics = [f"{test[k]:.4f}" if k in test else "" for k in names]
        times += [f"{more[t]:.3f}" if t in more else "" for t in device]
        size = f"{a['bytes'] / 1024:.0f}"
        rows.append([name, size, f"{a['max_difference']:.1e}", *metrics, *times])
    return head, rows


def _threads(count: str) -> str:
    return f"ms, {count} thread{'s' * (count != '1')}"


def markdown(card: dict) -> str:
    """The card as a page of Markdown."""
    data = DataInfo.from_dict(card["data"])
    lines = [
        f"# {escaped(card['name'])}, version {card['version']}",
        "",
        f"`{card['model']}` ({card['paper']}; task `{card['task']}`), "
        f"{card['trainable_parameters']:,} trainable parameters, "
        f"{_origin(card, _code(card['dataset']))}"
        + (
            "."
            if card.get("weights_of") or "members" in card["metrics"]
            else f" with seed {card['seed']}."
        ),
        "",
        f"- Input: {_input(data)}; batch: {card['batch']}.",
        *_classes(data),
        f"- Made with {', '.join(f'{k} {v}' for k, v in card['versions'].items())}"
        + (f", commit {card['commit']}." if card["commit"] else "."),
        "",
        "## Files",
        "",
        *_table(*table(card)),
        "",
        "Differences are `max|a - b| / (1 + max|b|)` from the answers of `model.keras`; latencies "
        "are medians for one example on the machine that exported, of TFLite files by the "
        "interpreter, and by LiteRT's compiled model.",
    ]
    if evaluated := next(iter(card["artifacts"].values()))["test"]:
        lines[-1] += f" Metrics are of {evaluated['examples']} test examples."
    lines += ["", *_operations(card)]
    if theirs := card.get("safetensors"):
        named = f"`safetensors/` holds the weights as a {escaped(theirs['family'])} has them: "
        lines += ["", named + ", ".join(map(_code, theirs["files"])) + "."]
    for name, reason in card["omitted"].items():
        lines += ["", f"Without `{name}`: {escaped(reason, None)}"]
    lines += ["", "## Signatures", ""]
    for name, signature in card["signatures"].items():
        lines += [_code(name), ""]
        rows = [
            [side[:-1], _code(key), spec["dtype"], _shape(spec["shape"])]
            for side in ("inputs", "outputs")
            for key, spec in signature[side].items()
        ]
        lines += [*_table(["", "name", "dtype", "shape"], rows), ""]
        if line := bounds.sentence(card["interface"]["savedmodel"].get(name, {})):
            lines += [f"A request: {line}.", ""]
    lines += _members(card["metrics"])
    if metrics := {k: v for k, v in card["metrics"].items() if not isinstance(v, dict | list)}:
        lines += [
            "## Training",
            "",
            *_table(["", ""], [[escaped(k), escaped(v)] for k, v in metrics.items()]),
        ]
    for part in ("val", "test"):
        for key, value in card["metrics"].get(part, {}).items():
            if isinstance(value, int | float):
                lines.append(f"| {part} {escaped(key)} | {value:.6g} |")
    return "\n".join(lines).rstrip() + "\n"


def _members(metrics) -> list[str]:
    """A table of the members of an ensemble, their mean, and the ensemble; [] where it is none."""
    if "members" not in metrics:
        return []
    names = [name for name in metrics["mean"]["test"] if name in TEST]
    rows = {_code(name): one for name, one in metrics["members"].items()}
    rows |= {"mean of the members": metrics["mean"], "the mean of their probabilities": metrics}
    cells = [
        [name, one.get("model", ""), *(f"{one['test'][key]:.4f}" for key in names)]
        for name, one in rows.items()
    ]
    return ["## Members", "", *_table(["", "model", *(f"test {n}" for n in names)], cells), ""]


def _origin(card, dataset) -> str:
    """Where the weights are from, in words."""
    where = card.get("weights_of")
    return f"with the weights of {_code(where)}" if where else f"trained on {dataset}"


def _operations(card) -> list[str]:
    """A line for each TFLite file: what runs its operations, and what it was calibrated with."""
    lines = []
    for name, one in card["artifacts"].items():
        if not (how := one.get("operations")):
            continue
        device = (one.get("compiled_model") or {}).get("all_on_gpu")
        lines.append(
            f"- `{name}`: {how['count']} operations, {how['accelerated']:.2f} of them by the "
            f"accelerator of the CPU (XNNPACK), {how['float']:.2f} on floats"
            + ("" if device is None else f", {'all' if device else 'not all'} by that of the GPU")
            + (
                f"; calibrated with {card['calibration_examples']} training examples"
                if name.removeprefix("tflite/") in CALIBRATED
                else ""
            )
            + "."
        )
    return lines


def escaped(name, maximum=NAME) -> str:
    """A name from data as plain text of a page of Markdown: in one line, and no markup."""
    return MARKUP.sub(r"\\\1", html.escape(printable(name, maximum), quote=False))


def _code(name) -> str:
    return f"`{printable(name).replace('`', chr(39)).replace('|', '/')}`"


def _classes(data) -> list[str]:
    if not data.class_names:
        return []
    what = "Groups that are evaluated separately" if data.tokenizer else "Classes"
    return [f"- {what}: {', '.join(map(escaped, data.class_names))}."]


def _input(data) -> str:
    if data.image_shape:
        return f"{tuple(data.image_shape)}, floats in [0, 1]"
    tokenizer = json.loads(data.tokenizer or "{}")
    kind, pieces = tokenizer.get("kind", "no"), len(tokenizer.get("pieces", ()))
    return f"texts in UTF-8, or tokens of a `{kind}` vocabulary of {pieces}"


def commit() -> str | None:
    """The commit of this package's sources, with `-dirty` where they differ; None outside git."""
    here = Path(kerasdl.__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not another project around it
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def _size(path: Path) -> int:
    """Bytes of a file, or of a SavedModel without what lies beside it."""
    if path.is_file():
        return path.stat().st_size
    beside = ("tflite", "assets.extra")
    files = (p for p in path.rglob("*") if p.relative_to(path).parts[0] not in beside)
    return sum(p.stat().st_size for p in files if p.is_file())


def _shape(shape) -> str:
    if shape is None:
        return "() or (B)"
    return "(" + ", ".join("B" if i == 0 else str(n) for i, n in enumerate(shape)) + ")"


def _table(head, rows) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
