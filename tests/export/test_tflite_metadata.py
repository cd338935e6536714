"""Files with TFLite Metadata: what tools read of them, and that they answer as before."""

import ctypes.util
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import number_types
from flatbuffers.table import Table
from tensorflow.lite.tools import flatbuffer_utils

from kerasdl.errors import ExportError
from kerasdl.export import mediapipe
from kerasdl.export.tflite_metadata import described, packed

NAMES = [*"abc", "and so on\n", ""]


def description(names=None, **outputs):
    outputs = {"label": {"kind": "label", "class_names": NAMES}} if names is None else outputs
    sides = {"inputs": {"image": {"kind": "image"}}, "outputs": outputs}
    return {
        "name": "net",
        "description": "A net of letters",
        "version": "3",
        "signatures": {"serving_default": sides},
    }


@pytest.fixture(scope="module", params=[1, 3, 4])
def file(request, tmp_path_factory):
    """A classifier of images of 1, 3 or 4 channels."""
    channels = request.param
    rng = np.random.default_rng(channels)
    module = tf.Module()
    module.kernel = tf.Variable(rng.normal(size=(3, 3, channels, 5)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 6, 4, channels), tf.float32, name="image")])
    def serve(image):
        logits = tf.reduce_mean(tf.nn.conv2d(image, module.kernel, 1, "SAME"), axis=(1, 2))
        return {
            "label": tf.argmax(logits, -1),
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
        }

    folder = str(tmp_path_factory.mktemp("net"))
    tf.saved_model.save(module, folder, {"serving_default": serve})
    return bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def answers(content, image):
    return Interpreter(model_content=content).get_signature_runner()(image=image)


def shape_of(content):
    interpreter = Interpreter(model_content=content)
    return interpreter.get_input_details()[0]["shape"]


class Reader:
    """A table of a flatbuffer, read by the places of its fields."""

    def __init__(self, buffer, place):
        self.table = Table(buffer, place)

    def _at(self, slot):
        offset = self.table.Offset(4 + 2 * slot)
        return self.table.Pos + offset if offset else None

    def text(self, slot):
        return self.table.String(self._at(slot)).decode()

    def number(self, slot, flags=number_types.Uint8Flags):
        return self.table.Get(flags, self._at(slot)) if self._at(slot) else 0

    def one(self, slot):
        return Reader(self.table.Bytes, self.table.Indirect(self._at(slot)))

    def floats(self, slot):
        flags = number_types.Float32Flags
        return self.table.GetVectorAsNumpy(flags, self.table.Offset(4 + 2 * slot)).tolist()

    def all(self, slot):
        offset = self.table.Offset(4 + 2 * slot)
        count = self.table.VectorLen(offset) if offset else 0
        start = self.table.Vector(offset) if count else 0
        places = (self.table.Indirect(start + 4 * i) for i in range(count))
        return [Reader(self.table.Bytes, place) for place in places]


def metadata_of(content):
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    assert [m.name for m in model.metadata][:1] == [b"min_runtime_version"]
    buffer = bytearray(model.buffers[entry.buffer].data.tobytes())
    assert flatbuffers.util.BufferHasIdentifier(buffer, 0, b"M001")
    return Reader(buffer, flatbuffers.packer.uoffset.unpack_from(buffer, 0)[0])


def test_the_file_answers_as_before(file, rng):
    image = rng.random(shape_of(file), np.float32)
    content = described(file, description())
    assert content == described(file, description()) == described(content, description())
    expected, result = answers(file, image), answers(content, image)
    assert expected.keys() == result.keys()
    assert all(np.array_equal(expected[name], result[name]) for name in expected)


def test_constants_are_aligned(file):
    content = bytearray(described(file, description()))
    start = np.frombuffer(content, np.uint8).ctypes.data
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    places = [b.data.ctypes.data - start for b in model.buffers if b.data is not None]
    assert len(places) > 2 and not any(place % 16 for place in places)


