"""The results table: what the cards of all exported models say, one row each."""

import json
from pathlib import Path

from kerasdl.export.card import TEST

HEADS = ("model", "data", "parameters", "test", "file", "KiB", "test of the file", "ms")


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
        raise ValueError(f"--export-dir {export_dir}: holds no exported model")
    return found


def rows(card: dict) -> list[tuple]:
    """Texts under `HEADS`, a row per file; what is the model's stands in the first."""
    found = []
    for number, (name, file) in enumerate(card["artefacts"].items()):
        latency = file["latency_ms"]
        latency = latency["1"] if isinstance(latency, dict) else latency
        whole = (card["name"], card["dataset"], f"{card['trainable_parameters']:,}", _test(card))
        figures = _first(file["test"] or {})
        size = f"{file['bytes'] / 1024:,.0f}"
        start = ("",) * len(whole) if number else whole
        found.append((*start, name, size, figures, f"{latency:.2f}"))
    return found


def _test(card):
    return _first(card["figures"].get("test", {}))


def _first(figures):
    name = next((n for n in TEST if isinstance(figures.get(n), int | float)), None)
    return f"{name} {figures[name]:.4f}" if name else ""
