"""Parity with `keras.applications`, through the mapping that `--initial-checkpoint` uses."""

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import densenet, resnet, vgg
from kerasdl.weights import keras_applications
from kerasdl.weights.keras_applications import copy_weights, load


def randomize(model, biases):
    """Draw batch norm's weights and, where asked, the convolutions' biases, which start at 0."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for v in layer.weights:
                near_one = v.name in ("gamma", "moving_variance")
                low, high = (0.8, 1.2) if near_one else (-0.1, 0.1)
                v.assign(rng.uniform(low, high, v.shape))
        elif biases and isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            layer.bias.assign(rng.uniform(-0.3, 0.3, layer.bias.shape))


@pytest.mark.parametrize(
    ("name", "builder", "biases"),
    [
        ("ResNet50", resnet.resnet50, False),
        ("ResNet50", resnet.resnet50, True),
        ("DenseNet121", densenet.densenet121, False),
        ("VGG16", vgg.vgg16, True),
        ("VGG19", vgg.vgg19, True),
    ],
)
def test_logits_equal(name, builder, biases):
    keras.utils.set_random_seed(0)
    shape, k = (64, 96, 3), 10
    source = getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=k, classifier_activation=None
    )
    randomize(source, biases)
    model = builder(image_shape=shape, num_classes=k)
    x = np.random.default_rng(1).uniform(size=(2, *shape)).astype("float32")

    assert copy_weights(model, source) is True
    expected = source(x, training=False).numpy()
    difference = np.abs(model(x, training=False).numpy() - expected)
    assert np.abs(expected).max() > 0.1
    assert (difference / (1 + np.abs(expected).max())).max() < 1e-4

    # a BGR source answers the same on flipped images
    copy_weights(model, source, bgr=True)
    difference = np.abs(model(x[..., ::-1], training=False).numpy() - expected)
    assert (difference / (1 + np.abs(expected).max())).max() < 1e-4


@pytest.mark.parametrize("name", ["ResNet50", "VGG16", "VGG19"])
def test_input_is_caffe_mode(name):
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype("float32")
    module = getattr(keras.applications, name.lower().replace("resnet50", "resnet"))
    expected = module.preprocess_input(image.copy())[..., ::-1]  # to RGB
    mean, std = keras_applications.INPUT[name]
    np.testing.assert_allclose((image / 255 - mean) / std, expected, atol=1e-3)


def test_densenet_input_is_torch_mode():
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype("float32")
    expected = keras.applications.densenet.preprocess_input(image.copy())
    mean, std = keras_applications.INPUT["DenseNet121"]
    np.testing.assert_allclose((image / 255 - mean) / std, expected, atol=1e-5)


@pytest.fixture(scope="module")
def resnet50_source():
    return keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    )


def test_other_head_is_kept(resnet50_source):
    model = resnet.resnet50(image_shape=(32, 32, 3), num_classes=7)
    before = model.head.kernel.numpy()
    assert copy_weights(model, resnet50_source) is False
    np.testing.assert_array_equal(model.head.kernel.numpy(), before)
    theirs = resnet50_source.get_layer("conv1_conv").kernel.numpy()
    np.testing.assert_array_equal(model.backbone.stem.conv.kernel.numpy(), theirs)


def test_backbone_alone(resnet50_source):
    backbone = resnet.resnet50(image_shape=(32, 32, 3), features=True)
    assert copy_weights(backbone, resnet50_source) is False
    theirs = resnet50_source.get_layer("conv5_block3_3_conv").kernel.numpy()
    np.testing.assert_array_equal(backbone.blocks[-1].conv3.conv.kernel.numpy(), theirs)


@pytest.fixture(scope="module")
def vgg16_source():
    """With dense layers of 64 units, which `keras.applications` does not offer."""
    trunk = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 32, 3))
    x = keras.layers.Flatten(name="flatten")(trunk.output)
    for name, units in (("fc1", 64), ("fc2", 64), ("predictions", 10)):
        x = keras.layers.Dense(units, activation="relu" if units == 64 else None, name=name)(x)
    return keras.Model(trunk.input, x)


@pytest.mark.parametrize(
    ("kwargs", "assigned"),
    [
        ({}, ("fc1", "fc2", "head")),
        ({"num_classes": 7}, ("fc1", "fc2")),
        ({"image_shape": (32, 32, 3)}, ()),  # the first dense layer sees another map
    ],
)
def test_dense_layers_are_assigned_up_to_the_first_that_does_not_fit(
    vgg16_source, kwargs, assigned
):
    sizes = {"image_shape": (64, 32, 3), "num_classes": 10, "fc_dim": 64}
    model = vgg.vgg16(**{**sizes, **kwargs})
    before = {name: getattr(model, name).kernel.numpy() for name in ("fc1", "fc2", "head")}
    assert copy_weights(model, vgg16_source) is (len(assigned) == 3)
    for name, kernel in before.items():
        theirs = vgg16_source.get_layer(name.replace("head", "predictions")).kernel.numpy()
        expected = theirs.reshape(kernel.shape) if name in assigned else kernel
        np.testing.assert_array_equal(getattr(model, name).kernel.numpy(), expected)
    theirs = vgg16_source.get_layer("block5_conv3").kernel.numpy()
    np.testing.assert_array_equal(model.backbone.blocks[-1].conv.kernel.numpy(), theirs)


def test_a_vgg_alone_and_one_with_batch_norm(vgg16_source):
    backbone = vgg.vgg16(image_shape=(64, 32, 3), features=True)
    assert copy_weights(backbone, vgg16_source) is False
    for builder, message in (
        (vgg.vgg16_bn, "weights of the model and 0 of the source are left over"),
        (vgg.vgg13, "of the source are left over"),
        (vgg.vgg19, "no layer block3_conv4"),
    ):
        model = builder(image_shape=(64, 32, 3), num_classes=10, fc_dim=64)
        with pytest.raises(ValueError, match=message):
            copy_weights(model, vgg16_source)


@pytest.mark.parametrize(
    ("builder", "kwargs", "message"),
    [
        (resnet.resnet50, {"depths": (4, 1)}, "no layer conv2_block4"),
        (resnet.resnet50, {"depths": (1, 1)}, "of the source are left over"),
        (
            resnet.resnet50,
            {"image_shape": (32, 32, 1), "depths": (1,)},
            "stem/conv/kernel needs the shape",
        ),
        (resnet.resnet50, {"stride_in_3x3": True, "depths": (1, 1)}, "strides in the first 1x1"),
        (resnet.resnet18, {"depths": (1,)}, "must be a ResNet with bottlenecks"),
        (densenet.densenet_bc_40_12, {"depths": (1, 1)}, "must be a DenseNet for ImageNet"),
    ],
)
def test_other_architectures_are_refused(resnet50_source, builder, kwargs, message):
    model = builder(**{"image_shape": (32, 32, 3), "num_classes": 7, **kwargs})
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as caught:
        copy_weights(model, resnet50_source)
    assert "\n" not in str(caught.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"keras:Resnet50.*did you mean ResNet50"):
        load("Resnet50", None)


def test_failed_download_is_one_line(monkeypatch):
    def fail(weights):
        raise Exception("URL fetch failure on https://x: None -- no route\nmore")

    monkeypatch.setattr(keras.applications, "ResNet50", fail)
    with pytest.raises(
        ValueError, match="keras:ResNet50: its weights cannot be loaded: URL"
    ) as caught:
        load("ResNet50", None)
    assert "\n" not in str(caught.value)


def test_load_flips_the_stem_and_takes_the_head(resnet50_source, monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet50", lambda weights: resnet50_source)
    model = resnet.resnet50(image_shape=(32, 32, 3), num_classes=10)
    assert load("ResNet50", model) is True
    theirs = resnet50_source.get_layer("conv1_conv").kernel.numpy()
    np.testing.assert_array_equal(model.backbone.stem.conv.kernel.numpy(), theirs[:, :, ::-1])
