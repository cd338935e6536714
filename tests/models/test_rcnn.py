"""What the R-CNN paper promises."""

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.detection import rcnn
from kerasdl.ops.roi import warp


def test_alexnet_on_warped_regions():
    with keras.StatelessScope():
        model = rcnn.rcnn()
    assert model.backbone.image_shape == (227, 227, 3) and model.context == 16
    assert model.dense[0].kernel.shape == (9216, 4096)  # 6x6x256
    assert model.classes.units == 21 and model.fraction == 0.25


def bilinear(image, y, x):
    """The value at a place whose pixels' centers are whole numbers; 0 outside."""
    result, (y0, x0) = 0.0, (int(np.floor(y)), int(np.floor(x)))
    for i in (y0, y0 + 1):
        for j in (x0, x0 + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                result = result + (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return result


@pytest.mark.parametrize("context", [0, 2])
def test_warping_is_a_plain_loop(context, rng):
    images = rng.random((2, 9, 12, 3)).astype("float32")
    boxes = np.array(
        [[[1, 2, 7, 4], [0, 0, 9, 12], [3, 3, 3, 3]], [[2.5, 1.25, 8, 11], [-2, 5, 3, 14], [0] * 4]]
    ).astype("float32")
    result = np.asarray(warp(images, boxes, (7, 6), context))
    assert result.shape == (2, 3, 7, 6, 3)
    for b in range(2):
        for r, (ymin, xmin, ymax, xmax) in enumerate(boxes[b]):
            sy, sx = (ymax - ymin) / (7 - 2 * context), (xmax - xmin) / (6 - 2 * context)
            for i in range(7):
                for j in range(6):
                    y = ymin + (i + 0.5 - context) * sy - 0.5
                    x = xmin + (j + 0.5 - context) * sx - 0.5
                    expected = bilinear(images[b], y, x)
                    np.testing.assert_allclose(result[b, r, i, j], expected, atol=1e-5)


def test_whole_pixels_are_kept(rng):
    image = rng.random((1, 8, 9, 2)).astype("float32")
    result = np.asarray(warp(image, np.array([[[2, 1, 6, 7]]], "float32"), (4, 6)))[0, 0]
    np.testing.assert_array_equal(result, image[0, 2:6, 1:7])
    around = np.asarray(warp(image, np.array([[[2, 1, 6, 7]]], "float32"), (6, 8), 1))[0, 0]
    np.testing.assert_allclose(around, image[0, 1:7, 0:8], atol=1e-6)


def test_many_regions_are_as_many_at_a_time_as_memory_holds(rng, monkeypatch):
    model = rcnn.rcnn(**rcnn.TINY["rcnn"])
    maps = rng.random((2, 16, 24, 3)).astype("float32")
    boxes = np.sort(rng.random((2, 7, 2, 2)), -2).reshape(2, 7, 4).astype("float32")
    boxes *= np.array([16, 24, 16, 24], "float32")
    whole = np.asarray(model.pooled(maps, boxes))
    monkeypatch.setattr(rcnn, "CHUNK", 3)
    np.testing.assert_allclose(model.pooled(maps, boxes), whole, rtol=1e-5, atol=1e-6)


def test_what_is_around_is_as_the_mean(rng):
    """A region that leaves the image is filled up with the mean of the data."""
    small = {**rcnn.TINY["rcnn"], "input_mean": 0.4, "input_std": 0.5}
    model = rcnn.rcnn(**small)
    constant = np.full((1, 16, 24, 3), 0.4, "float32")
    inner, whole = np.array([[[4, 6, 12, 18], [0, 0, 16, 24]]], "float32")[:, :, None][0]
    answers = [np.asarray(model.pooled(model.maps(constant), b[None])) for b in (inner, whole)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_context_must_leave_something():
    with pytest.raises(UserError, match="context 8: must be from 0 on and below half of crop 15"):
        rcnn.rcnn(**{**rcnn.TINY["rcnn"], "context": 8})
