"""What explains a classifier: identities of each method, and the command."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog, cli
from kerasdl.errors import UserError
from kerasdl.export import exporter
from kerasdl.inference import explain, explaining
from tests.export.examples import make_parts, quiet
from tests.variants import SMALL, task_of, tiny

SHAPE = (8, 12, 2)


def explainer_of(name, **more):
    keras.utils.set_random_seed(1)
    arguments = {**tiny(name), **more}
    model = catalog.build(name, **arguments)
    return explain.Explainer(model, arguments["image_shape"], name), arguments["image_shape"]


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).random((count, *shape), "float32")


def scaled(heat):
    heat = np.maximum(heat, 0)
    return heat / heat.max((1, 2), keepdims=True)


def test_saliency_of_a_linear_model_is_its_kernel():
    explainer, shape = explainer_of("linear")
    explainer.model.head.kernel.assign(noise(1, explainer.model.head.kernel.shape)[0] - 0.5)
    kernel = explainer.model.head.kernel.numpy()  # (H W C, K)
    label = np.array([2, 0])
    right = np.abs(kernel[:, label].T.reshape(2, *shape)).max(-1)
    heat = explainer.explain(noise(2, shape), "saliency", label)
    np.testing.assert_allclose(heat, scaled(right), atol=1e-5)


def test_guided_backpropagation_passes_what_is_positive_through_units_that_are_on():
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(9, activation="relu"),
            keras.layers.Dense(7, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    weights = [w.numpy() for w in model.weights]
    images, label = rng.random((4, *SHAPE), "float32"), np.array([0, 1, 2, 1])
    a = images.reshape(4, -1) @ weights[0] + weights[1]
    b = np.maximum(a, 0) @ weights[2] + weights[3]
    back = weights[4][:, label].T
    back = (np.where((b > 0) & (back > 0), back, 0)) @ weights[2].T
    back = (np.where((a > 0) & (back > 0), back, 0)) @ weights[0].T
    right = np.maximum(back.reshape(images.shape), 0).max(-1)
    heat = explain.Explainer(model, SHAPE).explain(images, "guided", label)
    right = right / np.where(right.max((1, 2)) > 0, right.max((1, 2)), 1)[:, None, None]
    assert right.any()
    np.testing.assert_allclose(heat, right, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20", "googlenet_small"])
def test_gradcam_is_cam_where_maps_are_averaged_before_the_dense_layer(name):
    explainer, shape = explainer_of(name)
    images = noise(3, shape)
    heat = explainer.explain(images, "cam")
    assert heat.shape == images.shape[:3] and heat.max() == 1
    np.testing.assert_allclose(heat, explainer.explain(images, "gradcam"), atol=1e-4)


def test_gradcam_weighs_the_maps_of_any_layer():
    explainer, shape = explainer_of("resnet20")
    images, label, layer = noise(2, shape), np.array([1, 0]), explainer.layers[0]
    usual = keras.layers.Layer.__call__

    def logit(moved):
        """That of the label, and the layer's map, with `moved` added to that."""
        maps = []

        def call(self, *args, **kwargs):
            result = usual(self, *args, **kwargs)
            if (self.path or "").partition("/")[2] == layer:
                maps.append(result)
                return result + moved
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.layers.Layer, "__call__", call)
            return tf.gather(explainer.model(images), label, batch_dims=1), maps[0]

    with tf.GradientTape() as tape:
        moved = tf.zeros(logit(0.0)[1].shape)
        tape.watch(moved)
        score, value = logit(moved)
    weight = tf.reduce_mean(tape.gradient(score, moved), (1, 2), keepdims=True)
    right = tf.nn.relu(tf.reduce_sum(weight * value, -1, keepdims=True))
    right = tf.image.resize(right, shape[:2])[..., 0].numpy()
    heat = explainer.explain(images, "gradcam", label, layer)
    np.testing.assert_allclose(heat, scaled(right), atol=1e-4)


def test_a_transformer_has_maps_of_patches_and_a_rollout():
    explainer, shape = explainer_of("vit_ti16")
    images = noise(2, shape)
    heat = explainer.explain(images, "gradcam")  # the last block gives no gradient to patches
    assert heat.max((1, 2)).tolist() == [1, 1]
    grid = explainer.model.backbone.grid
    weights = np.asarray(explainer.model.attention_maps(images)).mean(2)
    right = np.eye(weights.shape[-1])
    for block in range(weights.shape[1]):
        right = (weights[:, block] + np.eye(weights.shape[-1])) / 2 @ right
    np.testing.assert_allclose(right.sum(-1), 1, atol=1e-5)
    right = tf.image.resize(right[:, 0, 1:].reshape(2, *grid, 1), shape[:2]).numpy()[..., 0]
    np.testing.assert_allclose(explainer.explain(images, "attention"), scaled(right), atol=1e-5)


