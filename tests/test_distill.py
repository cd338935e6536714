"""Distillation: its losses, examples without labels, which teachers fit, and what a run keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import app, catalog
from kerasdl.columns import ABSENT, DataInfo
from kerasdl.data import labeled, sources
from kerasdl.errors import UserError
from kerasdl.export.exporter import save_keras
from kerasdl.ops import losses
from kerasdl.recipe import Recipe
from kerasdl.store import checkpoint, load, runs
from kerasdl.store.settings import resolve
from kerasdl.store.teacher import open_teacher
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.distill import Distill, Teacher
from kerasdl.training import loop
from kerasdl.training.session import Session
from tests.training.test_other_data import Stop

NAMES = ("ant", "bee", "cat", "dog")
INFO = DataInfo.of_images((8, 8, 1), NAMES)
SMALL = {"model": "mlp", "model_kwargs": {"dims": (8,)}, "dataset": "digits", "batch_size": 64}
QUIET = {"log": (), "export": ()}


def student(info=INFO, seed=0, dims=(6,)):
    keras.utils.set_random_seed(seed)
    return catalog.build("mlp", **Classify(info, Recipe()).arguments(), dims=dims)


def batch_of(labels, shape=(8, 8, 1)):
    images = np.random.default_rng(3).random((len(labels), *shape), np.float32)
    return {"image": tf.constant(images), "label": tf.constant(labels)}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# -- losses ---------------------------------------------------------------------------------------


def test_distillation_is_the_divergence_of_softened_answers(rng):
    teacher, logits = rng.normal(size=(2, 5, 4)) * 3
    assert np.abs(losses.distillation(teacher, teacher + 7.0, 3.0)).max() < 1e-6
    p, q = softmax(teacher / 2), softmax(logits / 2)
    expected = 4 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(losses.distillation(teacher, logits, 2.0), expected, rtol=1e-5)
    # Equation 4: at a high temperature half the squared distance of centered logits, over K
    apart = (teacher - teacher.mean(-1, keepdims=True)) - (logits - logits.mean(-1, keepdims=True))
    with_tensors = (tf.constant(x, "float64") for x in (teacher, logits))
    np.testing.assert_allclose(
        losses.distillation(*with_tensors, 1e4), (apart**2).sum(-1) / 2 / 4, rtol=1e-3
    )


def test_cosine_distance_is_of_directions(rng):
    a = rng.normal(size=(3, 5))
    np.testing.assert_allclose(losses.cosine_distance(a, 2.5 * a), 0, atol=1e-6)
    np.testing.assert_allclose(losses.cosine_distance(a, -a), 4, rtol=1e-6)


def test_a_label_and_the_teacher_share_the_loss_and_without_a_label_the_teacher_has_its_own():
    recipe = Recipe(distill_weight=0.7, distill_temperature=3.0, label_smoothing=0.1)
    net, other = student(), student(seed=1, dims=(9, 5))
    task = Distill(INFO, recipe, Teacher("other", other, INFO))
    batch = batch_of([2, ABSENT, 0, 3])
    loss, metrics = task.losses(net, batch, training=True)
    logits, teacher = np.asarray(net(batch["image"])), np.asarray(other(batch["image"]))
    taught = np.asarray(losses.distillation(teacher, logits, 3.0))
    label = np.eye(4)[[2, 0, 0, 3]]
    own = np.asarray(losses.cross_entropy(label, logits, 0.1)) * [1, 0, 1, 1]
    np.testing.assert_allclose(loss, 0.3 * own + 0.7 * taught, rtol=1e-5)
    right, counted = metrics["top1"]
    assert np.asarray(counted).tolist() == [1, 0, 1, 1]
    expected = (logits.argmax(-1) == label.argmax(-1)) * np.asarray(counted)
    np.testing.assert_array_equal(right, expected)
    # Mixed with an example without a label, a label counts for what is left of it
    half = {**batch, "label": tf.constant(0.5 * label * [[1], [0], [1], [1]], "float32")}
    mixed, _ = task.losses(net, half, training=True)
    np.testing.assert_allclose(mixed, 0.15 * own + 0.7 * taught, rtol=1e-5)
    # Evaluated as without a teacher
    batch = batch_of([2, 1, 0, 3])
    plain = Classify(INFO, recipe).losses(net, batch, training=False)
    for a, b in zip(tf.nest.flatten(plain), tf.nest.flatten(task.losses(net, batch)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_class_weights_are_of_labels():
    recipe = Recipe(class_weight=("cat=3",))
    net, teacher = student(), Teacher("other", student(seed=1), INFO)
    batch = batch_of([2, ABSENT, 0])
    plain, _ = Distill(INFO, Recipe(), teacher).losses(net, batch, training=True)
    (loss, weight), _ = Distill(INFO, recipe, teacher).losses(net, batch, training=True)
    assert np.asarray(weight).tolist() == [3, 1, 1]
    np.testing.assert_allclose(loss, plain * weight, rtol=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "googlenet", "nin", "vit_digits", "gru_classifier"])
def test_features_of_any_architecture_by_a_map_where_sizes_differ(name):
    arguments = dict(catalog.module_of(name).TINY[name])
    info = DataInfo.of_images(arguments["image_shape"], map(str, range(arguments["num_classes"])))
    keras.utils.set_random_seed(0)
    net = catalog.build(name, **arguments)
    recipe = Recipe(distill="features", distill_weight=1.0)
    task = Distill(info, recipe, Teacher("other", student(info, dims=(5,)), info))
    (kernel,) = task.extra_weights(net)
    assert kernel.shape[-1] == 5
    assert any(v is kernel for v in task.variables(net, "model"))
    batch = batch_of([0, ABSENT], info.image_shape)
    with tf.GradientTape() as tape:
        loss, _ = task.losses(net, batch, training=True)
    assert 0 <= np.min(loss) and np.max(loss) <= 4
    gradient = tape.gradient(loss, [kernel.value, net.backbone.trainable_variables[0].value])
    assert all(np.abs(g).max() > 0 for g in gradient)
    same = Distill(info, recipe, Teacher("itself", net, info))
    assert same.extra_weights(net) == []  # no map is needed


def test_the_teacher_is_not_trained_and_sees_inference():
    net = catalog.build("mlp", **Classify(INFO, Recipe()).arguments(), dims=(6,), drop_rate=0.5)
    teacher = Teacher("it", net, INFO)
    image = batch_of([0, 1])["image"]
    with tf.GradientTape() as tape:
        logits = teacher.logits(image)
        tape.watch([v.value for v in net.variables if "float" in v.dtype])
    assert tape.gradient(logits, net.variables[0].value) is None
    np.testing.assert_array_equal(logits, net(image, training=False))
    assert net.trainable_variables == []


# -- which teachers fit ---------------------------------------------------------------------------


def test_classes_are_found_by_their_names_and_images_by_their_size():
    info = DataInfo.of_images((12, 10, 1), ("dog", "ant", "cat", "bee"))
    other = student(info)
    teacher = Teacher("other", other, info)
    teacher.check(INFO, features=False)
    batch = batch_of([0, 1, 2])
    resized = tf.image.resize(batch["image"], (12, 10))
    expected = np.asarray(other(resized))[:, [1, 3, 2, 0]]
    np.testing.assert_allclose(teacher.logits(batch["image"]), expected, rtol=1e-5)


def test_a_teacher_of_other_data_is_refused():
    def check(info, features=False, model=None):
        Teacher("runs/t", model or student(info), info).check(INFO, features)

    with pytest.raises(UserError, match="runs/t: its classes are not .*: it lacks dog"):
        check(DataInfo.of_images((8, 8, 1), NAMES[:3]))
    with pytest.raises(UserError, match="it has besides eel"):
        check(DataInfo.of_images((8, 8, 1), (*NAMES, "eel")))
    with pytest.raises(UserError, match="takes images of 3 channels, the data have 1"):
        check(DataInfo.of_images((8, 8, 3), NAMES))
    linear = catalog.build("linear", **Classify(INFO, Recipe()).arguments())
    check(INFO, model=linear)
    with pytest.raises(UserError, match="--distill features: runs/t has no feature maps"):
        check(INFO, True, linear)


def test_only_classifiers_have_a_teacher_and_only_classifiers_are_one(tmp_path):
    with pytest.raises(UserError, match="--distill-from x: applies to classification only"):
        resolve({"model": "simclr_small", "distill_from": "x"})
    with pytest.raises(UserError, match="--distill-from .*nothing.* is not there"):
        open_teacher(str(tmp_path / "nothing"), "float32")
    recipe = resolve({"model": "autoencoder", "tiny": True, "dataset": "digits", **QUIET})
    made = Session(recipe, tmp_path / "run", lambda line: None)
    made.run.create()
    made.loop.save()
    with pytest.raises(UserError, match="run: autoencoder is no classifier"):
        open_teacher(str(tmp_path / "run"), "float32")


# -- examples without labels ----------------------------------------------------------------------


def test_all_examples_are_used_and_few_labels_are_seen():
    digits = sources.from_recipe(Recipe(dataset="digits"), Classify)
    few = labeled.positions(digits, Classify, Recipe(labels=30))
    used = labeled.used(digits, few, others=True)
    label, true = used.columns()["label"], digits.train.columns()["label"]
    assert len(used) == len(digits.train) and (label != ABSENT).sum() == 30
    np.testing.assert_array_equal(label[few], true[few])
    rows = used.read([0, int(few[3])])
    assert rows["label"][1] == true[few[3]]
    np.testing.assert_array_equal(used.only(["image"]).columns()["image"], rows_of(digits))
    assert "the teacher answers on all" in labeled.line(digits, few, True)


def rows_of(source):
    return source.train.columns()["image"]


# -- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """A finished run of a small classifier."""
    folder = tmp_path_factory.mktemp("teachers")
    given = {**SMALL, **QUIET, "epochs": 1, "output": str(folder), "experiment": "t"}
    assert app.train({**given, "model_kwargs": {"dims": (12,)}}, lambda line: None) == 0
    return folder / "t"


def distilled(teacher, folder, **settings):
    given = {**SMALL, **QUIET, "epochs": 2, "limit_batches": 4, "checkpoint_steps": 3}
    given |= {"distill_from": str(teacher), "output": str(folder), "experiment": "s", **settings}
    return given


def test_a_run_holds_nothing_of_its_teacher_but_which_one_it_was(teacher_run, tmp_path):
    given = distilled(teacher_run, tmp_path, distill="features", labels=40)
    lines = []
    assert app.train(given, lines.append) == 0
    assert any("the teacher answers on all" in line for line in lines)
    run = runs.open_run(tmp_path / "s")
    _, arrays = checkpoint.read(checkpoint.newest_first(run.checkpoints)[0])
    alone = Session(resolve({**given, "distill_from": None}), tmp_path / "a", lambda line: None)
    more = arrays.keys() - alone.trainer.state().keys()
    assert more == {"task/map/kernel", "model/map_kernel_momentum", "model/map_kernel_velocity"}
    assert arrays["task/map/kernel"].shape == (8, 12)
    model, task = run.restore()
    assert type(task) is Classify
    assert [v.path for v in model.variables] == [v.path for v in alone.model.variables]
    assert len(run.data["teacher"]) == 16
    # The student starts as it would without a teacher
    taught = Session(resolve(given), tmp_path / "b", lambda line: None)
    for a, b in zip(alone.model.variables, taught.model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_with_its_teacher_wherever_that_lies_and_with_no_other(teacher_run, tmp_path):
    settings = {"precision": "float64", "limit_batches": 6}
    whole = distilled(teacher_run, tmp_path / "whole", **settings)
    assert app.train(whole, lambda line: None) == 0
    parts = distilled(teacher_run, tmp_path / "parts", **settings)
    stopped = Session(resolve(parts), tmp_path / "parts" / "s", lambda line: None, [Stop(5)])
    stopped.run.create()
    with pytest.raises(loop.Stopped):
        stopped.fit()
    other = {**SMALL, **QUIET, "epochs": 1, "output": str(tmp_path), "experiment": "t2", "seed": 1}
    assert app.train(other, lambda line: None) == 0
    with pytest.raises(UserError, match="t2: has other weights than the teacher that this run"):
        app.train({**parts, "distill_from": str(tmp_path / "t2")}, lambda line: None)
    with pytest.raises(UserError, match="--distill-from was .*, is None"):
        app.train({**parts, "distill_from": None}, lambda line: None)
    found = load.Found.at(teacher_run)
    save_keras(found.model(), found.metadata(), tmp_path / "moved.keras")
    lines = []
    parts = {**parts, "distill_from": str(tmp_path / "moved.keras")}
    assert app.train(parts, lines.append) == 0
    assert any(line.startswith("going on from step") for line in lines)
    last = [
        checkpoint.latest(tmp_path / name / "s" / "checkpoints")[1] for name in ("whole", "parts")
    ]
    assert last[0].keys() == last[1].keys()
    for key, value in last[0].items():
        np.testing.assert_array_equal(value, last[1][key], err_msg=key)
