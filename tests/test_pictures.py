"""Masks and boxes on pictures."""

import numpy as np

from kerasdl.columns import VOID
from kerasdl.ops.colors import class_colors
from kerasdl.store import pictures


def test_colors_of_classes_differ():
    colors = class_colors(21)
    assert colors.shape == (21, 3) and colors.min() >= 0 and colors.max() <= 1
    near = np.abs(colors[:, None] - colors).max(-1) + np.eye(21)
    assert near.min() > 0.05


def test_a_mask_colors_its_classes_alone(rng):
    image = rng.random((2, 4, 1))
    mask = np.array([[0, 1, 2, VOID], [-1, 3, 0, 1]])
    result = pictures.overlay(image, mask, 3)
    gray = np.repeat(image, 3, -1)
    plain = (mask == 0) | (mask == VOID) | (mask == -1) | (mask == 3)  # 3 is no class of three
    np.testing.assert_allclose(result[plain], gray[plain], atol=1e-6)
    color = 0.4 * gray[0, 1] + 0.6 * class_colors(3)[1]
    np.testing.assert_allclose(result[0, 1], color, atol=1e-6)
    as_bytes = np.rint(image * 255).astype(np.uint8)
    np.testing.assert_allclose(pictures.overlay(as_bytes, mask, 3), result, atol=1 / 255)


def test_boxes_are_outlined_inside_their_pixels():
    image = np.zeros((10, 20, 3), np.float32)
    boxes = [[0.2, 0.25, 0.6, 0.75], [-1, np.nan, 2, 0.1], [0.5, 0.9, 0.4, 0.8]]
    result = pictures.rectangles(image, boxes[:1], [1], 2)
    lit = result.max(-1) > 0
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (2, 5, 5, 14)
    assert not lit[3:5, 6:14].any()
    np.testing.assert_allclose(result[2, 5], class_colors(3)[2], atol=1 / 255)
    odd = pictures.rectangles(image, boxes, [0, 1, 0], 2)
    assert odd.shape == image.shape and np.isfinite(odd).all()
    np.testing.assert_array_equal(pictures.rectangles(image, np.zeros((0, 4)), [], 2), image)
