"""Class weights: what is typed, what is refused, and the weighted mean that is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.cli.train import parse_settings
from kerasdl.columns import DataInfo
from kerasdl.data.splits import ArraySplit, Split
from kerasdl.recipe import Recipe, from_dict, to_dict
from kerasdl.store.settings import resolve
from kerasdl.tasks import class_weights
from kerasdl.tasks.classify import Classify
from kerasdl.training import schedules, step
from kerasdl.training.session import Session

NAMES = ("ant", "bee", "cat", "dog")
INFO = DataInfo.of_images((8, 8, 1), NAMES)
GIVEN = ("bee=3", "dog=0.5")
WEIGHTS = np.array([1, 3, 1, 0.5])


def make_trainer(**settings):
    settings = {"opt": "sgd", "momentum": 0.0, "lr": 0.1, "sched": "constant", **settings}
    recipe = Recipe(model="mlp", class_weight=GIVEN, **settings)
    keras.utils.set_random_seed(0)
    task = Classify(INFO, recipe)
    net = catalog.build("mlp", **task.arguments(), dims=(6,))
    return step.Trainer(net, task, recipe, schedules.from_recipe(recipe, 1, 10))


def make_batch(size=8):
    rng = np.random.default_rng(3)
    return {
        "image": tf.constant(rng.random((size, 8, 8, 1)), "float32"),
        "label": tf.constant(rng.integers(0, 4, size), "int32"),
        "weight": tf.ones(size),
    }


@pytest.mark.parametrize(
    "words, expected",
    [
        (["balanced"], ["balanced"]),
        (["cat=2", "dog=0.5"], ["cat=2", "dog=0.5"]),
        (["cat=2,dog=0.5"], ["cat=2", "dog=0.5"]),
        (["Dogs, small=2", "a=b=1e-1", "3=1"], ["Dogs, small=2", "a=b=1e-1", "3=1"]),
        (["none"], []),
    ],
)
def test_what_is_typed_is_what_is_kept(words, expected):
    given = parse_settings(["--class-weight", *words])
    assert given == {"class_weight": expected}
    recipe = from_dict(given)
    assert from_dict(to_dict(recipe)) == recipe and recipe.class_weight == tuple(expected)


@pytest.mark.parametrize(
    "words, line",
    [
        (("cat",), "--class-weight cat: must be balanced or none alone, or NAME=WEIGHT"),
        (("balanced", "cat=2"), "--class-weight balanced: must be"),
        (("cat=-1",), "--class-weight cat=-1: .* weight of 0 or more"),
        (("cat=nan",), "--class-weight cat=nan"),
        (("cat=inf",), "--class-weight cat=inf"),
        (("cat=much",), "--class-weight cat=much"),
        (("=2",), "--class-weight =2"),
        (("cat=2", "cat=3"), "cat=3: the class cat has a weight already"),
        (("cot=2",), r"--class-weight cot: no such class \(did you mean cat\?\); there are ant, b"),
        (("ant=0", "bee=0", "cat=0", "dog=0"), "at least one class must have a weight above 0"),
    ],
)
def test_what_does_not_fit_is_named(words, line):
    with pytest.raises(ValueError, match=line):
        Classify(INFO, Recipe(class_weight=words))


@pytest.mark.parametrize("model", ["char_rnn", "ddpm_unet_small"])
def test_other_tasks_refuse_it_by_name(model):
    with pytest.raises(ValueError, match=f"--class-weight balanced: applies to .*{model} is"):
        resolve({"model": model, "class_weight": ("balanced",)})


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_step_is_that_of_the_weighted_mean(parts, smoothing):
    trainer = make_trainer(grad_accum_steps=parts, label_smoothing=smoothing)
    batch, variables = make_batch(), trainer.net.trainable_variables
    before = [np.array(v) for v in variables]
    label = np.eye(4)[batch["label"]]
    weight = WEIGHTS[batch["label"]]
    with tf.GradientTape() as tape:
        scores = tf.nn.log_softmax(trainer.net(batch["image"], training=True))
        each = -tf.reduce_sum((label * (1 - smoothing) + smoothing / 4) * scores, -1)
        mean = tf.reduce_sum(each * weight) / weight.sum()
    gradients = tape.gradient(mean, [v.value for v in variables])
    sums, _ = trainer.update(batch)
    for old, new, g in zip(before, variables, gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * g, atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], [mean * weight.sum(), weight.sum()], rtol=1e-5)
    np.testing.assert_allclose(sums[1, 1], 8)  # accuracies are not weighted


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_a_mixed_label_weighs_what_its_parts_do(loss, rng):
    trainer = make_trainer(loss=loss, label_smoothing=0.1)
    label = rng.dirichlet(np.ones(4), 8).astype("float32")
    batch = {**make_batch(), "label": tf.constant(label)}
    (weighted, weight), _ = trainer.task.losses(trainer.net, batch, training=True)
    np.testing.assert_allclose(weight, label @ WEIGHTS, rtol=1e-5)
    plain = Classify(INFO, Recipe(loss=loss, label_smoothing=0.1))
    each, _ = plain.losses(trainer.net, batch, training=True)
    np.testing.assert_allclose(weighted, each * weight, rtol=1e-5)


def test_validation_and_test_are_not_weighted():
    trainer, plain = make_trainer(), Classify(INFO, Recipe())
    loss, _ = trainer.task.losses(trainer.net, make_batch(), training=False)
    np.testing.assert_array_equal(loss, plain.losses(trainer.net, make_batch())[0])


def test_every_auxiliary_head_is_weighted():
    class Net:
        aux_weight = 0.3

        def __call__(self, x, training):
            return {"logits": x[:, 0, :4, 0], "aux1": x[:, 1, :4, 0]}

    task, plain = (Classify(INFO, Recipe(class_weight=words)) for words in (GIVEN, ()))
    batch = make_batch()
    (weighted, weight), _ = task.losses(Net(), batch, training=True)
    each, _ = plain.losses(Net(), batch, training=True)
    np.testing.assert_allclose(weighted, each * WEIGHTS[batch["label"]], rtol=1e-6)


class OnDemand(Split):
    """Labels that are known only where an example is read."""

    def __init__(self, labels):
        self.labels = np.array(labels, np.int32)

    def __len__(self):
        return len(self.labels)

    def columns(self):
        return {"number": np.arange(len(self))}

    def read(self, indices):
        assert len(indices) <= class_weights.CHUNK
        return {"label": self.labels[np.asarray(indices)]}


@pytest.mark.parametrize("split", [OnDemand, lambda labels: ArraySplit({"label": labels})])
def test_balanced_classes_count_alike(split):
    labels = np.repeat([0, 1, 3], [300, 30, 3])
    task = Classify(INFO, Recipe(class_weight=("balanced",)))
    lines = task.measure(split(labels))
    np.testing.assert_allclose(task.class_weights, [333 / 900, 333 / 90, 0, 333 / 9])
    assert "ant 0.37, bee 3.7, cat 0, dog 37" in lines[0] and "training loss only" in lines[0]
    assert "weight 0" in lines[1] and lines[1].endswith(": cat")
    named = Classify(INFO, Recipe(class_weight=GIVEN))
    assert len(named.measure(split(labels))) == 1
    np.testing.assert_array_equal(named.class_weights, WEIGHTS)
    assert Classify(INFO, Recipe()).measure(split(labels)) == []


def test_a_session_balances_by_its_training_part(tmp_path):
    settings = {"model": "linear", "class_weight": ("balanced",), "log": (), "export": ()}
    settings |= {"epochs": 1, "limit_batches": 2, "mixup": 0.2, "eval_epochs": 1}
    settings |= {"monitor": "balanced_accuracy"}
    recipe, lines = resolve({**settings, "output": str(tmp_path), "experiment": "run"}), []
    made = Session(recipe, tmp_path / "run", lines.append)
    counts = np.bincount(made.source.train.arrays["label"])
    np.testing.assert_allclose(made.task.class_weights, counts.sum() / (10 * counts))
    assert any(line.startswith("class weights: 0 ") for line in lines)
    made.fit()
    assert 0 < made.loop.best["value"] == made.loop.history[-1]["val_balanced_accuracy"] <= 1
