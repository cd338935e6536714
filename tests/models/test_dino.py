"""What the paper on DINO promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.columns import Column, DataInfo
from kerasdl.data import augment
from kerasdl.layers.position import resize_grid, resizing
from kerasdl.models.selfsupervised import dino
from kerasdl.recipe import Recipe
from kerasdl.tasks.self_distillation import SelfDistillation

SHAPE = (8, 12, 1)
SIZES = {"patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2, "mlp_dim": 9}
HEAD = {"hidden_dim": 7, "bottleneck_dim": 5, "output_dim": 6}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return dino.dino_small(SHAPE, **SIZES, **HEAD)


def recipe_of(**task_kwargs):
    return Recipe(
        model="dino_small",
        augment=("resized_crop",),
        task_kwargs={"local_crops": 2, "local_size": 4, **task_kwargs},
    )


def task(**task_kwargs):
    return SelfDistillation(DataInfo.of_images(SHAPE, "abc"), recipe_of(**task_kwargs))


def batch_of(made, rng, n):
    shape = {name: view.get("image_size", SHAPE[:2]) for name, view in made.views.items()}
    return {f"image_{k}": rng.random((n, *s, 1), np.float32) for k, s in shape.items()}


def softmax(x):
    return np.exp(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def test_sizes_of_the_paper():
    with keras.StatelessScope(initialize_variables=False):
        model = dino.dino_s16()
        counts = [
            sum(math.prod(w.shape) for w in weights)
            for weights in (
                model.backbone.weights,
                model.head.trainable_weights,
                model.head.weights,
            )
        ]
    assert counts == [21_665_664, 22_286_592, 22_352_128]
    keras.backend.clear_session()


def test_the_last_layer_makes_cosines(model, rng):
    h = rng.normal(size=(3, 8)).astype("float32")
    z = np.asarray(model.project(h))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    prototypes = np.array(model.head.prototypes.value)
    prototypes /= np.linalg.norm(prototypes, axis=0)
    np.testing.assert_allclose(model.head(h), z @ prototypes, atol=1e-5)
    assert not model.head.scale.trainable and (model.head.scale.numpy() == 1).all()


def test_uniform_answers_cost_ln_of_the_prototypes(rng):
    net = dino.dino_small(SHAPE, **SIZES, **{**HEAD, "output_dim": 65536})
    for head in (net.head, net.teacher_head):
        head.scale.assign(np.zeros(65536))
    made = task()
    loss, metrics = made.losses(net, batch_of(made, rng, 1))
    for value in (loss, metrics["teacher_entropy"]):
        np.testing.assert_allclose(value, 11.090354888959125, rtol=1e-5)


@pytest.mark.parametrize("centering", [True, False])
def test_the_loss_is_that_of_all_pairs_of_different_crops(centering, model, rng):
    """Equation 3, pair by pair."""
    made = task(centering=centering, teacher_temperature=0.05)
    model.center.assign(rng.normal(size=6))
    for weight in model.teacher_head.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    batch = batch_of(made, rng, 3)
    loss, metrics = made.losses(model, batch)
    crops = list(batch.values())
    center = np.array(model.center.value) * centering
    teacher = [np.asarray(model.teach(crop)) for crop in crops[:2]]
    student = [softmax(np.asarray(model(crop)) / 0.1) for crop in crops]
    target = [softmax((t - center) / 0.05) for t in teacher]
    pairs = [
        -(target[i] * np.log(student[j])).sum(-1) for i in range(2) for j in range(4) if i != j
    ]
    np.testing.assert_allclose(loss, np.mean(pairs, axis=0), rtol=1e-4)
    np.testing.assert_allclose(metrics["outputs"], np.mean(teacher, axis=0), atol=1e-6)
    entropy = [-(t * np.log(np.maximum(t, 1e-30))).sum(-1) for t in target]
    np.testing.assert_allclose(metrics["teacher_entropy"], np.mean(entropy, axis=0), atol=1e-5)


def test_an_update_moves_the_center_and_the_teacher(model, rng):
    made = task(momentum=0.75, center_momentum=0.8)
    outputs = rng.normal(size=(5, 6)).astype("float32")
    center = rng.normal(size=6).astype("float32")
    model.center.assign(center)
    before = np.array(model.teacher_head.hidden1.kernel.value)
    model.head.hidden1.kernel.assign(before + 1.0)
    made.after_update(model, {"outputs": outputs})
    right = 0.8 * center + 0.2 * outputs.mean(0)  # equation 4
    np.testing.assert_allclose(model.center, right, atol=1e-6)
    np.testing.assert_allclose(model.teacher_head.hidden1.kernel, before + 0.25, atol=1e-6)
    assert not [w.path for w in model.trainable_variables if "teacher" in w.path]


def test_the_teachers_temperature_rises_while_it_warms_up(model):
    made = task(warmup_temperature=0.04, teacher_temperature=0.07, warmup_epochs=3)
    assert float(made._temperature(model)) == pytest.approx(0.07)  # without a training
    made.steps_per_epoch = 10
    for step, expected in ((0, 0.04), (15, 0.055), (30, 0.07), (99, 0.07)):
        model.step.assign(step)
        assert float(made._temperature(model)) == pytest.approx(expected, abs=1e-6)


def test_local_crops_are_small_and_of_small_parts(rng):
    made, recipe = task(), recipe_of()
    assert list(made.views) == ["global1", "global2", "local1", "local2"]
    views = augment.views(recipe, SelfDistillation)
    columns = {"image": Column("image", SHAPE)}
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32) / 12, (40, 8, 12))[..., None]
    key = rng.integers(0, 2**31, (40, 2)).astype("uint32")
    batch = views({"image": ramp, "key": key}, columns)
    spans = {}
    for name, size in (("global1", (8, 12)), ("local1", (4, 4)), ("local2", (4, 4))):
        crop = np.asarray(batch[f"image_{name}"])
        assert crop.shape == (40, *size, 1)
        # From the center of the first pixel to that of the last
        width = (crop[:, 0, -1, 0] - crop[:, 0, 0, 0]) / (size[1] - 1) * size[1]
        spans[name] = width
    assert spans["global1"].min() > 0.5 and spans["local1"].max() < 0.4**0.5 * (4 / 3) ** 0.5 + 0.05
    assert np.abs(spans["local1"] - spans["local2"]).max() > 0.05
    assert np.array_equal(batch["image"], ramp)


def test_a_view_of_another_size_without_a_crop_is_the_whole_image():
    made = augment.Augment(size=(2, 3))
    image = np.arange(24, dtype=np.float32).reshape(1, 4, 6, 1) / 24
    batch = {"image": image, "key": np.zeros((1, 2), "uint32")}
    small = made(batch, {"image": Column("image", (4, 6, 1))})["image"]
    np.testing.assert_allclose(small[0, ..., 0], image[0, ..., 0].reshape(2, 2, 3, 2).mean((1, 3)))


@pytest.mark.parametrize("other", [(6, 6), (2, 3), (1, 1), (9, 7)])
def test_positions_are_interpolated_as_those_of_checkpoints(other, rng):
    grid = rng.normal(size=(4, 5, 3)).astype("float32")
    expected = resize_grid(grid, *other).reshape(-1, 3)
    np.testing.assert_allclose(resizing((4, 5), other) @ grid.reshape(-1, 3), expected, atol=1e-5)


def test_small_crops_have_interpolated_positions(model, rng):
    """They are what a network of their size makes of them."""
    small = dino.dino_small((4, 4, 1), **SIZES, **HEAD)
    for own, weight in zip(small.backbone.weights, model.backbone.weights, strict=True):
        value = np.array(weight.value)
        if weight.path.endswith("grid"):
            value = resize_grid(value, 1, 1)
        own.assign(value)
    x = rng.random((3, 4, 4, 1), np.float32)
    np.testing.assert_allclose(model.features(x), small.features(x), atol=1e-5)


def test_features_are_the_class_token_and_maps_are_of_the_student(model, rng):
    x = rng.random((3, *SHAPE), np.float32)
    np.testing.assert_array_equal(model.features(x), model.backbone(x)["cls"])
    assert model.backbone.attention_maps(x).shape == (3, 2, 2, 7, 7)
    shown = task().pictures(model, {"image": x})["attention"]
    assert shown.shape == (3, 3, *SHAPE)
