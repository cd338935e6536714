"""Averages over crops and mirror images, of a model and of an exported file."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.data import tta
from kerasdl.recipe import Recipe


@pytest.fixture
def image(rng):
    return rng.random((3, 16, 24, 2)).astype("float32")


class Model:
    """Logits of four parts of the picture."""

    name = "parts"

    def __call__(self, image, training=False):
        rows = tf.stack(tf.split(tf.reduce_mean(image, axis=(2, 3)), 4, axis=1), axis=1)
        return {"logits": 20.0 * tf.reduce_mean(rows, axis=2)}

    def answer(self, signature, inputs):
        assert signature == "s" and isinstance(inputs["image"], np.ndarray)
        return {"logits": self(inputs["image"])["logits"].numpy()}


def test_views_are_corners_center_and_their_mirror_images(image):
    (one,) = tta.views(image, 1)
    np.testing.assert_array_equal(one, image)
    whole, mirrored = tta.views(image, 2)
    np.testing.assert_array_equal(mirrored, image[:, :, ::-1])
    ramp = np.broadcast_to(np.arange(24, dtype="float32")[:, None], (1, 16, 24, 1)).copy()
    ramp[..., 0] = np.arange(24)
    views = [view.numpy()[0, 8, :, 0] for view in tta.views(ramp, 10)]
    assert len(views) == 10
    for crop, turned in zip(views[:5], views[5:], strict=True):
        np.testing.assert_array_equal(turned, crop[::-1])
    middle, first, last = (v[1:-1].mean() for v in views[:3])
    assert (first, middle, last) == pytest.approx((11.5 - 1.5, 11.5, 11.5 + 1.5), abs=1e-3)
    np.testing.assert_allclose(np.diff(views[0][1:-1]), tta.PART, atol=1e-4)


@pytest.mark.parametrize("number", [2, 5, 10])
def test_probabilities_are_averaged(image, number):
    model = Model()
    each = [tf.nn.softmax(model(view)["logits"]).numpy() for view in tta.views(image, number)]
    averaged = tta.Averaged(model, number)
    np.testing.assert_allclose(np.exp(averaged(image)), np.mean(each, axis=0), rtol=1e-5)
    assert averaged.name == "parts"
    answer = tta.AveragedFile(model, number).answer("s", {"image": image})
    np.testing.assert_allclose(answer["logits"], averaged(image), rtol=1e-5)


def test_what_has_no_probabilities_is_refused():
    class Task:
        def evaluated_by(self, target):
            return {"inputs": ["image"], "output": "logits", "loss": "hinge"}

    tta.check(1, Task())
    with pytest.raises(ValueError, match="--tta 5 averages probabilities: it applies to classif"):
        tta.check(5, Task())
    with pytest.raises(ValueError, match="--tta 3: not one of 1, 2, 5, 10"):
        Recipe(tta=3)
