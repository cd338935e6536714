"""The file of a classifier that MediaPipe's ImageClassifier takes.

MediaPipe 1.2 takes one subgraph, an image of 3 channels in float32 or uint8, and reads every output
as scores of classes: it refuses a label ("Expected output tensor at index 2 to have type UINT8 or
FLOAT32 or BOOL"), gray images ("Only RGB color space is supported for now") and int8 ("Type
mismatch for input tensor"). So this file has the same network between color and scores.
"""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from kerasdl.data.images import GRAY
from kerasdl.export import tflite_metadata

SCORES = "probabilities"


def classifier(content: bytes, description: dict) -> bytes | None:
    """A TFLite file of an image's probabilities alone, with its metadata; color becomes luma.

    What the other outputs alone need is left out; the constants are the same.

    Args:
        content: A file of the classifier with float inputs.
        description: As `tflite_metadata.described` takes it.

    Returns:
        The file, or None where it is no classifier of single images of 1 or 3 channels, in floats.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    if len(model.subgraphs) != 1 or len(model.signatureDefs or []) != 1:
        return None
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    spec = description["signatures"].get(signature.signatureKey.decode(), {"inputs": {}})
    kinds = [one.get("kind") for one in spec["inputs"].values()]
    scores = [t for t in signature.outputs if t.name.decode() == SCORES]
    if kinds != ["image"] or not scores or len(graph.tensors[scores[0].tensorIndex].shape) != 2:
        return None
    image = graph.tensors[graph.inputs[0]]
    if (
        len(image.shape) != 4
        or image.shape[0] != 1
        or image.shape[3] not in (1, 3)
        or image.type != schema.TensorType.FLOAT32
    ):
        return None
    signature.outputs, graph.outputs = scores, [scores[0].tensorIndex]
    needed, operators = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if needed & set(operator.outputs):
            needed |= set(operator.inputs)
            operators.insert(0, operator)
    graph.operators = operators
    if image.shape[3] == 1:
        _color(model, graph, signature)
    return tflite_metadata.described(tflite_metadata.packed(model), description)


def _color(model, graph, signature) -> None:
    """Put a convolution before the image of a model, from color to gray."""
    gray = graph.inputs[0]
    color = _tensor(model, graph, "color", [*graph.tensors[gray].shape[:3], 3])
    if graph.tensors[gray].shapeSignature is not None:  # any batch
        graph.tensors[color].shapeSignature = [*graph.tensors[gray].shapeSignature[:3], 3]
    weights = _tensor(model, graph, "luma", [1, 1, 1, 3], np.float32(GRAY))
    bias = _tensor(model, graph, "luma_bias", [1], np.float32([0]))
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    model.operatorCodes.append(code)
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideW = options.strideH = 1
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [color, weights, bias], [gray]
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    operator.builtinOptions = options
    graph.operators.insert(0, operator)
    graph.inputs = [color]
    signature.inputs[0].tensorIndex = color


def _tensor(model, graph, name, shape, values=None) -> int:
    """Index of a new float32 tensor, constant where it has values."""
    tensor, buffer = schema.TensorT(), schema.BufferT()
    if values is not None:
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, shape, schema.TensorType.FLOAT32
    tensor.buffer, tensor.hasRank = len(model.buffers) - 1, True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