def test_labels_are_an_archive(file):
    content = described(file, description())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt"] and archive.testzip() is None
        assert archive.read("labels.txt") == b"a\nb\nc\nand so on\n\n"
        (info,) = archive.infolist()
    assert info.date_time[0] == 1980 and info.compress_type == zipfile.ZIP_STORED


def test_metadata_read_back(file):
    root = metadata_of(described(file, description()))
    assert [root.text(i) for i in (0, 1, 2, 7)] == ["net", "A net of letters", "3", "1.0.0"]
    (graph,) = root.all(3)
    ((image,), outputs) = graph.all(2), graph.all(3)
    content, (unit,) = image.one(3), image.all(4)
    size = content.one(1).one(1)
    channels = shape_of(file)[3]
    assert image.text(0) == "image" and content.number(0) == 2
    assert content.one(1).number(0) == {3: 1, 1: 2}.get(channels, 0)
    assert [size.number(i, number_types.Uint32Flags) for i in (0, 1)] == [4, 6]
    assert unit.number(0) == 1 and [unit.one(1).floats(i) for i in (0, 1)] == [[0], [255]]
    assert [image.one(5).floats(i) for i in (0, 1)] == [[1], [0]]
    files = {o.text(0): [(f.text(0), f.number(2)) for f in o.all(6)] for o in outputs}
    axis, value = [("labels.txt", 2)], [("labels.txt", 3)]
    assert files == {"label": value, "logits": axis, "probabilities": axis}
    assert not any(o.all(4) for o in outputs)  # scores are not calibrated


def test_outputs_are_described_in_the_order_of_the_file(file):
    content = described(file, description())
    names = [one.text(0) for one in metadata_of(content).all(3)[0].all(3)]
    interpreter = Interpreter(model_content=content)
    (signature,) = interpreter._get_full_signature_list().values()
    places = [one["index"] for one in interpreter.get_output_details()]
    assert names == [{i: n for n, i in signature["outputs"].items()}[i] for i in places]


@pytest.mark.parametrize("outputs", [{}, {"label": {"kind": "label", "class_names": []}}])
def test_a_model_without_names_has_no_archive(file, outputs):
    content = described(file, description(names=(), **outputs))
    assert not zipfile.is_zipfile(io.BytesIO(content))
    assert not any(o.all(6) for o in metadata_of(content).all(3)[0].all(3))


def test_two_lists_of_names_are_two_files(file):
    others = {"kind": "label", "class_names": ["x", "y"]}
    outputs = {"label": {"kind": "label", "class_names": NAMES}, "logits": others}
    content = described(file, description(names=(), **outputs))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        texts = {name: archive.read(name).decode().split("\n")[0] for name in archive.namelist()}
    assert sorted(texts.values()) == ["a", "x"] and "labels.txt" in texts


@pytest.mark.parametrize("content", [b"", b"no file at all, but a long enough text"])
def test_what_is_no_file(content):
    with pytest.raises(ExportError, match="no TFLite file$"):
        described(content, description())


def test_a_signature_that_is_not_described(file):
    with pytest.raises(ExportError, match="'serving_default' of the first"):
        described(file, {"name": "net", "signatures": {}})


def test_the_classifier_of_mediapipe_has_color_and_scores_alone(file, rng):
    *batch, channels = shape_of(file)
    content = mediapipe.classifier(file, description())
    if channels == 4:
        assert content is None
        return
    assert content == mediapipe.classifier(file, description())
    image = rng.random((*batch, 3), np.float32)
    own = image if channels == 3 else image @ np.float32([[0.299], [0.587], [0.114]])
    result = answers(content, image)
    assert list(result) == ["probabilities"]
    expected = answers(file, own.astype(np.float32))["probabilities"]
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    codes = [model.operatorCodes[o.opcodeIndex].builtinCode for o in model.subgraphs[0].operators]
    assert 56 not in codes  # ARG_MAX, of the label
    assert metadata_of(content).all(3)[0].all(2)[0].one(3).one(1).number(0) == 1  # RGB


