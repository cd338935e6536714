"""What the paper on dilated convolutions promises."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.models.segmentation import dilated


def numbers(weights):
    return sum(math.prod(w.shape) for w in weights)


def without_memory(make):
    with keras.StatelessScope(initialize_variables=False):
        made = make()
    keras.backend.clear_session()
    return made


def built(kind, **more):
    module = dilated.ContextModule(21, kind, **more)
    module.build((None, None, None, 21))
    return module


def test_sizes_of_the_paper():
    model = without_memory(dilated.dilated)
    assert numbers(model.trainable_variables) - numbers(model.context_module.weights) == 134_346_581
    assert numbers(model.context_module.weights) == 28_392
    assert model.margin == 186  # 900 pixels for 528: a map of 66x66
    dilations = [block.conv.dilation_rate for block in (*model.blocks, model.fc1)]
    assert dilations == [(1, 1)] * 10 + [(2, 2)] * 3 + [(4, 4)]
    large = without_memory(lambda: built("large"))
    channels = [layer.filters // 21 for layer in large.convs]
    assert channels == [2, 2, 4, 8, 16, 32, 32, 1]


@pytest.mark.parametrize(("dilations", "side"), [(dilated.DILATIONS, 67), ((1, 1, 2, 4, 1), 19)])
def test_receptive_field(dilations, side):
    module = dilated.ContextModule(1, dilations=dilations)
    module.build((None, None, None, 1))
    for layer in module.convs:
        layer.kernel.assign(np.ones(layer.kernel.shape))
    x = tf.ones((1, 81, 81, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        center = module(x)[0, 40, 40, 0]
    rows, columns = np.nonzero(np.asarray(tape.gradient(center, x))[0, ..., 0])
    reach = side // 2
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (40 - reach, 40 + reach)


def test_the_basic_module_starts_as_the_identity(rng):
    x = rng.random((2, 9, 12, 21), np.float32)
    np.testing.assert_allclose(built("basic")(x), x, atol=1e-6)
    np.testing.assert_allclose(built("basic")(-x), 0 * x)  # its ReLUs


@pytest.mark.parametrize("dilations", [dilated.DILATIONS, (1, 2)])
def test_the_large_module_starts_as_the_identity(dilations, rng):
    """Equation 5; the noise that breaks ties is small."""
    module = built("large", dilations=dilations)
    x = rng.random((1, 6, 5, 21), np.float32)
    answer = np.asarray(module(x))
    np.testing.assert_allclose(answer, x, atol=0.1)
    assert np.abs(answer - x).max() > 0
    for layer in module.convs:  # without it exactly
        kernel = np.asarray(layer.kernel)
        layer.kernel.assign(np.where(np.abs(kernel) < 0.5 * kernel.max(), 0, kernel))
    np.testing.assert_allclose(module(x), x, atol=1e-5)


def test_a_dilated_front_end_sees_what_pooling_would(rng):
    """At every second place it is the front-end with the pooling, as section 4 says."""
    sizes = {"stages": ((4,), (5,)), "fc_dim": 6, "window": 3, "context": "none"}
    sizes |= {"padding": "valid", "norm": False, "drop_rate": 0.0}
    pooled = dilated.dilated_small((48, 48, 1), 3, poolings=2, **sizes)
    dense = dilated.dilated_small((48, 48, 1), 3, poolings=1, **sizes)
    for a, b in zip(
        dense.blocks + [dense.fc1, dense.fc2], pooled.blocks + [pooled.fc1, pooled.fc2], strict=True
    ):
        a.set_weights(b.get_weights())
    dense.head.set_weights(pooled.head.get_weights())
    x = rng.random((1, 50, 46, 1), np.float32)
    fine = np.asarray(_unpooled(dense, x))
    coarse = np.asarray(pooled.front_end(x))
    np.testing.assert_allclose(
        fine[:, ::2, ::2][:, : coarse.shape[1], : coarse.shape[2]], coarse, atol=1e-5
    )


def _unpooled(model, x):
    """The front-end with max pooling at stride 1 where its pooling was taken away."""
    x = keras.ops.max_pool(model.blocks[0](x), 2, 2)
    x = keras.ops.max_pool(model.blocks[1](x), 2, 1)
    return model.head(model.fc2(model.fc1(x)))


@pytest.mark.parametrize("size", [(48, 48), (50, 37)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_images_of_any_size(size, padding, rng):
    model = dilated.dilated_small(stages=((4,), (5,)), fc_dim=6, padding=padding)
    assert model(rng.random((2, *size, 1), np.float32)).shape == (2, *size, 11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"poolings": 4}, "poolings 4: must be 0 to 3"),
        ({"context": "huge"}, "context 'huge': not one of none, basic, large"),
        ({"dilations": ()}, "must be 1 to 7 numbers"),
        ({"image_shape": (20, 48, 1), "padding": "valid"}, "at least"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dilated.dilated_small(**arguments)
