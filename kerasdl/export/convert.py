"""The process that converts a SavedModel to TFLite files: the converter may die of what it reads.

`python -m kerasdl.export.convert FOLDER KIND...` reads `FOLDER/source`, a SavedModel,
`FOLDER/examples.npz` and `FOLDER/signatures.json`, `{kind: {signature: names of its inputs}}`. Per
kind it prints the name and writes `<kind>.tflite`, or why there is none to `<kind>.txt`.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf


def convert(source, signatures: dict, kind: str, examples: dict) -> bytes:
    """A TFLite file of builtin operations only.

    Args:
        source: The SavedModel.
        signatures: `{name: names of its inputs}`.
        kind: Of `parity.KINDS`.
        examples: `{input: (N, ...)}` that calibrate int8.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[*signatures])
    # No interpreter on PyPI runs the others any more: let them fail here.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in ("int8", "int8_full"):
        converter.representative_dataset = lambda: _single_examples(signatures, examples)
    if kind == "int8_full":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The converter calibrates with an interpreter that TensorFlow itself calls deprecated.
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated")
        return converter.convert()


def _single_examples(signatures, examples):
    for i in range(max(map(len, examples.values()))):
        for signature, inputs in signatures.items():
            rows = {name: i % len(examples[name]) for name in inputs}
            yield signature, {name: examples[name][k : k + 1] for name, k in rows.items()}


def reason(error) -> str:
    """One line of the many that a converter's error has: the one that names the operations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if " ops:" in line.lower()]
    return (named or lines or [type(error).__name__])[0][:300]


def main(folder, *kinds):
    """Convert to all kinds."""
    folder = Path(folder)
    signatures = json.loads((folder / "signatures.json").read_text())
    with np.load(folder / "examples.npz") as arrays:
        examples = dict(arrays)
    for kind in kinds:
        print(kind, flush=True)
        try:
            content = convert(folder / "source", signatures[kind], kind, examples)
        except Exception as error:  # its own exceptions have no public class
            (folder / f"{kind}.txt").write_text(reason(error))
        else:
            (folder / f"{kind}.tflite").write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
