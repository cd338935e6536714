"""The process that converts a SavedModel to TFLite files: the converter may die of what it reads.

`python -m kerasdl.export.convert` imports what it needs, and then gets the arguments of `write` by
its standard input, each a line of JSON. It prints a line when it is ready, and the kind when that
is done.
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np

from kerasdl.errors import UserError
from kerasdl.export import CALIBRATED, EIGHT_BITS
from kerasdl.system import processes

with processes.importing():
    import tensorflow as tf
    from tensorflow.lite.tools import flatbuffer_utils

LARGE = 2**20  # bytes of a float32 file
MAX_FRACTION = 0.3  # of the bytes of a large float32 file, for a calibrated one
NAMED = 2**26  # bytes of a file in which names are next to nothing


def convert(source, signatures: dict, kind: str, examples: dict, coarse=False) -> bytes:
    """A TFLite file of builtin operations only.

    Args:
        source: The SavedModel.
        signatures: `{name: names of its inputs}`.
        kind: Of `proof.KINDS`.
        examples: `{input: (N, ...)}` that calibrate int8.
        coarse: Whether a dense layer's 8-bit weights have one scale, not one per output.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[*signatures])
    # No interpreter on PyPI runs the others any more: let them fail here.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel_quantization_for_dense_layers = coarse
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in CALIBRATED:
        converter.representative_dataset = lambda: _single_examples(signatures, examples)
    if kind == "int8_full":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The converter calibrates with an interpreter that TensorFlow itself calls deprecated.
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated")
        return converter.convert()


def small(source, signatures: dict, kind: str, examples: dict, whole: int) -> bytes:
    """As `convert`, and, of other files than float32, no larger than they need be.

    Args:
        whole: Bytes of the float32 file, or 0.

    Raises:
        ValueError: A calibrated file would still take more than `MAX_FRACTION` of that.
    """
    content = convert(source, signatures, kind, examples)
    if kind == "float32":
        return content
    content = _without_names(content)
    maximum = MAX_FRACTION * whole if whole > LARGE else math.inf
    if kind in EIGHT_BITS and len(content) > maximum:
        # Many scales; or a table, looked up and multiplied with, is there in both forms.
        again = _without_names(convert(source, signatures, kind, examples, coarse=True))
        content = min(content, again, key=len)
    if kind in CALIBRATED and len(content) > maximum:
        fraction = len(content) / whole
        raise UserError(f"it would take {fraction:.2f} of the float32 file; dynamic takes less")
    return content


def _without_names(content) -> bytes:
    """A file without the names of what lies between inputs and outputs, where they count."""
    if len(content) > NAMED:
        return content
    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            tensor.name = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file))


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


def write(folder, kind: str) -> None:
    """Write `<kind>.tflite`, or why there is none to `<kind>.txt`.

    Args:
        folder: Holds the SavedModel `source`, for calibrated kinds `source_of_8_bits` where that is
            there; `examples.npz`; `signatures.json`, `{kind: {signature: names of its inputs}}`;
            and, for kinds of 8 bits, `float32.tflite`.
        kind: Of `proof.KINDS`.
    """
    folder = Path(folder)
    signatures = json.loads((folder / "signatures.json").read_text())[kind]
    source, own, float32 = (folder / n for n in ("source", "source_of_8_bits", "float32.tflite"))
    examples = {}
    if kind in CALIBRATED:
        source = own if own.exists() else source
        with np.load(folder / "examples.npz") as arrays:
            examples = dict(arrays)
    whole = float32.stat().st_size if kind in EIGHT_BITS and float32.exists() else 0
    try:
        content = small(source, signatures, kind, examples, whole)
    except Exception as error:  # its own exceptions have no public class
        (folder / f"{kind}.txt").write_text(reason(error))
    else:
        (folder / f"{kind}.tflite").write_bytes(content)


def main() -> None:
    """Convert what is requested."""
    print("ready", flush=True)
    for request in processes.requests():
        write(**request)
        print(request["kind"], flush=True)


if __name__ == "__main__":
    main()
