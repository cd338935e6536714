"""Receptive fields from a graph are what gradients reach."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.report import architecture, receptive
from kerasdl.store.weightless import no_weights

SIDE = 65


def by_gradient(model):
    """Height and width of the pixels that the middle of the last map depends on."""
    for weight in model.weights:
        weight.assign(tf.ones_like(weight) * 0.1)
    x = tf.random.stateless_uniform((1, SIDE, SIDE, 1), (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
        middle = y[0, y.shape[1] // 2, y.shape[2] // 2, 0]
    seen = np.argwhere(tape.gradient(middle, x)[0, ..., 0].numpy())
    return tuple((seen.max(0) - seen.min(0) + 1).tolist())


CHAINS = {
    "three 3x3": [layers.Conv2D(2, 3)] * 3,
    "strides": [layers.Conv2D(2, 3, 2), layers.AveragePooling2D((2, 3)), layers.Conv2D(2, 5)],
    "dilated": [layers.Conv2D(2, 3, dilation_rate=d) for d in (1, 1, 2, 4, 8)],
    "depthwise": [layers.DepthwiseConv2D((3, 5)), layers.Conv2D(1, 1)],
    "up": [layers.Conv2D(2, 3, 2), layers.Conv2DTranspose(2, 4, 2)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_what_the_gradient_reaches(name):
    chain = [type(layer).from_config(layer.get_config()) for layer in CHAINS[name]]
    for i, layer in enumerate(chain):
        layer.name = f"layer{i}"
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *chain])
    blocks, _ = architecture.layer_table(_alone(model))
    field = [b for b in blocks if b.field][-1].field
    assert field == by_gradient(model)
    if name == "three 3x3":
        assert field == (7, 7)


def _alone(model):
    """A copy with its input, as models of the catalogue say it."""
    copy = keras.models.clone_model(model)
    copy.symbolic_inputs = lambda: keras.Input((SIDE, SIDE, 1))
    return copy


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [
        ("resnet50", "backbone/stage5_block3", (483, 483)),  # stride in the first 1x1
        ("resnet20", "backbone/stem", (3, 3)),
        ("vit_ti16", "backbone/tokens", (16, 16)),
        ("vit_ti16", "backbone/block1", (math.inf, math.inf)),
        ("resnet20", "head", (math.inf, math.inf)),
    ],
)
def test_of_the_papers(name, path, field):
    with no_weights():
        blocks, _ = architecture.layer_table(catalog.build(name))
    assert {b.path: b.field for b in blocks}[path] == field


def test_the_effective_field_of_equal_kernels_is_known():
    """n kernels of ones: the gradient is the n-fold convolution of a box, and so is what counts."""
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1))])
    for _ in range(6):
        model.add(layers.Conv2D(1, 3, padding="same", use_bias=False, kernel_initializer="ones"))
    line = np.ones(1)
    for _ in range(6):
        line = np.convolve(line, np.ones(3))
    plane = np.outer(line, line)
    right = np.sqrt((plane > 0.0455 * plane.max()).sum())
    found = receptive.effective(lambda x: {"all": model(x)}, (SIDE, SIDE, 1), examples=2)
    assert found == {"all": pytest.approx(right)} and right < 13  # the field


def test_the_effective_field_grows_and_is_smaller_than_the_field():
    with no_weights():
        blocks, _ = architecture.layer_table(catalog.build("resnet20"))
    keras.utils.set_random_seed(0)
    found = architecture.effective_fields(catalog.build("resnet20"), (32, 32, 3))
    sides = [found[f"backbone/{part}"] for part in ("stem", "stage1_block3", "stage2_block1")]
    assert sides == sorted(sides) and sides[0] == 3 and "head" not in found
    fields = {b.path: b.field[0] for b in blocks}
    assert all(side <= fields[path] for path, side in found.items())
    with pytest.raises(UserError, match="--effective: gpt2_small does not take an image alone"):
        architecture.describe("gpt2_small", effective=True)
    assert "effective" in architecture.describe("resnet20", effective=True).split("Layers")[1]


def test_show_prints_it():
    text = architecture.describe("resnet20")
    assert "receptive field" in text and "81x81" in text and "the image" in text
    assert "receptive" not in architecture.describe("gpt2_small")
