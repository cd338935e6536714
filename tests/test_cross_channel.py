"""Colorization and inpainting as tasks: what counts how much in the loss."""

import math

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.data.splits import ArraySplit
from kerasdl.errors import UserError
from kerasdl.models.selfsupervised.colorization import colorization_small
from kerasdl.models.selfsupervised.context_encoder import context_encoder_small
from kerasdl.models.selfsupervised.split_brain import split_brain_small
from kerasdl.ops import lab
from kerasdl.recipe import Recipe
from kerasdl.tasks.colorize import Colorize
from kerasdl.tasks.inpaint import Inpaint

SHAPE = (8, 12, 3)
SMALL = {"depths": (1, 1), "filters": 4, "grid": 20}


def task_of(kind, model, shape=SHAPE, **task_kwargs):
    info = DataInfo.of_images(shape, ("a", "b"), (0.5,) * shape[-1])
    return kind(info, Recipe(model=model, task_kwargs=task_kwargs))


class Said:
    """A model whose answers are given."""

    def __init__(self, real, **answers):
        self.real, self.answers = real, answers

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __call__(self, x, training=False):
        return self.answers


def test_each_place_costs_what_its_color_and_lightness_do(rng):
    model = split_brain_small(SHAPE, **SMALL, lightness_bins=5)
    task, image = task_of(Colorize, "split_brain_small"), rng.random((3, *SHAPE))
    flat = {"ab": np.zeros((3, 4, 6, 101)), "lightness": np.zeros((3, 4, 6, 5))}
    loss, metrics = task.losses(Said(model, **flat), {"image": image})
    np.testing.assert_allclose(loss, math.log(101) + math.log(5), atol=1e-6)
    target = np.asarray(lab.averaged(lab.rgb_to_lab(image), (4, 6)))
    far = np.linalg.norm(target[..., 1:] - model.bins["ab"].mean(0), axis=-1)
    np.testing.assert_allclose(metrics["color_error"], far.mean((1, 2)), rtol=1e-5)
    logits = rng.normal(size=(3, 4, 6, 5))
    loss, _ = task.losses(Said(model, **{**flat, "lightness": logits}), {"image": image})
    label = (target[..., 0] // 20).astype(int).clip(0, 4)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    one = -np.take_along_axis(log_p, label[..., None], -1).mean((1, 2, 3))
    np.testing.assert_allclose(loss, math.log(101) + one, rtol=1e-6)


def test_regression_is_half_the_squared_distance(rng):
    model = colorization_small(SHAPE, depths=(1, 1), filters=4, objective="regression")
    task = task_of(Colorize, "colorization_small", objective="regression")
    assert task.arguments()["objective"] == "regression"
    image, said = rng.random((2, *SHAPE)), rng.normal(size=(2, 8, 12, 2))
    target = np.asarray(lab.rgb_to_lab(image))[..., 1:] / 110
    loss, _ = task.losses(Said(model, ab=said), {"image": image})
    np.testing.assert_allclose(loss, np.square(said - target).sum(-1).mean((1, 2)) / 2, rtol=1e-6)
    assert task.measure(None) == []


def test_rare_colors_of_the_training_part_count_more_in_training(rng):
    image = np.full((20, *SHAPE), 128, np.uint8)
    image[0, :, :, 0] = 255  # one is reddish, the others are gray
    task = task_of(Colorize, "colorization_small")
    bins = lab.ab_bins(20)
    np.testing.assert_array_equal(task.class_weights(bins), np.ones(101))
    task.measure(ArraySplit({"image": image, "label": np.zeros(20, np.int32)}))
    assert task.counts.sum() == 20 * 8 * 12 and task.counts[128, 128] == 19 * 8 * 12
    weights = task.class_weights(bins)
    red, gray = (
        np.square(bins - np.asarray(lab.rgb_to_lab(image[i, 0, 0] / 255.0))[1:]).sum(-1).argmin()
        for i in (0, 1)
    )
    assert weights[red] > 5 * weights[gray] == 5 * weights.min()
    model = Said(colorization_small(SHAPE, **SMALL), ab=np.zeros((20, 8, 12, 101)))
    batch = {"image": image / 255.0}
    seen = [
        np.asarray(task.losses(model, batch, training=training)[0]) for training in (True, False)
    ]
    np.testing.assert_allclose(seen[0][:2] / math.log(101), weights[[red, gray]], rtol=1e-5)
    np.testing.assert_allclose(seen[1], math.log(101), rtol=1e-5)


def test_images_without_colors_are_refused():
    with pytest.raises(UserError, match="images of 1 channels: colors are learned from images"):
        task_of(Colorize, "colorization_small", (8, 8, 1))


def test_pictures_and_signatures_of_colors(rng):
    model, task = split_brain_small(SHAPE, **SMALL), task_of(Colorize, "split_brain_small")
    image = rng.random((9, *SHAPE), np.float32)
    first, gray, colored = np.asarray(task.pictures(model, {"image": image})["colored"])
    np.testing.assert_array_equal(first, image[:8])
    assert np.ptp(gray, axis=-1).max() < 1e-3 and np.ptp(colored, axis=-1).max() > 1e-3
    served = {s.name: s for s in task.signatures(model)}
    assert list(served) == ["serving_default", "colorize"]
    np.testing.assert_allclose(served["colorize"].function(gray)["colored"], colored, atol=2e-3)


class Inpainter:
    """Predicts `level` everywhere; logits are the mean of what is seen."""

    hole = np.zeros((8, 12, 1), bool)
    hole[3:5, 4:8] = True

    def __init__(self, level):
        self.level = level

    def middle(self, x):
        return x[:, 2:6, 3:9]

    def inpaint(self, x, training=False):
        return np.full((len(x), 4, 6, 1), self.level)

    def filled(self, x, middle):
        return np.where(self.hole, self.level, x)

    def discriminate(self, x, training=False):
        return np.asarray(x).mean((1, 2, 3))


def test_losses_of_inpainting(rng):
    task, image = task_of(Inpaint, "context_encoder", (8, 12, 1)), rng.random((3, 8, 12, 1))
    batch, model = {"image": image}, Inpainter(0.4)
    middle, inside = image[:, 2:6, 3:9], image[:, 3:5, 4:8]
    weight = np.where(model.hole[2:6, 3:9], 1, 10)
    error = 4 * (weight * np.square(middle - 0.4)).mean((1, 2, 3))
    loss, metrics = task.losses(model, batch, "generator")
    np.testing.assert_allclose(loss, 0.999 * error + 0.001 * np.log1p(np.exp(-0.4)), rtol=1e-5)
    expected = -10 * np.log10(np.square(inside - 0.4).mean((1, 2, 3)))
    np.testing.assert_allclose(metrics["psnr"], expected, rtol=1e-5)
    loss, metrics = task.losses(model, batch, "discriminator")
    real = np.log1p(np.exp(-middle.mean((1, 2, 3))))
    np.testing.assert_allclose(loss, real + np.log1p(np.exp(0.4)), rtol=1e-5)
    names = [f"{player}_{name}" for player in task.players for name in task.metrics]
    shown = task.summarize(dict.fromkeys(names, 1.0), "test")
    assert set(shown) == {"generator_loss", "discriminator_loss", "psnr", "neighbors_psnr"}


def test_neighbors_fill_a_hole(rng):
    """The mean of the 20 pixels around it, those of the corners too, the nearer ones more."""
    task, image = task_of(Inpaint, "context_encoder", (8, 12, 1)), np.full((2, 8, 12, 1), 0.7)
    image[0, 3:5, 4:8] = 0.8
    image[1, 3, 3] = 0.2
    psnr = task.losses(Inpainter(0.4), {"image": image}, "generator")[1]["neighbors_psnr"]
    at = np.argwhere(Inpainter.hole[..., 0])
    ring = [(y, x) for y in range(2, 6) for x in range(3, 9) if not Inpainter.hole[y, x, 0]]
    weight = 1 / np.square(at[:, None] - np.array(ring)).sum(-1)
    share = weight[:, ring.index((3, 3))] / weight.sum(1)
    expected = [20.0, -10 * np.log10(np.square(0.5 * share).mean())]
    np.testing.assert_allclose(psnr, expected, rtol=1e-5)


def test_each_player_trains_its_own(rng):
    model = context_encoder_small((16, 16, 1), filters=4, input_mean=0.5)
    task = task_of(Inpaint, "context_encoder_small", (16, 16, 1))
    own = [{w.path for w in task.variables(model, player)} for player in task.players]
    assert not own[0] & own[1]
    assert own[0] | own[1] == {w.path for w in model.trainable_variables}
    image = rng.random((2, 16, 16, 1), np.float32)
    first, holed, filled = np.asarray(task.pictures(model, {"image": image})["filled"])
    np.testing.assert_array_equal(first, image)
    assert (holed != first).sum() == 2 * 6 * 6 and (holed[holed != first] == 0.5).all()
    restored = task.signatures(model)[1].function(holed)["restored"]
    np.testing.assert_allclose(restored, filled, atol=1e-6)
