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
    found = []
    for folder in sorted(Path(export_dir).glob("*/")):
        versions = [int(p.parts[-3]) for p in folder.glob("[0-9]*/assets.extra/card.json")]
        if versions:
            path = folder / str(max(versions)) / "assets.extra" / "card.json"
            found.append(json.loads(path.read_text()))
    if not found:
        raise UserError(f"--export-dir {export_dir}: holds no exported model")
    return found


def row(card: dict) -> tuple:
    """Texts under `HEADS`; of each file its KiB, the test's figure and the time of one example."""
    figure = _first(card["figures"].get("test", {}))
    files = (_file(card["artefacts"].get(name), figure[:1]) for name in FILES)
    whole = (card["name"], card["dataset"], f"{card['trainable_parameters']:,}")
    return (*whole, " ".join(figure), *files)


def _file(facts, named):
    if not facts:
        return ""
    latency = facts["latency_ms"]
    latency = latency["1"] if isinstance(latency, dict) else latency
    figure = " ".join(text for text in _first(facts["test"] or {}) if text not in named)
    texts = (f"{facts['bytes'] / 1024:,.0f} KiB", figure, f"{latency:.2f} ms")
    return ", ".join(filter(None, texts))


def _first(figures) -> tuple:
    """The figure that stands for all: its name and itself; nothing where there is none."""
    name = next((n for n in TEST if isinstance(figures.get(n), int | float)), None)
    return (name, f"{figures[name]:.4f}") if name else ()
