"""TFLite Metadata in a file: what MediaPipe Tasks and Android Studio's importer read of a model.

Source: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata and, for the tables,
`metadata_schema.fbs`. Its writers cannot stand beside TensorFlow 2.21: that of `tflite-support`
needs protobuf below 4, that of `mediapipe` below 0.10.30 protobuf below 5 and NumPy below 2, and
later ones lack a module that they import.
"""

import io
import zipfile

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from kerasdl.errors import ExportError

IDENTIFIER = b"TFL3"  # of the file
ENTRY = "TFLITE_METADATA"  # name of the buffer
LABELS = "labels.txt"
ALIGNED = 16  # bytes; what the schema of TFLite asks of a constant

# Fields of the tables of metadata_schema.fbs, in its order; a union has two, the first its type.
FIELDS = {
    "ModelMetadata": "name description version subgraphs author license files min_parser_version",
    "SubGraphMetadata": "name description inputs outputs files",
    "TensorMetadata": "name description dimension_names content process_units stats files",
    "Content": "type properties range",
    "FeatureProperties": "",
    "ImageProperties": "color_space default_size",
    "ImageSize": "width height",
    "ProcessUnit": "type options",
    "NormalizationOptions": "mean std",
    "Stats": "max min",
    "AssociatedFile": "name description type",
}
FEATURE, IMAGE = np.uint8([1, 2])  # of the union ContentProperties
NORMALIZATION = np.uint8(1)  # of the union ProcessUnitOptions
COLOR_SPACES = {3: np.uint8(1), 1: np.uint8(2)}  # RGB, GRAYSCALE
AXIS_LABELS, VALUE_LABELS = np.uint8([2, 3])  # of AssociatedFileType


def described(content: bytes, description: dict) -> bytes:
    """A TFLite file with its metadata, and its labels as a ZIP archive behind it.

    Inputs and outputs are those of the first subgraph. Images take a pixel of 0..255 to [0, 1] by
    mean 0 and standard deviation 255. An output with an entry per class, on its last axis, names
    the classes; so does one whose values are classes. Scores are not calibrated.

    Args:
        content: The file; metadata that it has are replaced.
        description: `{"name": str, "description": str, "version": str, "signatures": {signature:
            {"inputs": {name: {"kind"}}, "outputs": {name: {"class_names"}}}}}`; the last as
            `kerasdl.inference.signatures.interface` gives it for "tflite".

    Returns:
        The file; of the same arguments the same bytes.

    Raises:
        ExportError: It is no TFLite file, or its first subgraph has no described signature.
    """
    if bytes(content[4:8]) != IDENTIFIER:
        raise ExportError("metadata: what shall have them is no TFLite file")
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    signature = next((s for s in model.signatureDefs or [] if s.subgraphIndex == 0), None)
    key = signature.signatureKey.decode() if signature else None
    if key not in description["signatures"]:
        raise ExportError(f"metadata: signature {key!r} of the first subgraph is not described")
    sides = description["signatures"][key]
    graph, files = model.subgraphs[0], {}
    inputs, outputs = (
        {t.tensorIndex: t.name.decode() for t in side}
        for side in (signature.inputs, signature.outputs)
    )
    names = [s["class_names"] for s in sides["outputs"].values() if s.get("class_names")]
    subgraph = {
        "name": key,
        "inputs": [
            _input(inputs[i], graph.tensors[i].shape, sides["inputs"].get(inputs[i], {}))
            for i in graph.inputs
        ],
        "outputs": [
            _output(
                outputs[i],
                graph.tensors[i].shape,
                sides["outputs"].get(outputs[i], {}),
                names,
                files,
            )
            for i in graph.outputs
        ],
    }
    metadata = {k: description[k] for k in ("name", "description", "version") if k in description}
    metadata |= {"subgraphs": [("SubGraphMetadata", subgraph)], "min_parser_version": "1.0.0"}
    _put(model, _packed(("ModelMetadata", metadata)))
    return _with_files(packed(model), files)


