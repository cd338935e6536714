"""Boxes, suppression and regions, against torchvision's answers and against loops."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.ops import boxes as bx
from kerasdl.ops import nms as suppression
from kerasdl.ops import roi

GOLDEN = Path(__file__).parent / "goldens" / "detection_pieces.npz"
SCALE, BINS = 0.25, (4, 5)  # of the golden regions


@pytest.fixture(scope="module")
def golden():
    """Inputs and outputs, boxes `ymin xmin ymax xmax`, maps with the channels last."""
    with np.load(GOLDEN) as file:
        values = {k: v for k, v in file.items() if k != "config"}
        assert json.loads(str(file["config"]))["library"] == "torchvision"
    swapped = {}
    for name, value in values.items():
        if value.ndim == 2 and value.shape[-1] % 4 == 0 and not name.endswith("iou"):
            value = turned(value)
        if value.ndim == 4:
            value = np.moveaxis(value, 1, -1)
        swapped[name] = value
    return swapped


def turned(boxes):
    """Boxes, codes or several of them in a row with x and y in the other order."""
    return boxes.reshape(*boxes.shape[:-1], -1, 2)[..., ::-1].reshape(boxes.shape)


def regions(golden):
    """Number of the image, and boxes `(8, 4)`."""
    rois = golden["inputs/rois"]
    return rois[:, 0].astype(int), turned(rois[:, 1:])


def of_its_image(function, golden):
    """What `function(maps, boxes (2, 8, 4))` says of each region on its own image."""
    image, boxes = regions(golden)
    result = np.asarray(function(golden["inputs/maps"], np.stack([boxes, boxes])))
    return result[image, np.arange(len(image))]


# -- overlap, codes, anchors, matching ----------------------------------------------------------


def test_overlap_of_torchvision(golden):
    a, b = golden["inputs/boxes"], golden["inputs/other_boxes"]
    for function, name in ((bx.iou, "box_iou"), (bx.giou, "generalized_box_iou")):
        ours = bx.pairwise(function, a, b)
        np.testing.assert_allclose(ours, golden[f"outputs/{name}"], atol=1e-6)
    loss = 1 - np.asarray(bx.giou(a[:9], b))
    np.testing.assert_allclose(loss, golden["outputs/giou_loss"], atol=1e-6)


def test_known_overlaps():
    a = np.array([[0, 0, 2, 2.0], [0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]])
    b = np.array([[1, 1, 3, 3.0], [0, 0, 2, 2], [0, 1, 1, 2], [0, 2, 1, 3]])
    np.testing.assert_allclose(bx.iou(a, b), [1 / 7, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(bx.giou(a, b), [1 / 7 - 2 / 9, 1, 0, -1 / 3], atol=1e-12)
    point = np.full((1, 4), 0.5)
    assert np.isfinite(bx.giou(point, point)).all() and not np.asarray(bx.iou(point, point)).any()


def test_overlap_has_gradients_in_float64():
    a, b = (tf.constant([v], tf.float64) for v in ((0.1, 0.1, 0.6, 0.7), (0.3, 0.2, 0.9, 0.8)))
    for function in (bx.iou, bx.giou):
        theory, numeric = tf.test.compute_gradient(lambda x, f=function: f(x, b), [a])
        np.testing.assert_allclose(theory[0], numeric[0], atol=1e-6)
        assert np.abs(theory[0]).max() > 0.1


def test_clip_and_large_of_torchvision(golden):
    boxes = golden["inputs/boxes"]
    np.testing.assert_array_equal(bx.clip(boxes, (30, 40)), golden["outputs/clip_boxes_40x30"])
    kept = np.flatnonzero(bx.large(boxes, 12))
    np.testing.assert_array_equal(kept, golden["outputs/remove_small_12"])


def test_codes_of_torchvision(golden):
    boxes, others = golden["inputs/boxes"][:9], golden["inputs/other_boxes"]
    weights, deltas = (10.0, 10.0, 5.0, 5.0), golden["inputs/deltas"]
    ours = bx.encode(others, boxes, weights)
    np.testing.assert_allclose(ours, golden["outputs/box_coder/encode"], atol=1e-4)
    np.testing.assert_allclose(bx.decode(ours, boxes, weights), others, atol=1e-4)
    for name, given, times in (("decode", weights, 1), ("decode_weights1", (1.0,) * 4, 2)):
        result = bx.decode(times * deltas.reshape(9, 2, 4), boxes[:, None], given)
        expected = golden[f"outputs/box_coder/{name}"].reshape(9, 2, 4)
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_a_known_code():
    anchor = np.array([[0.0, 0.0, 20.0, 20.0]])  # center (10, 10)
    box = np.array([[3.0, -8.0, 13.0, 32.0]])  # center y 8, x 12; 10 high, 40 wide
    code = np.asarray(bx.encode(box, anchor))
    np.testing.assert_allclose(code, [[-0.1, 0.1, -math.log(2), math.log(2)]], atol=1e-12)
    np.testing.assert_allclose(bx.decode(code, anchor), box, atol=1e-12)


def test_anchors_of_torchvision(golden):
    cells = [((8, 16), (0.5, 1, 2)), ((24,), (0.7, 1.5))]
    maps, made = [((12, 15), 4), ((6, 8), (8, 7))], []
    for i, ((sizes, ratios), (shape, stride)) in enumerate(zip(cells, maps, strict=True)):
        cell = bx.cell_anchors(sizes, ratios, rounded=True)
        np.testing.assert_array_equal(cell, golden[f"outputs/anchors_of_cell{i}"])
        made.append(bx.anchors(cell, shape, stride))
    np.testing.assert_array_equal(np.concatenate(made), golden["outputs/anchors"])


def test_count_of_anchors():
    cell = bx.cell_anchors((128, 256, 512), (0.5, 1, 2))
    assert bx.anchors(cell, (40, 60), 16).shape == (21_600, 4)
    center = bx.anchors(cell, (2, 3), 16, offset=0.5)[:9].mean(0)
    np.testing.assert_allclose((center[:2] + center[2:]) / 2, [8, 8])


def test_matching_of_torchvision(golden):
    overlap = golden["outputs/box_iou"][None]
    valid = np.ones((1, 9), bool)
    for name, settings in (
        ("0.5_0.3_low_quality", (0.5, 0.3, True)),
        ("0.5_0.5", (0.5, 0.5, False)),
    ):
        ours = bx.match(overlap, valid, *settings)
        np.testing.assert_array_equal(ours[0], golden[f"outputs/matcher_{name}"])


def test_objects_that_are_not_there_match_nothing():
    overlap = np.array([[[0.9, 0.8], [0.2, 0.5], [0.0, 0.1]]])
    match = np.asarray(bx.match(overlap, np.array([[False, True]])))
    np.testing.assert_array_equal(match, [[1, bx.BETWEEN, bx.BELOW]])
    none = np.asarray(bx.match(overlap, np.zeros((1, 2), bool)))
    np.testing.assert_array_equal(none, np.full((1, 3), bx.BELOW))
    # An object that nothing touches takes no box either.
    assert (np.asarray(bx.match(0 * overlap, np.ones((1, 2), bool))) == bx.BELOW).all()


# -- suppression --------------------------------------------------------------------------------


def kept(boxes, scores, threshold, count, labels=None):
    labels = None if labels is None else np.asarray(labels, np.int32)[None]
    index = np.asarray(suppression.nms(boxes[None], scores[None], threshold, count, labels))[0]
    assert (np.diff(index < 0) >= 0).all()  # what is absent stands last
    return index[index >= 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression_of_torchvision(golden, threshold):
    boxes, scores = golden["inputs/boxes"], golden["inputs/scores"]
    labels = golden["inputs/labels"]
    for name, of in (("nms", None), ("batched_nms", labels)):
        expected = golden[f"outputs/{name}/iou{threshold}"]
        np.testing.assert_array_equal(kept(boxes, scores, threshold, 40, of), expected)
        np.testing.assert_array_equal(kept(boxes, scores, threshold, 5, of), expected[:5])


def test_known_suppression():
    boxes = np.array([(0, 0, 10, 10), (1, 1, 11, 11), (20, 20, 30, 30), (0, 0, 10, 9)], float)
    scores = np.array([0.9, 0.8, 0.7, 0.95])
    assert kept(boxes, scores, 0.5, 4).tolist() == [3, 2]
    assert kept(boxes, scores, 0.7, 4).tolist() == [3, 1, 2]


def greedy(boxes, scores, threshold, labels):
    """Box by box, in float64."""
    result = []
    for i in np.argsort(-scores, kind="stable"):
        same = [j for j in result if labels[j] == labels[i]]
        overlap = np.asarray(bx.pairwise(bx.iou, boxes[i : i + 1], boxes[same]))
        if scores[i] > -np.inf and not (overlap > threshold).any():
            result.append(int(i))
    return result


def test_suppression_in_a_loop(rng, monkeypatch):
    """Above `UNROLLED` steps; also where all is absent, and in a compiled function."""
    monkeypatch.setattr(suppression, "UNROLLED", 3)
    center, sides = rng.random((2, 30, 2)), 0.1 + 0.4 * rng.random((2, 30, 2))
    boxes = np.concatenate([center - sides / 2, center + sides / 2], -1)
    scores, labels = rng.random((2, 30)), rng.integers(0, 3, (2, 30)).astype(np.int32)
    scores[:, 20:] = -np.inf
    run = tf.function(
        lambda b, s, k: suppression.nms(b, s, 0.3, 25, k), jit_compile=True, autograph=False
    )
    found = np.asarray(run(boxes, scores, labels))
    for index, *one in zip(found, boxes, scores, labels, strict=True):
        assert index[index >= 0].tolist() == greedy(one[0], one[1], 0.3, one[2])
    assert (np.asarray(run(boxes, np.full_like(scores, -np.inf), labels)) == -1).all()


def test_detections_of_all_and_of_no_objects():
    boxes = np.array([[(0, 0, 0.5, 0.5), (0, 0, 0.5, 0.4), (0.5, 0.5, 1, 1)]], np.float32)
    scores = np.array([[(0.9, 0.1), (0.8, 0.6), (0.02, 0.3)]], np.float32)
    result = {k: np.asarray(v) for k, v in suppression.detections(boxes, scores, 4).items()}
    # Box 1 goes for class 0, covered by box 0; its class 1 stays, and covers that of box 0.
    assert result["label"].tolist() == [[0, 1, 1, -1]] and result["num"].tolist() == [3]
    np.testing.assert_allclose(result["scores"], [[0.9, 0.6, 0.3, 0]])
    np.testing.assert_array_equal(result["boxes"][0], [*boxes[0], [0] * 4])
    own = np.stack([boxes, boxes + 1], 2)  # each class has its own boxes
    moved = np.asarray(suppression.detections(own, scores, 2)["boxes"])
    np.testing.assert_array_equal(moved[0], [boxes[0, 0], boxes[0, 1] + 1])
    none = suppression.detections(boxes, 0 * scores, 4)
    assert int(none["num"][0]) == 0 and (np.asarray(none["label"]) == -1).all()
    assert not np.asarray(none["scores"]).any() and not np.asarray(none["boxes"]).any()


# -- regions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [None, 1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_align_of_torchvision(golden, sampling, aligned):
    ours = of_its_image(
        lambda maps, boxes: roi.roi_align(maps, boxes, BINS, SCALE, sampling, aligned), golden
    )
    name = f"roi_align/aligned{int(aligned)}_sampling{sampling or -1}"
    np.testing.assert_allclose(ours, golden[f"outputs/{name}"], atol=1e-5)


def test_pool_of_torchvision(golden):
    ours = of_its_image(lambda maps, boxes: roi.roi_pool(maps, boxes, BINS, SCALE), golden)
    np.testing.assert_array_equal(ours, golden["outputs/roi_pool"])


def test_levels_of_torchvision(golden):
    _, boxes = regions(golden)
    levels = [golden["inputs/maps"], golden["inputs/second_maps"]]
    ours = roi.multiscale_roi_align(
        levels, np.stack([boxes, boxes]), (3, 4), (0.25, 0.125), (32.0, 3)
    )
    expected = golden["outputs/multiscale_roi_align"]
    image, rows = regions(golden)[0], np.arange(8)
    order = np.argsort(image, kind="stable")
    np.testing.assert_allclose(np.asarray(ours)[image, rows][order], expected, atol=1e-5)


def test_regions_of_a_ramp():
    ramp = np.broadcast_to(np.arange(16.0)[:, None], (1, 16, 16, 1))  # f(y, x) = x
    box = np.array([[[2.0, 2.0, 10.0, 10.0]]])
    for aligned, expected in ((True, [3.5, 7.5]), (False, [4, 8])):
        result = np.asarray(roi.roi_align(ramp, box, (2, 2), aligned=aligned))[0, 0, :, :, 0]
        np.testing.assert_allclose(result, [expected, expected], atol=1e-9)
    result = np.asarray(roi.roi_pool(ramp, box, (2, 2)))[0, 0, :, :, 0]
    np.testing.assert_array_equal(result, [[6, 10], [6, 10]])
    constant = np.full((1, 16, 16, 1), 3.0)
    for function in (roi.roi_align, roi.roi_pool):
        np.testing.assert_allclose(function(constant, box, (3, 2)), 3.0, atol=1e-12)


def test_regions_have_gradients(rng):
    maps = tf.constant(rng.permutation(5 * 6 * 2).reshape(1, 5, 6, 2), tf.float64)
    boxes = np.array([[[0.5, 1, 4, 4.5], [1, 0, 7, 3]]])
    for function in (roi.roi_align, roi.roi_pool):
        run = tf.function(lambda x, f=function: f(x, boxes, (2, 3)))
        theory, numeric = tf.test.compute_gradient(run, [maps])
        np.testing.assert_allclose(theory[0], numeric[0], atol=1e-5)


# -- everywhere ---------------------------------------------------------------------------------


def pieces(maps, boxes, scores):
    """All that a detector serves, of `(B, 6, 7, 2)`, `(B, 5, 4)` and `(B, 5, 3)`."""
    found = suppression.detections(boxes, scores, 4, 0.4)
    return {
        **found,
        "align": roi.roi_align(maps, boxes, (2, 3), scale=6.0),
        "align_of_any_sampling": roi.roi_align(maps, boxes, (2, 3), (6.0, 7.0), None, False),
        "pool": roi.roi_pool(maps, boxes, (2, 2), scale=6.0),
        "levels": roi.multiscale_roi_align([maps, maps[:, ::2, ::2]], boxes, (2, 2), (1.0, 0.5)),
        "decoded": bx.clip(bx.decode(bx.encode(boxes, boxes * 0.5 + 0.1), boxes)),
    }


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    low, sides = 0.6 * rng.random((3, 5, 2)), 0.2 + 0.3 * rng.random((3, 5, 2))
    boxes = np.concatenate([low, low + sides], -1)
    arrays = (rng.random((3, 6, 7, 2)), boxes, rng.random((3, 5, 3)))
    return tuple(a.astype(np.float32) for a in arrays)


def test_compiled_pieces_are_the_same(given):
    compiled = tf.function(pieces, jit_compile=True, autograph=False)
    for name, value in pieces(*given).items():
        np.testing.assert_allclose(compiled(*given)[name], value, atol=1e-5, err_msg=name)
        wide = pieces(*(x.astype(np.float64) for x in given))[name]
        if "float" in ops.dtype(wide):
            assert ops.dtype(wide) == "float64", name
        np.testing.assert_allclose(wide, value, atol=1e-5, err_msg=name)


def test_pieces_convert_to_builtins(given, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    names = ("maps", "boxes", "scores")
    specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in given]
    module = tf.Module()
    module.run = tf.function(pieces, input_signature=specs, autograph=False)
    signature = module.run.get_concrete_function()
    tf.saved_model.save(module, str(tmp_path), {"serving_default": signature})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    runner = Interpreter(model_content=converter.convert()).get_signature_runner()
    for size in (1, 3):  # any batch
        inputs = [x[:size] for x in given]
        found = runner(**dict(zip(names, inputs, strict=True)))
        for name, value in pieces(*inputs).items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