class OnePixel(keras.Model):
    """Whether the pixel at `place` is brighter than half."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def call(self, x, training=False):
        value = 20 * (x[:, self.place[0], self.place[1], 0] - 0.5)
        return tf.stack([-value, value], -1)


@pytest.mark.parametrize("place", [(0, 0), (13, 5), (15, 23)])
def test_occlusion_is_largest_where_hiding_matters(place):
    image = np.zeros((1, 16, 24, 1), "float32")
    image[0, place[0], place[1]] = 1
    heat = explain.Explainer(OnePixel(place), image.shape[1:]).explain(image, "occlusion")[0]
    y, x = explain.peak(heat)
    assert heat[place] == 1
    assert abs(y * 16 - place[0]) <= 4 and abs(x * 24 - place[1]) <= 6


def test_patches_are_what_a_unit_sees():
    kernel = np.zeros((3, 3, 1, 2), "float32")
    kernel[..., 0], kernel[1, 1, 0, 1] = 1, 1
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            keras.layers.Conv2D(2, 3, padding="same", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model.layers[0].kernel.assign(kernel)
    images = noise(6, (10, 10, 1)) * 0.5
    images[4, 6, 3] = 1.0  # the brightest of all
    images[2, 0, 0] = 0.9  # at the edge
    patches = explain.Explainer(model, (10, 10, 1)).patches(images, "conv", units=2, count=2)
    assert patches.shape == (2, 2, 3, 3, 1)
    sums = sum(
        np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 10, j : j + 10]
        for i in range(3)
        for j in range(3)
    )
    best = sums.reshape(6, -1).max(-1).argsort()[::-1]
    np.testing.assert_allclose(patches[0].sum((1, 2, 3)), sums.max((1, 2, 3))[best[:2]], rtol=1e-5)
    assert patches[1, 0].max() == 1.0  # of the unit that sees a pixel, that pixel
    assert patches[1, 1].max() == np.float32(0.9)


def test_the_pointing_game_counts_peaks_in_boxes():
    heat = np.zeros((4, 10, 20))
    heat[0, 3, 4], heat[1, 3, 4], heat[2, 9, 19] = 1, 1, 1  # centers at 0.35, 0.225 and so on
    heat[3, 2, 2] = 1
    boxes = np.zeros((4, 2, 4))
    boxes[0, 1] = 0.3, 0.2, 0.4, 0.25  # holds it
    boxes[1, 0] = 0.36, 0.2, 0.4, 0.25  # is below it
    boxes[2, 0] = 0.9, 0.9, 1.0, 1.0
    assert explain.hits(heat, boxes).tolist() == [True, False, True, False]


def test_filters_are_images():
    explainer, shape = explainer_of("resnet20")
    images = explain.filters(explainer.model)
    assert images.min() == 0 and images.max() == 1 and images.shape[-1] in (1, 3)
    model, _ = explainer_of("mlp")
    with pytest.raises(UserError, match="mlp has no convolution"):
        explain.filters(model.model, "mlp")


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("resnet20", {"method": "gradcm"}, "gradcm: not one of saliency.*did you mean gradcam"),
        ("resnet20", {"method": "saliency", "layer": "stem"}, "--layer applies to"),
        ("resnet20", {"method": "gradcam", "layer": "stage9"}, "has no map.*backbone/stem"),
        ("resnet20", {"method": "attention"}, "resnet20 has no attention"),
        ("mlp", {"method": "cam"}, "mlp does not average"),
        ("vit_ti16", {"method": "guided"}, "vit_ti16 has no ReLU"),
    ],
)
def test_what_does_not_apply_is_named(name, more, message):
    explainer, shape = explainer_of(name)
    with pytest.raises(UserError, match=message):
        explainer.explain(noise(1, shape), **more)


def test_a_saved_model_explains_on_request(parts, tmp_path):
    names = ("serving_default", "explain")
    with pytest.raises(UserError, match="classify.*has serving_default, serve_bytes, explain"):
        exporter.export(parts, (), tmp_path, None, quiet, signatures=("classify",))
    card = exporter.export(parts, (), tmp_path, None, quiet, signatures=names)
    assert set(card["signatures"]) == set(names)
    images = parts.test["image"][:3]
    answer = tf.saved_model.load(card["folder"]).signatures["explain"](tf.constant(images))
    heat = explain.Explainer(parts.model, images.shape[1:]).explain(images, "gradcam")
    np.testing.assert_allclose(answer["heatmap"], heat, atol=1e-4)
    assert set(answer) == {"heatmap", "probabilities", "label", "class_name"}
    usual = exporter.export(parts, (), tmp_path, None, quiet)
    assert "explain" not in usual["signatures"]


def test_a_report_shows_the_methods_that_apply(parts, tmp_path):
    images = parts.test["image"][:4]
    written = explaining.write_pictures(tmp_path, parts.model, parts.task, images)
    assert written == ["gradcam", "saliency", "guided", "occlusion"]
    assert {p.stem for p in tmp_path.iterdir()} == set(written)
    explaining.check(parts.task, "--log explain")
    with pytest.raises(UserError, match="--log explain applies to classifiers of images only"):
        explaining.check(task_of("vae"), "--log explain")


def test_without_labels_each_heads_class_token_shows_where_it_looks(tmp_path, capsys):
    parts = make_parts("dino_small", task_kwargs=SMALL, **tiny("dino_small"))
    folder = exporter.export(parts, ("savedmodel",), tmp_path, None, quiet)["folder"]
    image, output = parts.test["image"][:1], tmp_path / "seen.png"
    file = tmp_path / "image.png"
    file.write_bytes(tf.io.encode_png(np.rint(image[0] * 255).astype("uint8")).numpy())
    words = ["explain", "--saved-model", folder, "--image", str(file)]
    assert cli.main([*words, "--output", str(output), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["method"] == "attention" and set(said) == {"file", "method", "peak"}
    shown = tf.io.decode_png(output.read_bytes()).numpy()
    assert shown.shape[1] > 2 * image.shape[2] * 2  # the image and two heads
    heat = explain.attention_of_heads(parts.model.backbone, image)
    weights = np.asarray(parts.model.backbone.attention_maps(image))[:, -1, :, 0, 1:]  # (1, 2, 6)
    assert heat.shape == (1, 2, *image.shape[1:3]) and (heat.max((2, 3)) == 1).all()
    cells = heat.reshape(1, 2, 2, 4, 3, 4).mean((3, 5)).reshape(1, 2, 6)
    assert (cells.argmax(-1) == weights.argmax(-1)).all()
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith(f"{file}: most at ")
    for more, message in (
        (["--method", "gradcam"], "does not apply to dino_small; --method attention does"),
        (["--label", "3"], "it has no classes"),
    ):
        assert cli.main([*words, *more]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def digit(tmp_path, parts):
    file = tmp_path / "digit.png"
    pixels = np.rint(parts.test["image"][0] * 255).astype("uint8")
    file.write_bytes(tf.io.encode_png(pixels).numpy())
    return file


def test_the_command_explains_files(exported, digit, tmp_path, capsys, parts):
    folder, output = exported["folder"], tmp_path / "seen.png"
    words = ["explain", "--saved-model", folder, "--image", str(digit), str(digit), "--json"]
    assert cli.main([*words, "--output", str(output)]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == second and first["method"] == "gradcam" and 0 <= min(first["peak"])
    likeliest = parts.model(parts.test["image"][:1]).numpy().argmax()
    assert first["class_name"] == "0123456789"[likeliest]
    picture = tf.io.decode_png(output.read_bytes()).numpy()
    assert picture.shape[2] == 3 and (picture[..., 0] != picture[..., 2]).any()
    assert cli.main([*words[:-1], "--label", "3", "--method", "saliency"]) == 0
    assert capsys.readouterr().out.startswith(f"{digit}: 3 ")
    assert cli.main([*words[:3], "--method", "filters", "--output", str(output)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --image and image files"),
        (["--method", "filters"], "give --output FILE.png"),
        (["--method", "patches", "--label", "3", "--output", "a.png"], "do not apply"),
        (["--image", "gone.png"], "gone.png cannot be read"),
        (["--image", "{digit}", "--label", "x"], "--label x: not one of 0, 1"),
        (["--image", "{digit}", "--method", "grad"], "--method grad: not one of"),
        (["--image", "{digit}", "--output", "a.jpg"], "must end in .png"),
        (["--pointing-game", "--image", "{digit}"], "--pointing-game takes --method and --layer"),
        (["--pointing-game"], "digits has no boxes; scenes:digits=1 has"),
    ],
)
def test_the_command_names_what_is_wrong(exported, digit, words, message, capsys):
    words = [word.format(digit=digit) for word in words]
    assert cli.main(["explain", "--saved-model", exported["folder"], *words]) == 2
    assert message in capsys.readouterr().err