def packed(model) -> bytes:
    """A file of a `ModelT` of TFLite's schema, with constants aligned as the schema asks.

    Args:
        model: The object.
    """
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _input(name, shape, spec):
    """Of an input, as a table."""
    if spec.get("kind") != "image" or len(shape) != 4:
        return "TensorMetadata", {"name": name, "content": _feature()}
    height, width, channels = (np.uint32(n) for n in shape[1:])
    image = {"default_size": ("ImageSize", {"width": width, "height": height})}
    if channels in COLOR_SPACES:
        image["color_space"] = COLOR_SPACES[channels]
    normalization = "NormalizationOptions", {"mean": [0.0], "std": [255.0]}
    return "TensorMetadata", {
        "name": name,
        "description": f"{width} x {height} pixels of {channels} channels, in [0, 1]",
        "content": ("Content", {"type": IMAGE, "properties": ("ImageProperties", image)}),
        "process_units": [("ProcessUnit", {"type": NORMALIZATION, "options": normalization})],
        "stats": ("Stats", {"max": [1.0], "min": [0.0]}),
    }


def _output(name, shape, spec, names, files):
    """Of an output, as a table; adds its labels to `files`, `{file: class names}`."""
    table = {"name": name, "content": _feature()}
    labels, kind = spec.get("class_names"), VALUE_LABELS
    if not labels and len(shape) > 1:
        labels, kind = next((n for n in names if len(n) == shape[-1]), None), AXIS_LABELS
    if labels:
        file = next((f for f, one in files.items() if one == labels), None)
        if not file:
            file = f"{name}_{LABELS}" if files else LABELS
            files[file] = labels
        table["files"] = [("AssociatedFile", {"name": file, "type": kind})]
    return "TensorMetadata", table


def _feature():
    return "Content", {"type": FEATURE, "properties": ("FeatureProperties", {})}


def _packed(table) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(_offset(builder, table), b"M001")
    return bytes(builder.Output())


def _offset(builder, value):
    """Where a text, a list of numbers or tables, or a table `(name, {field: value})` now is."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list) and isinstance(value[0], float):
        return builder.CreateNumpyVector(np.float32(value))
    if isinstance(value, list):
        offsets = [_offset(builder, one) for one in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    name, table = value
    numbers = {f: v for f, v in table.items() if isinstance(v, np.unsignedinteger)}
    offsets = {f: _offset(builder, v) for f, v in table.items() if f not in numbers}
    fields = FIELDS[name].split()
    builder.StartObject(len(fields))
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(fields.index(field), offset, 0)
    for field, number in numbers.items():
        prepend = builder.PrependUint8Slot if number.itemsize == 1 else builder.PrependUint32Slot
        prepend(fields.index(field), int(number), 0)
    return builder.EndObject()


class _Builder(flatbuffers.Builder):
    """Aligns constants, as the generated code of the schema does not."""

    def CreateNumpyVector(self, x):
        if x.dtype == np.uint8:
            self.Prep(ALIGNED, x.size)  # the length stands before the aligned place
        return super().CreateNumpyVector(x)


def _put(model, metadata: bytes) -> None:
    """Add a buffer to a model, or replace the one that it has."""
    entry = next((m for m in model.metadata or [] if m.name == ENTRY.encode()), None)
    if not entry:
        entry = schema.MetadataT()
        entry.name, entry.buffer = ENTRY, len(model.buffers)
        model.metadata = [*(model.metadata or []), entry]
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(metadata, np.uint8)


def _with_files(content: bytes, files: dict) -> bytes:
    """A file, and behind it an archive of texts, a class name per line."""
    stream = io.BytesIO(content)
    stream.seek(0, io.SEEK_END)
    if files:
        with zipfile.ZipFile(stream, "a") as archive:
            for name, labels in files.items():  # of no time of day
                lines = "".join(f"{' '.join(label.split())}\n" for label in labels)
                archive.writestr(zipfile.ZipInfo(name), lines)
    return stream.getvalue()
