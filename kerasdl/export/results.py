"""The results table: a row for the card of each exported model."""

from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.export.card import TEST
from kerasdl.system import archives

FILES = ("savedmodel", "tflite/float32", "tflite/float16", "tflite/dynamic", "tflite/int8")
HEADS = ("model", "data", "parameters", "test", *(name.removeprefix("tflite/") for name in FILES))


def cards(export_dir) -> list[dict]:
    """The cards of the newest versions of all models below a folder, by name.

    Raises:
        UserError: There is none.
    """
    newest = []
    for folder in sorted(Path(export_dir).glob("*/")):
        versions = [int(p.parts[-3]) for p in folder.glob("[0-9]*/assets.extra/card.json")]
        if versions:
            path = folder / str(max(versions)) / "assets.extra" / "card.json"
            newest.append(archives.read_json(path))
    if not newest:
        raise UserError(f"--export-dir {export_dir}: there is no exported model")
    return newest


def row(card: dict) -> tuple:
    """Texts under `HEADS`.

    Of each file they are its KiB, its metric and the time of one example. The metric is shown where
    it is new: the SavedModel's where it is not that of the test set, another file's where it
    is not the SavedModel's.
    """
    test = _first(card["metrics"].get("test", {}))
    files = {name: card["artifacts"].get(name) for name in FILES}
    saved_model = _first((files["savedmodel"] or {}).get("test") or {}) or test
    cells = [
        _file(file, test if name == "savedmodel" else saved_model, test[:1])
        for name, file in files.items()
    ]
    return (
        card["name"],
        card["dataset"],
        f"{card['trainable_parameters']:,}",
        " ".join(test),
        *cells,
    )


def _file(file, shown, named) -> str:
    """The cell of a file.

    Args:
        file: Its entry in the card, or None.
        shown: The metric that need not be repeated, as `_first` returns it.
        named: Holds the metric's name where that need not be repeated.
    """
    if not file:
        return ""
    latency = file["latency_ms"]
    latency = latency["1"] if isinstance(latency, dict) else latency
    metric = _first(file["test"] or {})
    metric = () if metric == shown else [text for text in metric if text not in named]
    texts = (f"{file['bytes'] / 1024:,.0f} KiB", " ".join(metric), f"{latency:.2f} ms")
    return ", ".join(filter(None, texts))


def _first(metrics) -> tuple:
    """The main metric: its name and value as texts; () where there is none."""
    name = next((n for n in TEST if isinstance(metrics.get(n), int | float)), None)
    return (name, f"{metrics[name]:.4f}") if name else ()
