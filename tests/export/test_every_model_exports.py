"""Every kind of model exported: all its files answer as it does, without Keras, and in C++."""

import sys

import pytest

from kerasdl.bench import native
from kerasdl.export import exporter
from kerasdl.inference import proof, runtimes
from tests.export.examples import make_parts, quiet
from tests.fork_server import WITHOUT_KERAS, python
from tests.variants import BATTERY, short_settings, tiny

FILES = {"savedmodel", *(f"tflite/{k}" for k in ("float32", "float16", "dynamic", "int8"))}
STARTS = """#!/bin/sh
# A Python that has imported the framework: what proves does so without Keras.
for word in "$@"; do
    [ "$word" = {proof} ] && exec {without} "$@"
done
exec {project} "$@"
"""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The processes of an export are forks of ones that have imported TensorFlow already."""
    program = tmp_path / "python"
    paths = {"proof": proof.__file__, "without": python(WITHOUT_KERAS), "project": python()}
    program.write_text(STARTS.format(**paths))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def proven(monkeypatch):
    """The examples and the metadata that exports are proven with, in order."""
    seen, prove = [], exporter.prove

    def noted(folder, examples, meta, process):
        seen.append((examples, meta))
        return prove(folder, examples, meta, process)

    monkeypatch.setattr(exporter, "prove", noted)
    return seen


def check_in_browser(open_file, card, examples, meta):
    """Every file of an export answers in a browser as it does here."""
    for path in proof.lite_files(card["folder"]):
        name = f"tflite/{path.stem}"
        if name not in card["artifacts"]:
            continue
        lite = open_file(path)
        promised = meta["tflite"]["signatures"]
        promised = {n: names for n, names in promised.items() if n in lite.signatures}
        result = proof.check(lite, examples, promised, meta["tflite"]["without"], proof.SINGLE)
        for output, far in result["difference"].items():
            here = card["artifacts"][name]["difference"][output]
            assert far <= max(1e-4, 2 * here * (path.stem != "float32")), (name, output)
        if path.stem == "float32":
            same = {k: v for k, v in result["agreement"].items() if k not in result["of_pixels"]}
            assert set(same.values()) <= {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", BATTERY)
def test_every_kind_of_model(name, tmp_path, replay, started, monkeypatch, proven, open_in_browser):
    monkeypatch.setattr(runtimes, "SECONDS", 0.02)
    parts = make_parts(name, task_kwargs=short_settings(name), **tiny(name))
    answers, examples_of = [], exporter.examples_of

    def once(*args):  # requests and what Keras answers, in Python and in C++ the same
        answers[:] = answers or [examples_of(*args)]
        return answers[0]

    monkeypatch.setattr(exporter, "examples_of", once)
    card = exporter.export(parts, ("tflite",), tmp_path / "models", None, quiet)
    # A layer that is 0 on all that calibrates, as untrained ones may be, has no int8 file.
    assert {*card["artifacts"], *card["omitted"]} - {"tflite/mediapipe"} == FILES
    assert set(card["omitted"]) <= {"tflite/int8"}
    for key in (key for key in FILES if key.startswith("tflite/") and key in card["artifacts"]):
        assert card["artifacts"][key]["compiled_model"]["latency_ms"]["1"] > 0
    types = {
        spec["dtype"]
        for key, one in card["artifacts"].items()
        for sides in (one["signatures"].values() if key.startswith("tflite/") else ())
        for side in sides.values()
        for spec in side.values()
    }
    assert types <= {"float32", "int32", "int8", "uint8", "bool"}
    if open_in_browser:
        check_in_browser(open_in_browser, card, *proven[0])
    assert native.prove(replay, parts, card["folder"]) <= 1e-5
