"""What the papers on momentum contrast promise."""

import math

import keras
import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.models.selfsupervised import moco
from kerasdl.ops.losses import contrast_with_queue
from kerasdl.recipe import Recipe
from kerasdl.tasks.momentum_contrast import MomentumContrast

SHAPE = (8, 8, 1)


def model(**more):
    keras.utils.set_random_seed(0)
    sizes = {"depths": (1,), "filters": 4, "projection_dim": 5, "queue_size": 7, **more}
    return moco.moco_small(SHAPE, **sizes)


def task(**task_kwargs):
    info = DataInfo.of_images(SHAPE, "abc")
    return MomentumContrast(info, Recipe(model="moco_small", task_kwargs=task_kwargs))


def batch_of(rng, n):
    views = {f"image_{view}": rng.random((n, *SHAPE), np.float32) for view in ("query", "key")}
    return {"image": views["image_key"], **views}


def weights_of(net, part):
    return [np.array(w.value) for w in getattr(net, part).weights]


def test_equal_logits_cost_ln_of_their_number():
    rows = np.eye(3)[[0, 0]]
    queue = np.broadcast_to(rows[0], (65536, 3))
    for temperature in (0.07, 0.5):
        loss, top1 = contrast_with_queue(rows, rows, queue, temperature)
        np.testing.assert_allclose(loss, 11.090370147631774, rtol=0, atol=1e-9)  # ln(K + 1)
        np.testing.assert_array_equal(top1, 0.0)


def test_the_loss_is_equation_1(rng):
    query, key, queue = (rng.normal(size=(n, 4)) for n in (3, 3, 6))
    query, key, queue = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, key, queue))
    loss, _ = contrast_with_queue(2.5 * query, key, queue, 0.2)
    for i in range(3):
        right, wrong = math.exp(query[i] @ key[i] / 0.2), np.exp(queue @ query[i] / 0.2)
        np.testing.assert_allclose(loss[i], -math.log(right / (right + wrong.sum())), atol=1e-12)


def test_the_key_encoder_starts_as_the_query_encoder_and_is_not_trained(rng):
    net = model()
    for part in ("backbone", "head"):
        for own, copy in zip(weights_of(net, part), weights_of(net, f"key_{part}"), strict=True):
            np.testing.assert_array_equal(own, copy)
    assert not [w.path for w in net.trainable_variables if "key_" in w.path or "queue" in w.path]
    x = rng.random((3, *SHAPE), np.float32)
    query = np.asarray(net(x))
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    np.testing.assert_allclose(net.keys(x), query, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(net.queue, axis=1), 1, atol=1e-6)


def test_keys_take_the_statistics_of_batches(rng):
    net, x = model(), rng.random((6, *SHAPE), np.float32)
    assert np.abs(np.asarray(net.keys(x, training=True)) - net.keys(x)).max() > 1e-3


def test_an_update_moves_the_key_encoder_and_the_queue_alone(rng):
    net, made = model(), task(momentum=0.9)
    for weight in net.trainable_variables:
        weight.assign(weight + 1.0)
    before, own = weights_of(net, "key_head"), weights_of(net, "head")
    keys = rng.normal(size=(3, 5)).astype("float32")
    oldest = np.array(net.queue.value)
    made.after_update(net, {"keys": keys})
    for old, student, new in zip(before, own, weights_of(net, "key_head"), strict=True):
        np.testing.assert_allclose(new, 0.9 * old + 0.1 * student, rtol=1e-6)
    for old, new in zip(own, weights_of(net, "head"), strict=True):
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(net.queue, np.concatenate([keys, oldest[:4]]))
    many = rng.normal(size=(9, 5)).astype("float32")  # more than the queue holds
    made.after_update(net, {"keys": many})
    np.testing.assert_array_equal(net.queue, many[:7])


def test_evaluation_changes_nothing(rng):
    net, made = model(), task()
    before = [np.array(w.value) for w in net.weights]
    loss, metrics = made.losses(net, batch_of(rng, 4))
    assert loss.shape == (4,) and metrics["keys"].shape == (4, 5)
    for old, new in zip(before, net.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_head_of_v1_is_one_dense_layer_and_that_of_v2_has_another():
    shapes = [[tuple(w.shape) for w in model(mlp=mlp).head.weights] for mlp in (False, True)]
    assert [sorted(each) for each in shapes] == [[(4, 5), (5,)], [(4,), (4, 4), (4, 5), (5,)]]
    with pytest.raises(ValueError, match="queue_size 0"):
        model(queue_size=0)
