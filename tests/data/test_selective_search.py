"""Selective search: exact where there is nothing to doubt, the same every time, and of use."""

import numpy as np
import pytest

from kerasdl.data import scenes
from kerasdl.data import selective_search as search


def canonical(label):
    """Regions numbered by their first pixels."""
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return first[number.reshape(label.shape)]


def plain(image, scale, smallest):
    """Algorithm 1 of the paper on segmentation, edge by edge."""
    height, width, _ = image.shape
    a, b = search.neighbors(height, width)
    pixels = image.reshape(height * width, -1)
    weight = np.sqrt(((pixels[a] - pixels[b]) ** 2).sum(-1))
    region = np.arange(height * width)
    inside = np.zeros(len(region))  # Int(C)
    for small in (False, True):
        for e in np.argsort(weight, kind="stable"):
            x, y = region[a[e]], region[b[e]]
            if x == y:
                continue
            sizes = np.array([(region == x).sum(), (region == y).sum()])
            limits = inside[[x, y]] + scale / sizes
            if sizes.min() < smallest if small else weight[e] <= limits.min():
                region[region == y] = x
                inside[x] = weight[e]
    return region.reshape(height, width)


@pytest.mark.parametrize("scale", [20.0, 100.0])
def test_a_segmentation_is_that_of_the_paper(scale, rng):
    digits = scenes.scene(0, "validation", 3)["image"][:24, :30].astype(float)
    noise = 255 * rng.random((14, 17, 3))
    for image, k in ((digits, scale), (noise, 5 * scale), (np.round(noise / 64), scale / 50)):
        for smallest in (1, 6):
            result = search.segment(image, k, smallest)
            np.testing.assert_array_equal(canonical(result), canonical(plain(image, k, smallest)))
            assert set(result.ravel()) == set(range(result.max() + 1))


def test_squares_have_exact_boxes():
    image = np.zeros((40, 56, 3), np.uint8)
    image[5:20, 8:30], image[25:38, 40:52] = (200, 0, 0), (0, 90, 255)
    result = search.proposals(image, 9) * [40, 56, 40, 56]
    expected = [[0, 0, 40, 56], [5, 8, 20, 30], [25, 40, 38, 52]]
    assert np.round(result, 4).tolist()[0] == expected[0]
    for box in expected:
        assert (np.abs(result - box).max(-1) < 1e-4).sum() == 1
    gray = search.proposals(image[..., :1], 2) * [40, 56, 40, 56]
    np.testing.assert_allclose(gray, expected[:2], atol=1e-4)


def test_a_constant_image_is_one_box():
    result = search.proposals(np.full((9, 12, 1), 0.3), 3)
    np.testing.assert_array_equal(result, [[0, 0, 1, 1], [0] * 4, [0] * 4])


def test_the_same_image_has_the_same_proposals():
    image = scenes.scene(1, "validation", 0, colors=6)["image"]
    once, again, floats = (search.proposals(x, 50) for x in (image, image, image / 255))
    np.testing.assert_array_equal(once, again)
    np.testing.assert_allclose(once, floats)
    np.testing.assert_array_equal(search.proposals(image, 20), once[:20])
    there = once[once.any(-1)]
    assert len(np.unique(there, axis=0)) == len(there) > 20
    assert (there[:, 2:] > there[:, :2]).all() and there.min() >= 0 and there.max() <= 1
    np.testing.assert_array_equal(search.of_images(np.stack([image, image]), 50)[1], once)


def test_digits_are_among_the_proposals():
    overlaps = []
    for index in range(20):
        scene = scenes.scene(0, "validation", index)
        boxes, found = scene["boxes"][scene["valid"], None], search.proposals(scene["image"], 100)
        low, high = np.maximum(boxes, found)[..., :2], np.minimum(boxes, found)[..., 2:]
        shared = np.maximum(high - low, 0).prod(-1)
        areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (boxes, found)]
        overlaps += (shared / (areas[0] + areas[1] - shared)).max(-1).tolist()
    assert np.mean(np.array(overlaps) >= 0.5) >= 0.95


def test_a_large_image_is_blurred(rng, monkeypatch):
    image = np.full((130, 140, 1), 60.0)
    image[40:90, 30:100] = 180
    noisy = image + rng.normal(0, 6, image.shape)
    with_blur = search.segment(noisy, 100.0, 50)
    boxes = search.proposals(np.clip(noisy, 0, 255).astype(np.uint8), 50) * [130, 140, 130, 140]
    assert np.abs(boxes - [40, 30, 90, 100]).max(-1).min() <= 2
    monkeypatch.setattr(search, "BLURRED", 1000)
    assert (search.segment(noisy, 100.0, 50) != with_blur).any()
    np.testing.assert_array_equal(search.segment(search.blurred(noisy), 100.0, 50), with_blur)


def test_colors():
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90], [0, 0, 0]]], float)
    expected = [[0, 255, 255], [85, 255, 255], [170, 255, 255], [0, 0, 90], [0, 0, 0]]
    np.testing.assert_allclose(search.hsv(colors)[0], expected)
    result = search.lab(colors)[0] / [2.55, 1, 1] - [0, 128, 128]
    expected = [[53.24, 80.09, 67.2], [87.73, -86.18, 83.18], [32.3, 79.19, -107.86]]
    np.testing.assert_allclose(result[:3], expected, atol=0.1)
    assert np.abs(result[3:, 1:]).max() < 0.1 and abs(result[4, 0]) < 0.1
