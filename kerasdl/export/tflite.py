"""Convert a SavedModel to TFLite files that hold builtin operations only."""

import tempfile
import warnings
from pathlib import Path

import tensorflow as tf

from kerasdl.export import ExportError, parity, saved_model

CALIBRATION = 200  # examples that the ranges of int8 are taken from


def write(task, model, examples: dict, folder, say, batch: int | None = None) -> dict:
    """Write `float32`, `float16`, `dynamic` and `int8` with the suffix `.tflite`.

    `dynamic` has 8-bit weights, `int8` 8-bit weights and activations; inputs and outputs stay
    float in all of them. A signature with a loop is not in `int8`: the converter dies of it.

    Args:
        task: The task, whose signatures with the format "tflite" are written.
        model: The Keras model, in float32.
        examples: `{input: (N, ...)}` of training examples; the first 200 calibrate int8.
        folder: Where to; is made.
        say: Called with a line of progress.
        batch: Of the inputs; None is any.

    Returns:
        `{"tflite/<kind>": reason}` of quantised files that the converter refused.

    Raises:
        ExportError: It refused the float32 one, for instance where an operation is no builtin.
    """
    folder = Path(folder)
    folder.mkdir()
    signatures = saved_model.functions(task, model, "tflite", batch=batch)
    described = task.signatures(model)
    examples = examples | {k: v for s in described for k, v in s.examples.items()}
    plain = [name for name, served in signatures.items() if not _loops(*served)]
    omitted = {}
    with tempfile.TemporaryDirectory() as source:
        saved_model.write(model, signatures, source)
        for kind in parity.KINDS:
            names = plain if kind == "int8" else list(signatures)
            if not names:
                omitted[f"tflite/{kind}"] = "the converter cannot calibrate a loop"
                continue
            say(f"TFLite {kind}")
            inputs = {n: [spec.name for spec in signatures[n][1]] for n in names}
            try:
                content = _convert(source, inputs, kind, examples)
            except ExportError as error:
                if kind == "float32":
                    raise
                omitted[f"tflite/{kind}"] = str(error)
            else:
                (folder / f"{kind}.tflite").write_bytes(content)
    return omitted


def _loops(function, specs) -> bool:
    """Whether a function has a loop in its graph."""
    graph = tf.function(function, input_signature=specs, autograph=False)
    definition = graph.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)


def _convert(source, signatures, kind, examples) -> bytes:
    """A TFLite file of `signatures`, `{name: names of its inputs}`."""
    converter = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[*signatures])
    # No interpreter on PyPI runs the others any more: let them fail here.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        converter.representative_dataset = lambda: _single_examples(signatures, examples)
    with warnings.catch_warnings():
        # The converter calibrates with an interpreter that TensorFlow itself calls deprecated.
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated")
        try:
            return converter.convert()
        except Exception as error:  # its own exceptions have no public class
            raise ExportError(f"TFLite {kind}: {_reason(error)}") from error


def _single_examples(signatures, examples):
    for i in range(min(max(map(len, examples.values())), CALIBRATION)):
        for signature, inputs in signatures.items():
            rows = {name: i % len(examples[name]) for name in inputs}
            yield signature, {name: examples[name][k : k + 1] for name, k in rows.items()}


def _reason(error) -> str:
    """One line of the many that a converter's error has: the one that names the operations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if " ops:" in line.lower()]
    return (named or lines or [type(error).__name__])[0][:300]
