"""What the paper on feature pyramids promises."""

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models.detection import fpn
from kerasdl.models.detection.fpn import FeaturePyramid
from kerasdl.ops import boxes as bx
from kerasdl.ops.roi import roi_align


def convolved(x, layer):
    """`(B, h, w, C)` with zeros around, by its definition."""
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    pad, (height, width) = kernel.shape[0] // 2, x.shape[1:3]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    parts = (
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )
    return sum(parts) + bias


@pytest.mark.parametrize("sides", (((8, 12), (4, 6), (2, 3)), ((11, 7), (6, 4), (3, 2))))
def test_maps_are_enlarged_and_added(rng, sides):
    """Also where sides are odd: the nearest pixel, as torchvision takes it."""
    features = [rng.random((2, *side, 3 + i), np.float32) for i, side in enumerate(sides)]
    pyramid = FeaturePyramid(5, 3)
    maps = [np.asarray(x) for x in pyramid(features)]
    assert [m.shape for m in maps] == pyramid.compute_output_shape([x.shape for x in features])
    above = None
    for i in (2, 1, 0):
        x = convolved(features[i], pyramid.laterals[i])
        if above is not None:
            pairs = zip(x.shape[1:3], above.shape[1:3], strict=True)
            rows, columns = (np.floor(np.arange(n) * m / n).astype(int) for n, m in pairs)
            x = x + above[:, rows][:, :, columns]
        above = x
        np.testing.assert_allclose(maps[i], convolved(x, pyramid.outputs[i]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(maps[3], maps[2][:, ::2, ::2])


def test_parameters():
    pyramid = FeaturePyramid(256, 4)
    with keras.StatelessScope(initialize_variables=False):
        pyramid.build([(None, None, None, n) for n in (256, 512, 1024, 2048)])
        model = catalog.build("faster_rcnn_fpn", frozen=True)
    keras.backend.clear_session()
    assert sum(int(np.prod(w.shape)) for w in pyramid.weights) == 3_344_384
    # torchvision's fasterrcnn_resnet50_fpn, whose batch norm is not trained
    assert sum(int(np.prod(w.shape)) for w in model.trainable_variables) == 41_755_286


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return fpn.faster_rcnn_fpn(**fpn.TINY["faster_rcnn_fpn"] | {"drop_rate": 0.0})


def test_a_region_is_seen_on_the_map_of_its_size(model, rng):
    """Regions of 12 pixels and more on the second map, smaller ones on the first."""
    maps = model.maps(rng.random((1, 24, 32, 1), np.float32))
    assert [m.shape[1:3] for m in maps] == [(24, 32), (12, 16), (6, 8)]
    boxes = np.array([[[2, 3, 8, 9], [1, 2, 13, 14], [0, 0, 24, 32], [5, 5, 5, 5]]], np.float32)
    pooled = np.asarray(model.aligned(maps, boxes, 2))
    for i, level in enumerate((0, 1, 1, 0)):
        scale = 0.5**level
        alone = roi_align(maps[level], boxes[:, i : i + 1], (2, 2), scale, aligned=True)
        np.testing.assert_allclose(pooled[:, i : i + 1], alone, rtol=1e-5, atol=1e-6)


def test_each_map_has_anchors_of_its_own_size(model, rng):
    maps = model.maps(rng.random((1, 24, 32, 1), np.float32))
    anchors = model.anchors(maps)
    counts = [4 * m.shape[1] * m.shape[2] for m in maps]
    assert len(anchors) == sum(counts)
    for part, sizes in zip(np.split(anchors, np.cumsum(counts)[:2]), (6, 10, 14), strict=True):
        area = (part[0, 2] - part[0, 0]) * (part[0, 3] - part[0, 1])
        assert abs(np.sqrt(area) - sizes) < 1
        np.testing.assert_allclose(part[:4, :2] + part[:4, 2:], 0)  # at the first place's corner


def test_proposals_of_different_maps_do_not_suppress_each_other(model):
    anchors = np.array([[0, 0, 8, 8], [0, 0, 8, 8.2], [0, 0, 8, 8.1]], np.float32)
    logits = np.array([[3.0, 2.0, 1.0]], np.float32)
    codes = np.zeros((1, 3, 4), np.float32)
    one, there = model.propose(logits, codes, anchors, (24, 32))
    assert np.sum(there) == 1
    two, there = model.propose(logits, codes, anchors, (24, 32), counts=[2, 1])
    assert np.sum(there) == 2
    np.testing.assert_allclose(two[0, :2], anchors[[0, 2]], atol=1e-5)
    assert model.before == 8 and bx.area(two[0, 0]) == 64


def test_frozen_batch_norm_stays_as_it_is(rng):
    sizes = fpn.TINY["faster_rcnn_fpn"] | {"drop_rate": 0.0}
    x = rng.random((2, 24, 32, 1), np.float32)
    for frozen in (False, True):
        model = fpn.faster_rcnn_fpn(**sizes, frozen=frozen)
        before = [np.array(w) for w in model.backbone.non_trainable_variables]
        same = np.array_equal(model.maps(x, training=True)[0], model.maps(x)[0])
        after = [np.array(w) for w in model.backbone.non_trainable_variables]
        still = all(map(np.array_equal, before, after))
        assert same == still == frozen
        assert frozen != any("gamma" in w.path for w in model.trainable_variables)
