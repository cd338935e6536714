"""Random crops and rotations: what they show, and of which distribution."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.data import warps
from kerasdl.data.pixels import warp

SCALE = (0.4, 1.0)


def resized_crop(image, u, scale=SCALE):
    return warp(image, warps.resized_crop(image.shape[1:3], u, scale), "BILINEAR", 0.0, "NEAREST")


def rotate(image, u):
    return warp(image, warps.rotate(image.shape[1:3], u), "BILINEAR", 0.0)


def test_the_whole_image_is_a_crop(rng):
    image = tf.constant(rng.uniform(size=(2, 8, 10, 3)), tf.float32)
    u = np.array([[1.0, 0.5, 0.3, 0.8]] * 2, "float32")  # all of the area at aspect 1
    np.testing.assert_allclose(resized_crop(image, u), image, atol=1e-5)


def test_a_crop_is_a_resized_box(rng):
    """A ramp shows where each output pixel's center lies."""
    height, width = 16, 24
    y, x = np.mgrid[:height, :width].astype("float32")
    image = tf.constant(np.broadcast_to(np.stack([y, x], -1), (50, height, width, 2)))
    u = rng.uniform(size=(50, 4)).astype("float32")
    cropped = resized_crop(image, u).numpy()
    area = SCALE[0] + (SCALE[1] - SCALE[0]) * u[:, 0]
    aspect = (4 / 3) ** (2 * u[:, 1] - 1)
    h, w = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
    top, left = u[:, 2] * (1 - h) * height, u[:, 3] * (1 - w) * width
    rows = (np.arange(height) + 0.5)[None] * h[:, None] + top[:, None] - 0.5
    columns = (np.arange(width) + 0.5)[None] * w[:, None] + left[:, None] - 0.5
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)  # the edge goes on
    np.testing.assert_allclose(cropped[..., 0], np.repeat(rows[:, :, None], width, 2), atol=1e-3)
    np.testing.assert_allclose(cropped[..., 1], np.repeat(columns[:, None], height, 1), atol=1e-3)


def test_the_area_of_a_crop_is_what_was_asked_for(rng):
    u = tf.constant(rng.uniform(size=(500, 4)), tf.float32)
    transforms = warps.resized_crop((20, 30), u, (0.05, 0.4)).numpy()
    area = transforms[:, 0] * transforms[:, 4]
    assert area.min() > 0.049 and area.max() < 0.401
    assert abs(area.mean() - 0.225) < 0.02


def test_rotation_about_the_center(monkeypatch, rng):
    image = tf.constant(rng.uniform(size=(3, 9, 9, 1)), tf.float32)
    u = tf.constant([[0.0], [0.5], [1.0]])
    monkeypatch.setattr(warps, "ANGLE", math.pi / 2)
    turned = rotate(image, u).numpy()
    for i, quarters in enumerate((-1, 0, 1)):
        np.testing.assert_allclose(turned[i], np.rot90(image[i], quarters), atol=1e-5)


@pytest.mark.parametrize("function", [resized_crop, rotate])
def test_an_image_is_the_same_in_any_batch(function, rng):
    image = tf.constant(rng.uniform(size=(7, 8, 8, 1)), tf.float32)
    u = tf.constant(rng.uniform(size=(7, 4)), tf.float32)
    whole = function(image, u)
    for i in range(7):
        np.testing.assert_array_equal(function(image[i : i + 1], u[i : i + 1])[0], whole[i])
