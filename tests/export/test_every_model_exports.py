"""Every kind of model exported: all its files answer as it does, without Keras, and in C++."""

import sys

import pytest

from kerasdl.bench import native
from kerasdl.export import exporter
from kerasdl.inference import proof
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


@pytest.mark.slow
@pytest.mark.parametrize("name", BATTERY)
def test_every_kind_of_model(name, tmp_path, replay, started, monkeypatch):
    monkeypatch.setattr(proof, "SECONDS", 0.02)
    parts = make_parts(name, task_kwargs=short_settings(name), **tiny(name))
    answers, examples_of = [], exporter.examples_of

    def once(*args):  # requests and what Keras answers, in Python and in C++ the same
        answers[:] = answers or [examples_of(*args)]
        return answers[0]

    monkeypatch.setattr(exporter, "examples_of", once)
    card = exporter.export(parts, ("tflite",), tmp_path / "models", None, quiet)
    # A layer that is 0 on all that calibrates, as untrained ones may be, has no int8 file.
    assert {*card["artifacts"], *card["omitted"]} == FILES
    assert set(card["omitted"]) <= {"tflite/int8"}
    assert native.prove(replay, parts, card["folder"]) <= 1e-5
