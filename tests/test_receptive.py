"""Receptive fields from a graph are what gradients reach."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasdl import catalog
from kerasdl.report import architecture

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
    with architecture._no_weights():
        blocks, _ = architecture.layer_table(catalog.build(name))
    assert {b.path: b.field for b in blocks}[path] == field


def test_show_prints_it():
    text = architecture.describe("resnet20")
    assert "receptive field" in text and "81x81" in text and "the image" in text
    assert "receptive" not in architecture.describe("gpt2_small")
