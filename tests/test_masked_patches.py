"""Masked image modeling: which patches are masked, and what is counted of them."""

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.models.selfsupervised.mae import mae_small
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.masked_patches import MaskedPatches, masked_mean, order_of


@pytest.fixture(scope="module")
def model():
    return mae_small(depth=1, decoder_depth=1, input_mean=0.3)


def task(class_names=("a", "b", "c"), **task_kwargs):
    info = DataInfo.of_images((8, 8, 1), class_names, (0.3,))
    return MaskedPatches(info, Recipe(model="mae_small", task_kwargs=task_kwargs))


def batch_of(rng, n, epoch=0):
    image = rng.random((n, 8, 8, 1), np.float32)
    return {"image": image, "key": noise.keys(0, epoch, np.arange(n)), "weight": np.ones(n)}


def test_every_example_and_epoch_has_an_order_of_its_own(model, rng):
    orders = {e: task().model_inputs(model, batch_of(rng, 200, e))["order"] for e in (0, 1)}
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(16), (200, 1)))
        assert len(np.unique(order, axis=0)) == 200
    assert (np.asarray(orders[0]) != np.asarray(orders[1])).any(axis=1).all()
    again = task().model_inputs(model, {k: v[7:9] for k, v in batch_of(rng, 200).items()})
    np.testing.assert_array_equal(again["order"], orders[0][7:9])
    visible = np.bincount(np.asarray(orders[0])[:, :4].ravel(), minlength=16) / 200
    assert np.abs(visible - 0.25).max() < 0.12  # every patch as often as others


def test_the_loss_is_the_mean_over_masked_patches_alone(model, rng):
    batch = batch_of(rng, 5)
    loss, metrics = task().losses(model, batch)
    assert metrics == {}
    outputs = model(task().model_inputs(model, batch))
    errors, hidden = np.asarray(model.errors(batch["image"], outputs["prediction"])), 12
    mask = np.asarray(outputs["mask"])
    assert (mask.sum(axis=1) == hidden).all()
    np.testing.assert_allclose(loss, (errors * mask).sum(axis=1) / hidden, rtol=1e-5)
    np.testing.assert_array_equal(masked_mean(errors, 0 * mask), np.zeros(5))


def test_pictures_show_what_is_hidden_and_what_is_restored(model, rng):
    batch = batch_of(rng, 9)
    image, masked, restored = np.asarray(task().pictures(model, batch)["restored"])
    np.testing.assert_array_equal(image, batch["image"][:8])
    hidden = (masked == 0.5).reshape(8, -1)
    assert (hidden.sum(axis=1) == 12 * 4).all()
    same = np.isclose(restored, image, atol=1e-5).reshape(8, -1)
    assert same[~hidden].all() and same[hidden].mean() < 0.1


def test_answers_and_signatures(model, rng):
    made, image = task(), rng.random((3, 8, 8, 1), np.float32)
    features, restore = made.signatures(model)
    assert features.name == "serving_default" and features.inputs["image"].kind == "image"
    answer = features.function(image)
    assert set(answer) == {"features"}
    np.testing.assert_array_equal(answer["features"], model.features(image))
    place = rng.random((3, 16), np.float32)
    answer = restore.function(image, place)
    expected = model({"image": image, "order": order_of(place)})
    np.testing.assert_array_equal(answer["mask"], expected["mask"])
    np.testing.assert_array_equal(answer["restored"], model.restored(image, expected))
    assert made.arguments() == {"image_shape": (8, 8, 1), "input_mean": (0.3,), "input_std": 1.0}


def test_probes_need_classes():
    names = [e.metrics[0] for e in task(probe_labels=30, neighbors=3).evaluators()]
    assert names == ["spread", "knn_top1", "linear_probe_top1"]
    assert [e.metrics for e in task(class_names=()).evaluators()] == [("spread",)]
    with pytest.raises(ValueError, match="probe_labels=0"):
        task(probe_labels=0)