@pytest.mark.parametrize(
    "kind, output", [("tokens", "probabilities"), ("image", "scores"), (None, "probabilities")]
)
def test_no_classifier_of_mediapipe(file, kind, output, monkeypatch):
    monkeypatch.setattr(mediapipe, "SCORES", output)
    other = description()
    other["signatures"]["serving_default"]["inputs"]["image"]["kind"] = kind
    assert mediapipe.classifier(file, other) is None


@pytest.mark.parametrize("field, value", [("shape", [2, 6, 4, 3]), ("type", 9)])
def test_no_classifier_of_several_images_or_of_integers(file, field, value):
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(file))
    setattr(model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]], field, value)
    assert mediapipe.classifier(packed(model), description()) is None


MISSING = "MediaPipe is missing: apt-get install libegl1 libgles2 && pip install mediapipe"
CONNECTED = 77  # exit status
# Classifies pictures by files, and reads their metadata by the schema's own code. MediaPipe reports
# to its makers how it is used; so this process has no network.
CLASSIFY = """
import ctypes, json, sys
if ctypes.CDLL(None).unshare(0x50000000):  # new spaces of users and of networks
    sys.exit(77)
import numpy as np
import mediapipe as mp
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.metadata import schema_py_generated as tflite
from mediapipe.tasks.python import BaseOptions, vision

def classify(path, pictures):
    content = open(path, "rb").read()
    model = tflite.ModelT.InitFromObj(tflite.Model.GetRootAsModel(content, 0))
    entry = next(m for m in model.metadata if m.name == b"TFLITE_METADATA")
    buffer = model.buffers[entry.buffer].data.tobytes()
    metadata = schema.ModelMetadata.GetRootAsModelMetadata(buffer, 0)
    graph = metadata.SubgraphMetadata(0)
    read = [metadata.Name().decode(), graph.InputTensorMetadata(0).Name().decode()]
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=path), max_results=-1)
    answers = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for picture in pictures:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            (head,) = classifier.classify(image).classifications
            answers.append({c.category_name: c.score for c in head.categories})
    return {"read": read, "head": head.head_name, "answers": answers}

pictures = np.load(sys.argv[1])
print("\\n" + json.dumps([classify(path, pictures) for path in sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_mediapipe_classifies_as_the_file_does(channels, tmp_path):
    """Ten pictures, in a process of its own."""
    from kerasdl.export import tflite
    from kerasdl.inference.signatures import interface
    from tests.export.examples import make_parts, quiet

    there = importlib.util.find_spec("mediapipe")
    if not (there and all(map(ctypes.util.find_library, ("EGL", "GLESv2")))):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    parts = make_parts(epochs=channels == 1, image_shape=(8, 8, channels), depths=(1, 1, 1))
    folder = tmp_path / "tflite"
    tflite.write(parts.task, parts.model, parts.train, folder, quiet, quantized=("int8",))
    signatures = interface(parts.task, parts.model)["tflite"]
    facts = {"name": "resnet20", "description": "of digits", "signatures": signatures}
    pixels = np.round(255 * parts.test["image"][:10]).astype(np.uint8)
    np.save(tmp_path / "pictures.npy", np.repeat(pixels, 3, -1) if channels == 1 else pixels)
    contents = [(folder / f"{kind}.tflite").read_bytes() for kind in ("float32", "int8")]
    paths = [tmp_path / name for name in ("float32.tflite", "int8.tflite")]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(mediapipe.classifier(content, facts))
    command = [sys.executable, "-c", CLASSIFY, tmp_path / "pictures.npy", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == CONNECTED:
        pytest.skip("MediaPipe reports to its makers, and its network cannot be cut off here")
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    # A score of 8 bits is a multiple of 1/256
    for result, content, step in zip(results, contents, (1e-4, 2 / 256), strict=True):
        assert result["head"] == "probabilities" and result["read"] == ["resnet20", "image"]
        for answer, one in zip(result["answers"], pixels, strict=True):
            ours = answers(content, (one / 255).astype(np.float32)[None])
            assert next(iter(answer)) == str(ours["label"][0])
            given = [answer[str(k)] for k in range(10)]
            np.testing.assert_allclose(given, ours["probabilities"][0], atol=step)
