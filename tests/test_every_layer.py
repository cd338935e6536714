"""Every public layer of `kerasdl.layers`: shapes, config, precision, gradients."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasdl.layers

# "module.Class": (constructor arguments, input shape without the batch), ...
CASES = {
    "activation.Activation": [({"function": "gelu"}, (4, 6)), ({"function": "elu"}, (5, 4, 6))],
    "activation.Maxout": [({"pieces": 3}, (4, 6))],
    "activation.PReLU": [({}, (4, 6)), ({}, (5, 4, 6))],
    "attention.SelfAttention": [({"num_heads": 2, "drop_rate": 0.1}, (5, 6))],
    "core.BatchNorm": [({"momentum": 0.8, "epsilon": 1e-4}, (4, 6))],
    "core.Conv": [
        ({"filters": 7, "kernel_size": 5, "strides": 2, "use_bias": False}, (8, 9, 3)),
        ({"filters": 7}, (8, 9, 3)),
    ],
    "core.ConvNorm": [
        ({"filters": 7, "kernel_size": 5, "stride": 2, "activation": "relu"}, (8, 9, 3)),
        ({"filters": 7, "kernel_size": 1}, (8, 9, 3)),
    ],
    "core.Normalize": [({"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}, (4, 4, 3))],
    "dropout.Dropout": [({"rate": 0.3, "seed": 5}, (4, 6))],
    "dropout.DropPath": [({"rate": 0.3, "seed": 5}, (4, 6))],
    "mlp.MLP": [({"hidden_dim": 9, "activation": "prelu", "drop_rate": 0.1}, (5, 6))],
    "norm.LocalResponseNorm": [({"size": 3, "alpha": 0.1, "beta": 0.5}, (4, 4, 6))],
    "position.GridPosition": [
        ({"height": 2, "width": 3, "prefix": 2}, (8, 6)),
        ({"height": 2, "width": 3, "prefix": 0}, (6, 6)),
    ],
}


def public_layers():
    """`{"module.Class": class}` of what `kerasdl.layers` defines; models are tested elsewhere."""
    found = {}
    for info in pkgutil.walk_packages(kerasdl.layers.__path__, "kerasdl.layers."):
        module = importlib.import_module(info.name)
        for name, cls in inspect.getmembers(module, inspect.isclass):
            ours = cls.__module__ == info.name and not name.startswith("_")
            if ours and issubclass(cls, keras.Layer) and not issubclass(cls, keras.Model):
                found[f"{info.name.removeprefix('kerasdl.layers.')}.{name}"] = cls
    return found


LAYERS = public_layers()
every_layer = pytest.mark.parametrize(
    ("path", "arguments", "shape"),
    [
        pytest.param(path, arguments, shape, id=f"{path}-{i}")
        for path, cases in CASES.items()
        for i, (arguments, shape) in enumerate(cases)
    ],
)


def test_no_layer_is_missing_here():
    assert sorted(CASES) == sorted(LAYERS)


@every_layer
def test_symbolic_shape_is_that_of_the_answer(path, arguments, shape):
    layer = LAYERS[path](**arguments)
    symbolic = layer(keras.Input(shape)).shape
    answer = layer(np.ones((3, *shape), "float32")).shape
    assert symbolic[0] is None
    assert tuple(symbolic[1:]) == tuple(answer[1:])
    assert answer[0] == 3


@every_layer
def test_config_makes_the_same_layer(path, arguments, shape, rng):
    layer = LAYERS[path](**arguments)
    x = rng.normal(size=(3, *shape)).astype("float32")
    again = LAYERS[path].from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    expected = layer(x)
    assert again.get_config() == layer.get_config()
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), expected)
    for name, value in arguments.items():
        # Keras writes one number for both axes as a pair.
        assert layer.get_config()[name] in (value, (value, value)), name


@every_layer
def test_mixed_precision_runs(path, arguments, shape):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = LAYERS[path](**arguments)
    y = layer(np.ones((3, *shape), "float32"), **training(layer))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {w.dtype for w in layer.trainable_weights} <= {"float32"}


@every_layer
def test_every_weight_has_a_gradient(path, arguments, shape, rng):
    layer = LAYERS[path](**arguments)
    x = rng.normal(size=(3, *shape)).astype("float32")
    layer(x)
    with tf.GradientTape() as tape:
        y = layer(x, **training(layer))
        # A weighted sum: the plain one of a normalised answer has no gradient.
        total = keras.ops.sum(y * rng.normal(size=y.shape))
    for weight, gradient in zip(
        layer.trainable_weights,
        tape.gradient(total, [w.value for w in layer.trainable_weights]),
        strict=True,
    ):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 0, weight.path


def training(layer):
    """`{"training": True}` where the layer takes it."""
    takes = "training" in inspect.signature(layer.call).parameters
    return {"training": True} if takes else {}


def test_self_attention_looks_only_where_the_mask_is_true(rng):
    layer = LAYERS["attention.SelfAttention"](num_heads=2)
    x = rng.normal(size=(2, 5, 6)).astype("float32")
    mask = np.tril(np.ones((5, 5), bool))
    y, weights = layer(x, attention_mask=mask, return_weights=True)
    assert np.abs(np.asarray(weights)[:, :, ~mask]).max() == 0
    np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, rtol=1e-6)
    x[:, 3:] += 1
    changed = layer(x, attention_mask=mask)
    np.testing.assert_allclose(changed[:, :3], y[:, :3], atol=1e-6)


def test_self_attention_equals_that_of_keras(rng):
    """Keras keeps the three projections apart; ours stand side by side in one kernel."""
    ours = LAYERS["attention.SelfAttention"](num_heads=2)
    theirs = keras.layers.MultiHeadAttention(2, 3)
    x = rng.normal(size=(2, 5, 6)).astype("float32")
    ours(x), theirs(x, x)
    qkv, bias, out, out_bias = (rng.normal(size=w.shape) for w in ours.weights)
    ours.set_weights([qkv, bias, out, out_bias])
    parts = []
    for kernel, b in zip(np.split(qkv, 3, -1), np.split(bias, 3), strict=True):
        parts += [kernel.reshape(6, 2, 3), b.reshape(2, 3)]
    theirs.set_weights([*parts, out.reshape(2, 3, 6), out_bias])
    np.testing.assert_allclose(ours(x), theirs(x, x), atol=1e-4)


def test_self_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="num_heads 4: it must divide the 6 channels"):
        LAYERS["attention.SelfAttention"](num_heads=4)(np.ones((1, 5, 6), "float32"))


def test_replicas_drop_other_numbers():
    from kerasdl.layers.dropout import replica

    masks = []
    for number in (0, 1, 1):
        layer = LAYERS["dropout.Dropout"](0.5, seed=3)
        with replica(tf.constant(number)):
            masks.append(np.asarray(layer(np.ones((4, 50), "float32"), training=True)))
    assert not np.array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[1], masks[2])
