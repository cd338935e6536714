"""Convert a model to TFLite files that hold builtin operations only, in a process of its own."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.errors import ExportError
from kerasdl.export import CALIBRATED, QUANTIZED, saved_model
from kerasdl.inference.signatures import functions
from kerasdl.layers import attention
from kerasdl.system import processes

HIDDEN = 16.0  # of attention's scores; e^-16 of a weight is nothing in 8 bits
CALIBRATION = 200  # examples that the ranges of int8 are taken from


def write(
    task,
    model,
    examples: dict,
    folder,
    say,
    batch: int | None = None,
    quantized=QUANTIZED,
    only=(),
) -> dict:
    """Write `float32.tflite`, and one file per kind of quantization.

    `float16` has 16-bit weights, `dynamic` 8-bit weights, `int8` 8-bit weights and activations;
    inputs and outputs stay float but in `int8_full`. 8-bit weights have a scale per output; those
    of dense layers have a single one where a file would exceed 0.3 of the float32 one. A signature
    with a loop is in neither int8 file: the converter dies of it.

    Args:
        task: The task, whose signatures with the format "tflite" are written.
        model: The Keras model, in float32.
        examples: `{input: (N, ...)}` of training examples; the first 200 calibrate int8.
        folder: Where to; is made.
        say: Called with a line of progress.
        batch: Of the inputs; None is any.
        quantized: Of `proof.KINDS`, "float32" aside.
        only: Names of the signatures that are written; all if empty.

    Returns:
        `{"tflite/<kind>": reason}` of quantized files that the converter refused, or died of.

    Raises:
        ExportError: There is no float32 one, for instance where an operation is no builtin.
    """
    folder = Path(folder)
    folder.mkdir()
    signatures = functions(task, model, "tflite", batch=batch, only=only)
    described = task.signatures(model)
    examples = examples | {k: v for s in described for k, v in s.examples.items()}
    inputs = {n: [spec.name for spec in specs] for n, (_, specs) in signatures.items()}
    plain = {
        name: inputs[name]
        for name, served in signatures.items()
        if set(inputs[name]) <= set(examples) and not _loops(*served)
    }
    jobs = {k: plain if k in CALIBRATED else inputs for k in ("float32", *quantized)}
    refused = {k: "the converter cannot calibrate a loop" for k, names in jobs.items() if not names}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        saved_model.write(model, signatures, work / "source")
        if plain and task.info.tokenizer and set(jobs) & set(CALIBRATED):
            with attention.hide_by(HIDDEN):
                chosen = {name: signatures[name] for name in plain}
                saved_model.write(model, chosen, work / "source_of_8_bits")
        (work / "signatures.json").write_text(json.dumps(jobs))
        requested = {n for names in plain.values() for n in names}
        np.savez(work / "examples.npz", **{n: examples[n][:CALIBRATION] for n in requested})
        left = [k for k in jobs if k not in refused]
        while left:
            refused |= _convert(work, left, say)
            if "float32" in refused:
                raise ExportError(f"TFLite float32: {refused['float32']}")
            left = [k for k in left if k not in refused and not (work / f"{k}.tflite").exists()]
        for file in work.glob("*.tflite"):
            shutil.copyfile(file, folder / file.name)
    return {f"tflite/{kind}": f"TFLite {kind}: {reason}" for kind, reason in refused.items()}


def _convert(work, kinds, say) -> dict:
    """Run `convert.py` until its end, or its death; returns `{kind: why there is none}`."""
    command = [sys.executable, "-m", "kerasdl.export.convert", work, *kinds]
    with processes.child(command) as (lines, wait):
        kind = kinds[0]
        for line in lines:
            if line.strip() in kinds:
                kind = line.strip()
                say(f"TFLite {kind}")
        status, output = wait()
    refused = {k: (work / f"{k}.txt").read_text() for k in kinds if (work / f"{k}.txt").exists()}
    if status:
        refused[kind] = f"the converter died: {processes.why(status, output)}"
    return refused


def _loops(function, specs) -> bool:
    """Whether a function has a loop in its graph."""
    graph = tf.function(function, input_signature=specs, autograph=False)
    definition = graph.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)
