"""Every public layer of `kerasdl.layers`: shapes, config, precision, gradients."""

import importlib
import inspect
import pkgutil
from pathlib import Path

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
    "attention.CrossAttention": [({"num_heads": 2, "drop_rate": 0.1}, (5, 6))],
    "attention.SelfAttention": [
        ({"num_heads": 2, "drop_rate": 0.1, "project_bias": False}, (5, 6)),
        (
            {
                "num_heads": 4,
                "num_kv_heads": 2,
                "causal": True,
                "rotary": True,
                "use_bias": False,
                "stddevs": (0.2, 0.1),
            },
            (5, 8),
        ),
        ({"num_heads": 3, "head_dim": 4, "rotary": True, "theta": 50.0}, (5, 8)),
    ],
    "core.BatchNorm": [({"momentum": 0.8, "epsilon": 1e-4}, (4, 6))],
    "core.Conv": [
        ({"filters": 7, "kernel_size": 5, "strides": 2, "use_bias": False}, (8, 9, 3)),
        ({"filters": 7}, (8, 9, 3)),
        ({"filters": 6, "groups": 3, "strides": 2}, (8, 9, 3)),
    ],
    "core.ConvNorm": [
        ({"filters": 7, "kernel_size": 5, "stride": 2, "activation": "relu"}, (8, 9, 3)),
        ({"filters": 7, "kernel_size": 1}, (8, 9, 3)),
    ],
    "core.Normalize": [({"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}, (4, 4, 3))],
    "dropout.Dropout": [({"rate": 0.3, "seed": 5}, (4, 6))],
    "dropout.DropPath": [({"rate": 0.3, "seed": 5}, (4, 6))],
    "mlp.Dense": [({"units": 7}, (5, 6)), ({"units": 7}, (6,)), ({"units": 7}, (2, 5, 6))],
    "mlp.MLP": [
        ({"hidden_dim": 9, "activation": "prelu", "drop_rate": 0.1}, (5, 6)),
        ({"hidden_dim": 9, "activation": "gelu_tanh", "stddevs": (0.2, 0.1)}, (5, 6)),
        ({"hidden_dim": 9, "activation": "quick_gelu", "use_bias": False}, (5, 6)),
    ],
    "mlp.SwiGLU": [
        ({"hidden_dim": 9, "stddevs": (0.2, 0.1)}, (5, 6)),
        ({"hidden_dim": 9, "use_bias": True, "activation": "gelu"}, (5, 6)),
    ],
    "moe.MixtureOfExperts": [
        ({"num_experts": 4, "hidden_dim": 9, "top_k": 3, "stddevs": (0.2, 0.1)}, (5, 6)),
        ({"num_experts": 3, "hidden_dim": 7, "activation": "gelu_tanh"}, (5, 6)),
    ],
    "minibatch.MinibatchStd": [({"momentum": 0.8}, (4, 6))],
    "norm.GroupNorm": [({"groups": 3, "epsilon": 1e-4}, (4, 4, 6))],
    "norm.LayerScale": [({"init": 0.3}, (5, 6))],
    "norm.LocalResponseNorm": [({"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}, (4, 4, 6))],
    "norm.RMSNorm": [({"epsilon": 1e-4}, (5, 6))],
    "position.GridPosition": [
        ({"height": 2, "width": 3, "prefix": 2}, (8, 6)),
        ({"height": 2, "width": 3, "prefix": 0}, (6, 6)),
    ],
    "position.LearnedPosition": [({"max_length": 5}, (5, 6))],
    "position.SinusoidalGridPosition": [
        ({"height": 2, "width": 3, "prefix": 2}, (8, 8)),
        ({"height": 2, "width": 3, "prefix": 0}, (6, 8)),
    ],
    "position.SinusoidalPosition": [({}, (5, 6)), ({"halves": True}, (5, 6))],
    "recurrent.Bidirectional": [({"kind": "gru", "units": 3}, (5, 6))],
    "recurrent.GRU": [
        ({"units": 7, "reset_after": False, "reverse": True, "truncate": 3}, (5, 6)),
        ({"units": 7}, (5, 6)),
    ],
    "recurrent.LSTM": [({"units": 7, "reverse": True, "truncate": 3}, (5, 6))],
    "recurrent.RecurrentStack": [
        (
            {
                "kind": "lstm",
                "units": 3,
                "num_layers": 2,
                "drop_rate": 0.1,
                "bidirectional": True,
            },
            (5, 6),
        ),
    ],
    "recurrent.SimpleRNN": [({"units": 7, "reverse": True, "truncate": 3}, (5, 6))],
    "transformer.DecoderBlock": [
        ({"num_heads": 2, "mlp_dim": 9, "drop_rate": 0.1, "prenorm": True}, (5, 6)),
        ({"num_heads": 2, "mlp_dim": 9, "activation": "gelu", "epsilon": 1e-5}, (5, 6)),
    ],
    "transformer.EncoderBlock": [
        ({"num_heads": 2, "mlp_dim": 9, "drop_rate": 0.1, "prenorm": True}, (5, 6)),
        ({"num_heads": 2, "mlp_dim": 9, "activation": "gelu", "epsilon": 1e-5}, (5, 6)),
    ],
    "transformer.TokenEmbedding": [({"vocab_size": 7, "dim": 6, "stddev": 0.3}, (5,))],
}
# What is no layer to call by itself, and the module below tests/ that covers it.
OTHERS = {
    "remat.Block": "training/test_remat.py",
    "transformer.ResidualBlock": "models/test_transformer.py",
}
WITH_MEMORY = ("attention.CrossAttention", "transformer.DecoderBlock")  # they take two sequences
OF_INTEGERS = ("transformer.TokenEmbedding",)


def public_layers():
    """`{"module.Class": class}` of what `kerasdl.layers` defines; models are tested elsewhere."""
    result = {}
    for info in pkgutil.walk_packages(kerasdl.layers.__path__, "kerasdl.layers."):
        module = importlib.import_module(info.name)
        for name, cls in inspect.getmembers(module, inspect.isclass):
            ours = cls.__module__ == info.name and not name.startswith("_")
            if ours and issubclass(cls, keras.Layer) and not issubclass(cls, keras.Model):
                result[f"{info.name.removeprefix('kerasdl.layers.')}.{name}"] = cls
    return result


LAYERS = public_layers()
every_layer = pytest.mark.parametrize(
    ("path", "arguments", "shape"),
    [
        pytest.param(path, arguments, shape, id=f"{path}-{i}")
        for path, cases in CASES.items()
        for i, (arguments, shape) in enumerate(cases)
    ],
)


def example(path, shape, rng):
    """Three examples for a layer."""
    if path in OF_INTEGERS:
        return rng.integers(0, 7, (3, *shape)).astype("int32")
    return rng.normal(size=(3, *shape)).astype("float32")


def answer_of(path, layer, x, **kwargs):
    """What a layer says to `x`, also as its own memory; the first tensor of several."""
    more = (x,) if path in WITH_MEMORY else ()
    return keras.tree.flatten(layer(x, *more, **kwargs))[0]


def test_no_layer_is_missing_here():
    assert sorted([*CASES, *OTHERS]) == sorted(LAYERS)
    for module in OTHERS.values():
        assert (Path(__file__).parent / module).exists()


@every_layer
def test_symbolic_shape_is_that_of_the_answer(path, arguments, shape, rng):
    layer = LAYERS[path](**arguments)
    x = example(path, shape, rng)
    symbolic = answer_of(path, layer, keras.Input(shape, dtype=x.dtype.name)).shape
    answer = answer_of(path, layer, x)
    assert symbolic[0] is None
    assert tuple(symbolic[1:]) == tuple(answer.shape[1:])
    assert answer.shape[0] == 3


@every_layer
def test_config_makes_the_same_layer(path, arguments, shape, rng):
    layer = LAYERS[path](**arguments)
    x = example(path, shape, rng)
    again = LAYERS[path].from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    expected = answer_of(path, layer, x)
    assert again.get_config() == layer.get_config()
    answer_of(path, again, x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(answer_of(path, again, x), expected)
    for name, value in arguments.items():
        # Keras writes one number for both axes as a pair.
        assert layer.get_config()[name] in (value, (value, value)), name


@every_layer
def test_mixed_precision_runs(path, arguments, shape, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = LAYERS[path](**arguments)
    y = answer_of(path, layer, example(path, shape, rng), **training(layer))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert np.isfinite(np.asarray(y, "float32")).all()
    assert {w.dtype for w in layer.trainable_weights} <= {"float32"}


@every_layer
def test_every_weight_has_a_gradient(path, arguments, shape, rng):
    layer = LAYERS[path](**arguments)
    x = example(path, shape, rng)
    answer_of(path, layer, x)
    with tf.GradientTape() as tape:
        y = answer_of(path, layer, x, **training(layer))
        # A weighted sum: the plain one of a normalized answer has no gradient.
        total = keras.ops.sum(y * rng.normal(size=y.shape))
    for weight, gradient in zip(
        layer.trainable_weights,
        tape.gradient(total, [w.value for w in layer.trainable_weights]),
        strict=True,
    ):
        assert gradient is not None, weight.path
        if weight.path.endswith("key/bias"):
            continue  # the same shift of all keys leaves the softmax alone
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def training(layer):
    """`{"training": True}` where the layer takes it."""
    takes = "training" in inspect.signature(layer.call).parameters
    return {"training": True} if takes else {}


def test_replicas_drop_other_numbers():
    from kerasdl.layers.dropout import replica

    masks = []
    for number in (0, 1, 1):
        layer = LAYERS["dropout.Dropout"](0.5, seed=3)
        with replica(tf.constant(number)):
            masks.append(np.asarray(layer(np.ones((4, 50), "float32"), training=True)))
    assert not np.array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[1], masks[2])
