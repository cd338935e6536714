"""The results table: a row for the card of each exported model."""

from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.export.card import TEST
from kerasdl.system import archives

FILES = ("savedmodel", "tflite/float32", "tflite/float16", "tflite/dynamic", "tflite/int8")
BROWSER = "browser.json"  # beside a card: the milliseconds of each TFLite file in a browser
HEADS = ("model", "data", "parameters", "test", *(name.removeprefix("tflite/") for name in FILES))


def versions(export_dir) -> list[Path]:
    """The folders of the newest versions of all models below a folder, by name.

    Raises:
        UserError: There is none.
    """
    newest = []
    for folder in sorted(Path(export_dir).glob("*/")):
        numbers = [int(p.parts[-3]) for p in folder.glob("[0-9]*/assets.extra/card.json")]
        newest += [folder / str(max(numbers))] if numbers else []
    if not newest:
        raise UserError(f"--export-dir {export_dir}: there is no exported model")
    return newest


def cards(export_dir) -> list[dict]:
    """The cards of `versions`, each with its times in a `browser` as far as they were measured.

    Raises:
        UserError: There is none.
    """
    newest = []
    for extra in (version / "assets.extra" for version in versions(export_dir)):
        times = extra / BROWSER
        measured = archives.read_json(times) if times.is_file() else {}
        newest.append(archives.read_json(extra / "card.json") | {"browser": measured})
    return newest


def row(card: dict) -> tuple:
    """Texts under `HEADS`.

    Of each file they are its KiB, its metric and the times of one example: of TFLite files by the
    interpreter with each number of threads, as a compiled model with each, and in a browser. The
    metric is shown where it is new: the SavedModel's where it is not that of the test set, another
    file's where it is not the SavedModel's.
    """
    test = _first(card["metrics"].get("test", {}))
    files = {name: card["artifacts"].get(name) for name in FILES}
    saved_model = _first((files["savedmodel"] or {}).get("test") or {}) or test
    cells = [
        _file(
            file,
            test if name == "savedmodel" else saved_model,
            test[:1],
            card.get("browser", {}).get(name),
        )
        for name, file in files.items()
    ]
    return (
        card["name"],
        card["dataset"],
        f"{card['trainable_parameters']:,}",
        " ".join(test),
        *cells,
    )


def _file(file, shown, named, browser=None) -> str:
    """The cell of a file.

    Args:
        file: Its entry in the card, or None.
        shown: The metric that need not be repeated, as `_first` returns it.
        named: Holds the metric's name where that need not be repeated.
        browser: Its milliseconds there, or None.
    """
    if not file:
        return ""
    compiled = (file.get("compiled_model") or {}).get("latency_ms")
    measured = [file["latency_ms"], compiled, browser]
    times = "; ".join(
        ", ".join(f"{ms:.2f}" for ms in (one.values() if isinstance(one, dict) else [one]))
        for one in measured
        if one is not None
    )
    metric = _first(file["test"] or {})
    metric = () if metric == shown else [text for text in metric if text not in named]
    texts = (f"{file['bytes'] / 1024:,.0f} KiB", " ".join(metric), f"{times} ms")
    return ", ".join(filter(None, texts))


def _first(metrics) -> tuple:
    """The main metric: its name and value as texts; () where there is none."""
    name = next((n for n in TEST if isinstance(metrics.get(n), int | float)), None)
    return (name, f"{metrics[name]:.4f}") if name else ()
