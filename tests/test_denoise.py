"""The task of denoising: what is drawn per example, its losses, and the ways of drawing."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl import create_model
from kerasdl.columns import DataInfo
from kerasdl.models.generative.ddpm import TINY
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.denoise import Denoise
from tests.test_diffusion import every_pair

INFO = DataInfo.of_images((8, 8, 2), "abc")


def make(**settings):
    return Denoise(INFO, Recipe(model="ddpm_unet_small", task_kwargs=settings))


def batch(count=6, epoch=0):
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((count, 8, 8, 2)).astype("float32"),
        "label": np.arange(count, dtype="int32") % 3,
        "key": np.asarray(noise.keys(5, epoch, np.arange(count))),
    }


@pytest.fixture(scope="module")
def conditional():
    return create_model("ddpm_unet_small", **TINY["ddpm_unet_small"])


@pytest.fixture(scope="module")
def trained(conditional):
    """A model whose weights are far enough from zero that every input counts."""
    rng = np.random.default_rng(1)
    for weight in conditional.trainable_variables:
        weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
    return conditional


def test_noise_belongs_to_the_example():
    task = make()
    whole = task.prepare(batch())
    part = task.prepare({k: v[2:4] for k, v in batch().items()})
    for name in ("eps", "time", "dropped"):
        np.testing.assert_array_equal(part[name], whole[name][2:4])
    later = task.prepare(batch(epoch=1))
    assert np.abs(np.asarray(later["eps"] - whole["eps"])).min(axis=(1, 2, 3)).min() > 0


def test_labels_are_dropped_as_often_as_asked():
    dropped = np.asarray(make(label_drop=0.3).prepare(batch(3000))["dropped"])
    assert dropped.mean() == pytest.approx(0.3, abs=0.03)
    assert not np.asarray(make(label_drop=0).prepare(batch(300))["dropped"]).any()


def test_images_without_labels_train_and_serve_alike():
    task, plain = make(), {k: v for k, v in batch().items() if k != "label"}
    pairs = [
        (task.prepare(b), {k: v for k, v in b.items() if k != "key"}) for b in (batch(), plain)
    ]

    def model(x, training):
        return 0.5 * x["image"]

    losses = [np.asarray(task.losses(model, prepared, training=True)[0]) for prepared, _ in pairs]
    np.testing.assert_array_equal(*losses)
    served = [task.served(columns) for _, columns in pairs]
    assert served[0].keys() - served[1].keys() == {"label"}
    np.testing.assert_array_equal(served[0]["image"], served[1]["image"])


def test_a_dropped_label_is_the_number_of_classes():
    task, seen = make(conditional=True, label_drop=0.5), []

    def model(x, training):
        seen.append(np.asarray(x["label"]))
        return ops.zeros_like(x["image"])

    prepared = task.prepare(batch(40))
    task.losses(model, prepared, training=True)
    task.losses(model, prepared, training=False)
    dropped = np.asarray(prepared["dropped"])
    assert 0 < dropped.sum() < 40
    np.testing.assert_array_equal(seen[0], np.where(dropped, 3, batch(40)["label"]))
    np.testing.assert_array_equal(seen[1], batch(40)["label"])


@every_pair
def test_losses(schedule, prediction):
    task = make(schedule=schedule, prediction=prediction)
    prepared = task.prepare(batch())
    x0 = 2 * prepared["image"] - 1
    right = task.diffusion.target(x0, prepared["eps"], prepared["time"])
    loss, metrics = task.losses(lambda x, training: right, prepared)
    assert np.abs(loss).max() < 1e-10 and np.abs(metrics["noise_error"]).max() < 1e-4
    # 0.1 off in the prediction costs 0.01
    loss, metrics = task.losses(lambda x, training: right + 0.1, prepared)
    np.testing.assert_allclose(loss, 0.01, rtol=1e-3)
    if prediction == "eps":
        np.testing.assert_allclose(metrics["noise_error"], 0.01, rtol=0.05)


def test_an_exploding_variance_is_scaled_before_the_network():
    task, seen = make(schedule="ve", prediction="eps"), []
    prepared = task.prepare(batch(200))
    task.losses(lambda x, training: seen.append(x["image"]) or x["image"], prepared)
    assert np.asarray(seen[0]).std() == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, lambda t: t),
        ({"first_time": 0}, lambda t: t - 0.001),
        ({"first_time": 0, "train_steps": 400}, lambda t: (400 * t - 1) / 1000),
        ({"schedule": "flow", "train_steps": 400}, lambda t: 0.4 * t),
    ],
)
def test_what_time_a_network_is_told(settings, told):
    """In thousands of steps, in training and in sampling, from the first that it counts."""
    task, seen = make(steps=4, **settings), []

    def model(x, training):
        seen.append(np.asarray(x["time"]))
        return ops.zeros_like(x["image"])

    prepared = task.prepare(batch())
    task.losses(model, prepared)
    np.testing.assert_allclose(seen.pop(), told(np.asarray(prepared["time"])), atol=1e-6)
    task.sampler.states(task._predictor(model, None, 1.0), ops.ones((1, 8, 8, 2)))
    np.testing.assert_allclose(np.ravel(seen), told(task.sampler.times()[:-1]), atol=1e-6)


WAYS = {
    "ddpm": {"sampler": "ddpm"},
    "ddim": {"sampler": "ddim"},
    "eta": {"eta": 0.5},
    "euler": {"schedule": "flow", "sampler": "euler"},
    "heun": {"schedule": "flow", "sampler": "heun"},
    "ve": {"schedule": "ve", "prediction": "eps", "sampler": "heun"},
    "discrete heun": {"sampler": "heun", "karras": True, "spacing": "leading", "steps_offset": 1},
    "discrete euler": {"sampler": "euler", "ends_clean": False, "first_time": 0},
    "large": {"sampler": "ddpm", "variance": "fixed_large", "spacing": "linspace"},
    "stable": {
        "schedule": "scaled_linear",
        "spacing": "trailing",
        "clip_noise": False,
        "clip_range": 2.0,
    },
    "shift": {"schedule": "flow", "sampler": "euler", "shift": 3.0, "spacing": "linspace"},
}


@pytest.mark.parametrize("way", WAYS)
def test_drawing(trained, way):
    task = make(conditional=True, steps=3, **WAYS[way])
    key, label = noise.sample_keys((1, 2), 4), np.array([0, 1, 2, 0], "int32")
    images = np.asarray(task.sample(trained, key, label, 2.0))
    assert images.shape == (4, 8, 8, 2) and images.min() >= 0 and images.max() <= 1
    # An image is its key's, in any batch
    alone = np.asarray(task.sample(trained, key[2:3], label[2:3], 2.0))
    np.testing.assert_allclose(alone[0], images[2], atol=1e-4)


def test_guidance(trained):
    """A tensor of it gives what a number gives, and 0 what no label gives."""
    task = make(conditional=True, steps=3)
    key, label = noise.sample_keys((1, 2), 4), np.array([0, 1, 2, 0], "int32")
    graph = tf.function(lambda w: task.sample(trained, key, label, w), autograph=False)
    result = {w: np.asarray(task.sample(trained, key, label, w)) for w in (0.0, 1.0, 2.0)}
    for weight, images in result.items():
        np.testing.assert_allclose(graph(tf.constant(weight)), images, atol=1e-4)
    np.testing.assert_allclose(task.sample(trained, key, None, 0.0), result[0.0], atol=1e-4)
    assert np.abs(result[1.0] - result[2.0]).max() > 1e-3


def test_steps_in_parts_are_the_whole(trained):
    task = make(conditional=True, steps=6, sampler="ddpm")
    key, label = noise.sample_keys((1, 2), 2), np.array([0, 1], "int32")
    frames = np.asarray(task._trajectory(trained, key, label, 1.0))
    assert frames.shape[:2] == (2, 11)
    np.testing.assert_allclose(frames[:, -1], task.sample(trained, key, label), atol=1e-5)


def test_ways_of_drawing():
    assert set(make(conditional=True).sampling_modes(None)) == {
        "guided",
        "conditional",
        "unconditional",
    }
    assert set(make(conditional=True, label_drop=0).sampling_modes(None)) == {"conditional"}
    assert make().sampling_modes(None) == {"samples": {}}


def test_labels_and_guidance_that_the_model_does_not_know(trained):
    key = noise.sample_keys((0, 0), 1)
    with pytest.raises(ValueError, match="unconditional"):
        make().sample(trained, key, np.zeros(1, "int32"))
    with pytest.raises(ValueError, match="without dropping labels"):
        make(conditional=True, label_drop=0).sample(trained, key, np.zeros(1, "int32"), 2.0)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"num", "seed"}),
        ({"conditional": True, "label_drop": 0}, {"num", "seed", "label"}),
        ({"conditional": True}, {"num", "seed", "label", "guidance"}),
    ],
)
def test_the_sample_signature_has_what_the_model_knows(settings, names):
    signatures = {s.name: s for s in make(**settings).signatures(None)}
    assert set(signatures) == {"denoise", "sample_from", "sample"}
    assert set(signatures["sample"].inputs) == names


def test_what_is_served_is_what_is_trained_on():
    task = make(conditional=True)
    served = task.served(batch(50))
    assert {k: v.shape for k, v in served.items()} == {
        "image": (50, 8, 8, 2),
        "time": (50,),
        "label": (50,),
        "clean": (50, 8, 8, 2),
    }
    alpha, sigma = (
        np.asarray(v)[:, None, None, None] for v in task.diffusion.levels(served["time"])
    )
    left = (served["image"] - alpha * (2 * served["clean"] - 1)) / sigma
    assert left.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"prediction": "noise"}, "not one of eps, x, v"),
        ({"conditional": 1}, "not one of false, true"),
        ({"steps": 0}, "steps=0: must be a whole number from 1 to 10,000"),
        ({"steps": 1.5}, "whole number"),
        ({"label_drop": "often"}, "must be a number from 0 to 0.999"),
        ({"schedule": "ve"}, "prediction=v"),
        ({"eta": 0.5, "sampler": "heun"}, "eta=0.5 applies to the sampler ddim only"),
        ({"stepz": 3}, "did you mean steps"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=f"--task-kwargs .*{words}"):
        make(**settings)
