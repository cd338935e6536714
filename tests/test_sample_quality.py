"""What generative models draw, judged: with a made-up referee here, with a trained one if slow."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.columns import DataInfo
from kerasdl.data import sources
from kerasdl.errors import TrainingError
from kerasdl.inference import reference_classifier, sample_quality
from kerasdl.models.cnn import resnet
from kerasdl.store import runs
from kerasdl.store.settings import resolve

RECIPE = resolve({"model": "linear", "dataset": "digits"})
COUNTS = (100, 200)


class Nearest:
    """A classifier that knows the training images: the class of the nearest one, and its pixels."""

    name, top1, sha256 = "nearest", 1.0, "ab" * 32

    def __init__(self, images, labels):
        self.x, self.labels = images.reshape(len(images), -1), labels

    def __call__(self, images):
        x = images.reshape(len(images), -1)
        distances = (self.x**2).sum(1) - 2 * x @ self.x.T
        return self.labels[distances.argmin(1)], 10 * x


class Copies:
    """A task that draws training images, of the class that it is asked for where it is.

    Args:
        split: The training part.
        change: What becomes of the images `(B, H, W, C)`.
        **ways: Settings of its draws.
    """

    def __init__(self, split, change=lambda image, key: image, **ways):
        self.ways, self.change, self.requested = ways, change, []
        batch = split.read(range(len(split)))
        self.images, labels = batch["image"], batch["label"]
        self.of_class = np.stack([np.flatnonzero(labels == k)[:100] for k in range(10)])

    def sampling_modes(self, model):
        return self.ways

    def sample(self, model, key, label=None, guidance=None):
        self.requested.append((label is not None, guidance))
        number = tf.cast(key[:, 0] % len(self.images), "int64")
        if label is not None and guidance:
            number = tf.gather_nd(
                self.of_class, tf.stack([tf.cast(label, "int64"), number % 100], 1)
            )
        return self.change(tf.gather(self.images, number), key)


@pytest.fixture(scope="module")
def digits():
    """The data set, and the referee that knows it."""
    source = sources.open_source("digits")
    batch = source.train.read(range(len(source.train)))
    return source, Nearest(batch["image"], batch["label"])


@pytest.fixture(autouse=True)
def _no_inception(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def evaluate(digits, task, **more):
    source, stub = digits
    given = {"classifier": stub, "counts": COUNTS, "say": lambda line: None} | more
    return sample_quality.evaluate_samples(None, task, source, given.pop("recipe", RECIPE), **given)


def test_real_images_are_as_good_as_real(digits):
    ways = {"guided": {"guidance": 2.0}, "unguided": {"guidance": 0.0}, "free": {}}
    task, lines = Copies(digits[0].train, **ways), []
    result = evaluate(digits, task, counts=(400, 1000), say=lines.append)
    json.dumps(result, allow_nan=False)
    assert task.requested == [(True, 2.0), (True, 0.0), (False, None)]  # each is traced once
    assert result["count"] == {"pixel": 400, "features": 1000} and result["notes"] == []
    assert result["referee"] == {"name": "nearest", "top1": 1.0, "sha256": "ab" * 32}
    assert [line.split()[1] for line in lines] == ["guided:", "unguided:", "free:"]
    assert result["features"]["name"] == "nearest" and list(result["ways"]) == list(ways)
    assert result["ways"]["guided"]["recognised"] == 1
    assert not any("recognised" in result["ways"][name] for name in ("unguided", "free"))
    assert set(result["ways"]["guided"]["classes"]["shares"].values()) == {0.1}
    for way in result["ways"].values():
        pixel, features = way["pixel"], way["features"]
        assert pixel["nearest"] < 1e-6 and pixel["nearest_ratio"] < 1e-6
        assert pixel["nearest_test"] == pytest.approx(1.153, abs=1e-3)
        assert pixel["frechet_real"] == pytest.approx(0.2904, abs=1e-4)
        assert 0.9 < pixel["ratio"] < 1.6
        assert pixel["ratio"] == pytest.approx(pixel["frechet"] / pixel["frechet_real"])
        assert 0.8 < pixel["spread_least"] < pixel["spread"] < pixel["spread_most"] < 1.2
        # These features are the pixels, ten times as large.
        assert features["frechet_real"] == pytest.approx(29.04, abs=0.01)
        assert min(features[k] for k in ("precision", "recall", "density", "coverage")) > 0.4
        assert way["classes"]["least_share"] > 0.06


def test_samples_depend_on_the_seed_alone(digits):
    seen = []

    def keep(image, key):
        return tf.numpy_function(lambda i: seen.append(i) or i, [image], "float32")

    def sampled(count, recipe):
        seen.clear()
        task = Copies(digits[0].train, keep, free={})
        sample_quality._sample(task, None, {}, recipe.seed, count, 0)
        return np.concatenate(seen)

    few, many = sampled(70, RECIPE), sampled(200, RECIPE)
    assert len(few) == 128 and len(many) == 256  # whole batches
    np.testing.assert_array_equal(few, many[:128])
    other = sampled(70, replace(RECIPE, seed=2**32 - 1))
    assert np.abs(other - few).mean() > 0.1


def test_classes_are_requested_equally_often(digits):
    class Requests(Copies):
        def sample(self, model, key, label=None, **settings):
            label = tf.ensure_shape(
                tf.numpy_function(lambda v: seen.append(v) or v, [label], "int32"), label.shape
            )
            return super().sample(model, key, label, **settings)

    seen = []
    task = Requests(digits[0].train)
    images, requested = sample_quality._sample(task, None, {"guidance": 1.0}, 0, 100, 10)
    assert len(images) == 100 and requested.dtype == np.int32
    np.testing.assert_array_equal(requested, np.concatenate(seen)[:100])
    np.testing.assert_array_equal(np.bincount(requested), np.full(10, 10))


def test_noise_a_single_image_and_half_the_contrast(digits):
    def noise(image, key):
        values = tf.cast(tf.random.stateless_uniform((64, 8, 8, 1), (1, 2)), "float32")
        return values + 0 * image

    def gray(image, key):
        return (image + 0.3125) / 2

    def one(image, key):
        return 0 * image + tf.constant(digits[0].test.read([0])["image"])

    way = evaluate(digits, Copies(digits[0].train, noise, free={}))["ways"]["free"]
    assert way["pixel"]["ratio"] > 5 and way["pixel"]["nearest_ratio"] > 1.5
    assert way["features"]["precision"] == 0 and way["features"]["coverage"] < 0.05
    way = evaluate(digits, Copies(digits[0].train, one, guided={"guidance": 1.0}))["ways"]["guided"]
    assert way["classes"]["least_share"] == 0 and way["recognised"] == 0.1
    assert way["features"]["precision"] == 1 and way["features"]["recall"] == 0
    assert way["pixel"]["spread"] < 1e-6
    way = evaluate(digits, Copies(digits[0].train, gray, free={}))["ways"]["free"]
    assert way["pixel"]["spread_most"] < 0.6


def test_a_task_without_samples_needs_no_reference_classifier(digits, monkeypatch):
    monkeypatch.setattr(reference_classifier, "of_recipe", None)
    assert evaluate(digits, Copies(digits[0].train), classifier=None) == {}


def test_the_referee_is_trained_where_none_is_given(digits, monkeypatch):
    requested = []
    monkeypatch.setattr(
        reference_classifier, "of_recipe", lambda *given: requested.append(given) or digits[1]
    )
    result = evaluate(digits, Copies(digits[0].train, free={}), classifier=None, say=print)
    assert requested == [(RECIPE, print)] and result["referee"]["name"] == "nearest"


def test_one_class_has_no_referee(digits, monkeypatch):
    monkeypatch.setattr(reference_classifier, "of_recipe", None)
    source = replace(digits[0], info=DataInfo.of_images((8, 8, 1), ("digit",)))
    task = Copies(source.train, free={})
    result = evaluate((source, None), task)
    json.dumps(result, allow_nan=False)
    assert result["referee"] is None and "no reference classifier" in result["notes"][0]
    assert set(result["ways"]["free"]) == {"pixel"} and "features" not in result
    assert result["ways"]["free"]["pixel"]["spread"] == pytest.approx(1, abs=0.1)


def test_images_that_are_no_numbers_are_not_judged(digits):
    def broken(image, key):
        return tf.where(key[:, :1, None, None] % 2 == 0, np.nan, image)

    result = evaluate(digits, Copies(digits[0].train, broken, free={}))
    assert result["ways"] == {} and "free:" in result["notes"][0]
    assert "of 200 images are not finite" in result["notes"][0]


def test_large_images_have_no_covariance_of_pixels(digits, monkeypatch):
    monkeypatch.setattr(sample_quality, "PIXELS", 63)
    pixel = evaluate(digits, Copies(digits[0].train, free={}))["ways"]["free"]["pixel"]
    assert "frechet" not in pixel and pixel["nearest"] < 1e-6


def test_real_images_are_thinned_out_where_they_are_many(digits, monkeypatch):
    monkeypatch.setattr(sample_quality, "BYTES", 4 * 64 * 500)
    images, labels = sample_quality._read(digits[0].train)
    assert images.shape == (500, 8, 8, 1) and images.dtype == np.float32
    whole = digits[0].train.read(range(1257))
    np.testing.assert_array_equal(images[[0, -1]], whole["image"][[0, -1]])
    np.testing.assert_array_equal(labels[[0, -1]], whole["label"][[0, -1]])


def test_features_of_inception_need_its_file(digits):
    task = Copies(digits[0].train, free={})
    with pytest.raises(ValueError, match="features=inception needs the file inception_v3_.*notop"):
        evaluate(digits, task, features="inception")


def test_classes_and_features_of_a_network():
    model = catalog.build("resnet20", **resnet.TINY["resnet20"])
    images = np.random.default_rng(0).random((70, 8, 12, 1), np.float32)  # more than a batch
    classes, features = reference_classifier.ReferenceClassifier(model, "tiny", 0.5, "")(images)
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_array_equal(classes, logits.argmax(-1))
    assert features.shape == (70, 16)
    head = features @ np.asarray(model.head.kernel) + np.asarray(model.head.bias)
    np.testing.assert_allclose(head, logits, atol=1e-5)


@pytest.mark.slow
def test_a_referee_is_trained_once(tmp_path):
    recipe = replace(RECIPE, output=str(tmp_path / "runs"), image_size=(10,))
    lines = []
    first = reference_classifier.of_recipe(recipe, lines.append)
    assert first.name == "reference-resnet20-digits-10-s0" and first.top1 > 0.95
    assert any("test loss" in line for line in lines)
    kept = runs.open_run(tmp_path / "runs" / first.name)
    assert kept.info.image_shape == (10, 10, 1) and kept.recipe.epochs == 20
    test = sources.open_source("digits", image_size=(10,)).test.read(range(360))
    classes, _ = first(test["image"])
    assert (classes == test["label"]).mean() == pytest.approx(first.top1)
    again = reference_classifier.of_recipe(recipe, lines.clear)
    assert again == replace(first, model=again.model) and lines
    other = reference_classifier.of_recipe(replace(recipe, val_split=0.2), lines.append)
    assert "starts anew" in " ".join(lines) and other.name == first.name


@pytest.mark.slow
def test_a_referee_that_cannot_be_trained(tmp_path):
    recipe = replace(RECIPE, output=str(tmp_path), dataset=f"npz:{tmp_path}/none.npz")
    with pytest.raises(TrainingError, match="reference-resnet20-npz-none.npz-s0 could .*none.npz"):
        reference_classifier.of_recipe(recipe, print)


@pytest.mark.slow
def test_features_of_inception(digits, tmp_path, monkeypatch):
    """Random weights under the name of Keras' file; gray images, and nothing is downloaded."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    path = tmp_path / "keras" / "models" / reference_classifier.INCEPTION
    path.parent.mkdir(parents=True)
    model = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    images = digits[0].test.read(range(3))["image"]
    large = tf.repeat(tf.image.resize(images, (299, 299), antialias=True), 3, -1)
    expected = np.asarray(model(2 * large - 1, training=False))
    network = reference_classifier.inception()
    nothing, features = network(images)
    assert nothing is None and expected.std() > 0
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(sample_quality, "REAL", 20)
    result = evaluate(digits, Copies(digits[0].train, free={}), counts=(20, 30))
    assert result["features"]["name"] == "InceptionV3" and len(result["features"]["sha256"]) == 64
    assert (
        result["referee"]["name"] == "nearest"
        and result["ways"]["free"]["features"]["frechet"] >= 0
    )
