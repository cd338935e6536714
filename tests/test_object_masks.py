"""Masks of objects: pasted into the picture, and cut out of it."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.ops.colors import class_colors, tinted
from kerasdl.ops.masks import cropped, paste

SIZE = (20, 26)


def pasted(mask, box, size, aligned):
    """One mask, pixel by pixel: padded, its box enlarged and cut to whole pixels, bilinear."""
    bins = len(mask)
    mask, scale = np.pad(mask, 1), (bins + 2) / bins
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    first, end = center - half, center + half
    if not aligned:
        first, end = np.trunc(first), np.trunc(end) + 1
    (y0, x0), (h, w) = first, end - first
    result = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            if not (y0 <= y + 0.5 < end[0] and x0 <= x + 0.5 < end[1]):
                continue
            at = np.array([(y - y0 + 0.5) * (bins + 2) / h, (x - x0 + 0.5) * (bins + 2) / w]) - 0.5
            at = np.clip(at, 0, bins + 1)
            low = np.floor(at).astype(int)
            high, part = np.minimum(low + 1, bins + 1), at - low
            above = (1 - part[1]) * mask[low[0], low[1]] + part[1] * mask[low[0], high[1]]
            below = (1 - part[1]) * mask[high[0], low[1]] + part[1] * mask[high[0], high[1]]
            result[y, x] = (1 - part[0]) * above + part[0] * below
    return result


@pytest.mark.parametrize("aligned", (False, True))
@pytest.mark.parametrize("bins", (1, 4, 7))
def test_pasting_is_bilinear(rng, bins, aligned):
    masks = rng.random((3, 5, bins, bins))
    center, sides = rng.random((3, 5, 2)) * SIZE, rng.random((3, 5, 2)) * (15, 30) + 0.5
    boxes = np.concatenate([center - sides / 2, center + sides / 2], -1)  # some lie outside
    result = np.asarray(paste(masks, boxes, SIZE, aligned))
    for b in range(3):
        for m in range(5):
            expected = pasted(masks[b, m], boxes[b, m], SIZE, aligned)
            np.testing.assert_allclose(result[b, m], expected, atol=1e-9)


def test_a_box_without_an_area_has_no_pixels():
    boxes = np.array([[[0.0, 0, 0, 0], [3, 5, 3, 9]]])
    for aligned in (False, True):
        assert not np.any(paste(np.ones((1, 2, 4, 4)), boxes, SIZE, aligned))


def test_cut_out_and_pasted_again():
    """A rectangle of pixels in a box twice as large fills the middle of its crop."""
    masks = np.zeros((1, 2, *SIZE))
    masks[0, :, 6:14, 8:16] = 1
    boxes = np.array([[[2.0, 4, 18, 20], [6, 8, 14, 16]]])
    crops = np.asarray(cropped(masks, boxes, 4, aligned=True))
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = 1
    np.testing.assert_allclose(crops[0, 0], expected, atol=1e-9)
    assert crops[0, 1].min() > 0.7  # samples near the edge see pixels beyond it
    again = np.asarray(paste(cropped(masks, boxes, 16, True), boxes, SIZE, True)) > 0.5
    np.testing.assert_array_equal(again, masks > 0)
    # Torchvision's pixels lie half a pixel off
    crops = np.asarray(cropped(masks, boxes, 4))
    np.testing.assert_allclose(crops[0, 0, 1:3, 1:3], [[1, 0.875], [0.875, 0.875**2]])


def test_a_gradient_and_a_graph(rng):
    masks = tf.constant(rng.random((1, 2, 4, 4)))
    boxes = tf.constant(np.array([[[2.0, 3, 14, 17], [0, 0, 20, 26]]]))
    with tf.GradientTape() as tape:
        tape.watch(masks)
        total = tf.reduce_sum(tf.function(lambda m, b: paste(m, b, SIZE))(masks, boxes))
    assert np.all(tape.gradient(total, masks) > 0)


def test_tints_are_in_the_colors_of_the_classes():
    image = np.full((1, 4, 4, 1), 0.5, np.float32)
    masks = np.zeros((1, 3, 4, 4), np.uint8)
    masks[0, 0, :2], masks[0, 1, 1:3], masks[0, 2, 3] = 1, 1, 1
    shown = np.asarray(tinted(image, masks, np.array([[1, 0, -1]]), 2, opacity=1.0))
    first, second = class_colors(3)[1:]
    np.testing.assert_allclose(shown[0, 1], np.tile(second, (4, 1)), atol=1e-6)  # the uppermost
    np.testing.assert_allclose(shown[0, 2], np.tile(first, (4, 1)), atol=1e-6)
    np.testing.assert_allclose(shown[0, 3], 0.5)  # the third is not there
