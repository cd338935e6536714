"""The results table: what the cards of all exported models say, a row each."""

import json
from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.export.card import TEST

FILES = ("savedmodel", "tflite/float32", "tflite/float16", "tflite/dynamic", "tflite/int8")
HEADS = ("model", "data", "parameters", "test", *(name.removeprefix("tflite/") for name in FILES))


def cards(export_dir) -> list[dict]:
    """The cards of the newest versions of all models below a folder, by name.

    Raises:
        ValueError: There is none.
    """
    result = []
    for folder in sorted(Path(export_dir).glob("*/")):
        versions = [int(p.parts[-3]) for p in folder.glob("[0-9]*/assets.extra/card.json")]
        if versions:
            path = folder / str(max(versions)) / "assets.extra" / "card.json"
            result.append(json.loads(path.read_text()))
    if not result:
        raise UserError(f"--export-dir {export_dir}: holds no exported model")
    return result


def row(card: dict) -> tuple:
    """Texts under `HEADS`; of each file its KiB, the test's figure and the time of one example."""
    number_text = _first(card["figures"].get("test", {}))
    files = (_file(card["artifacts"].get(name), number_text[:1]) for name in FILES)
    whole = (card["name"], card["dataset"], f"{card['trainable_parameters']:,}")
    return (*whole, " ".join(number_text), *files)


def _file(metadata, named):
    if not metadata:
        return ""
    latency = metadata["latency_ms"]
    latency = latency["1"] if isinstance(latency, dict) else latency
    number_text = " ".join(text for text in _first(metadata["test"] or {}) if text not in named)
    texts = (f"{metadata['bytes'] / 1024:,.0f} KiB", number_text, f"{latency:.2f} ms")
    return ", ".join(filter(None, texts))


def _first(metrics) -> tuple:
    """The figure that stands for all: its name and itself; nothing where there is none."""
    name = next((n for n in TEST if isinstance(metrics.get(n), int | float)), None)
    return (name, f"{metrics[name]:.4f}") if name else ()
