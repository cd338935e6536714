"""Decoding and resizing, against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl.data.images import STEP, decode, resize, to_float


def encoded(array, mode=None, kind="PNG"):
    stream = io.BytesIO()
    image = Image.fromarray(array)
    image = image.convert(mode) if mode else image
    image.save(stream, kind)
    return stream.getvalue()


def color(height=7, width=5):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def luma(image):
    return np.rint(image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_color_is_exact(kind):
    image = color()
    result = decode(encoded(image, kind=kind), 3)
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, image.astype(np.float32) * STEP)
    np.testing.assert_allclose(
        decode(encoded(image, kind=kind), 1)[..., 0] * 255, luma(image), atol=1
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_gray_files(kind):
    gray = color()[..., 0]
    for channels in (1, 3):
        result = decode(encoded(gray, kind=kind), channels).numpy()
        assert result.shape == (7, 5, channels)
        for c in range(channels):
            np.testing.assert_array_equal(result[..., c], gray.astype(np.float32) * STEP)


def test_alpha_is_dropped():
    rgba = np.dstack([color(), np.arange(35, dtype=np.uint8).reshape(7, 5)])
    np.testing.assert_array_equal(decode(encoded(rgba), 3), rgba[..., :3].astype(np.float32) * STEP)
    gray_alpha = encoded(rgba, "LA")
    gray = np.asarray(Image.open(io.BytesIO(gray_alpha)))[..., 0]
    for channels in (1, 3):
        result = decode(gray_alpha, channels)
        assert result.shape == (7, 5, channels)
        np.testing.assert_array_equal(result[..., 0], gray.astype(np.float32) * STEP)


def test_palette_and_bits():
    palette = encoded(color(), "P")
    expected = np.asarray(Image.open(io.BytesIO(palette)).convert("RGB"))
    np.testing.assert_array_equal(decode(palette, 3), expected.astype(np.float32) * STEP)
    deep = np.random.default_rng(1).integers(0, 65536, (7, 5)).astype(np.uint16)
    result = decode(encoded(deep), 1).numpy()[..., 0]
    np.testing.assert_allclose(result, deep / 65535, atol=1 / 255)
    bit = np.eye(6, dtype=bool)
    np.testing.assert_array_equal(decode(encoded(bit), 1)[..., 0], np.eye(6))


def test_jpeg_is_near_pillow():
    smooth = np.dstack([np.add.outer(np.arange(40), np.arange(32)) * s for s in (1, 2, 3)])
    data = encoded(smooth.astype(np.uint8), kind="JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(decode(data, 3) * 255, expected, atol=4)
    assert decode(encoded(smooth[..., 0].astype(np.uint8), kind="JPEG"), 3).shape == (40, 32, 3)


def test_the_first_frame_of_a_moving_gif():
    frames = [Image.fromarray(np.full((4, 6), v, np.uint8)) for v in (10, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(
        decode(stream.getvalue(), 1), np.float32(10) * STEP * np.ones((4, 6, 1))
    )


@pytest.mark.parametrize("data", [b"", b"no image", encoded(color())[:60]])
def test_undecodable_bytes_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(data, 3)


def test_fit_is_the_identity_where_the_size_agrees():
    image = tf.constant(np.random.default_rng(0).random((7, 5, 3)), tf.float32)
    np.testing.assert_array_equal(resize(image, (7, 5)), image)


@pytest.mark.parametrize("size", [(14, 10), (3, 4), (28, 2)])
def test_fit_is_near_pillow_and_of_255ths(size):
    image = color(28, 20)
    result = resize(to_float(tf.constant(image)), size).numpy()
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert result.shape == (*size, 3)
    np.testing.assert_allclose(result * 255, expected, atol=2)
    np.testing.assert_array_equal(result, np.rint(result * 255).astype(np.float32) * STEP)


def test_graph_eager_and_batch_agree_bit_for_bit():
    image = color(28, 20)
    data = encoded(image)
    eager = resize(decode(data, 3), (9, 9)).numpy()
    graph = tf.function(lambda b: resize(decode(b, 3), (9, 9)))
    np.testing.assert_array_equal(graph(data), eager)
    batch = resize(to_float(tf.constant(np.stack([image] * 5))), (9, 9)).numpy()
    for one in batch:
        np.testing.assert_array_equal(one, eager)
    served = tf.function(
        lambda many: tf.map_fn(
            lambda b: resize(decode(b, 3), (9, 9)),
            many,
            fn_output_signature=tf.TensorSpec((9, 9, 3), tf.float32),
        ),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )
    np.testing.assert_array_equal(served(tf.constant([data, data]))[1], eager)
