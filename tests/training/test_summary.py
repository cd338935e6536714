"""What `show` prints of a model."""

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from kerasdl.layers.attention import SelfAttention
from kerasdl.layers.core import Conv
from kerasdl.models.cnn.resnet import resnet18, resnet20
from kerasdl.report import architecture
from kerasdl.store.weightless import no_weights


def test_resnet20():
    text = architecture.describe("resnet20")
    lines = text.splitlines()
    assert lines[0] == "resnet20 (He et al. 2015)"
    for part in ("https://arxiv.org/abs/1512.03385", "Differs:", "269,722 trainable", "1,376 not"):
        assert part in text
    assert "40.6 M for one 32x32x3 image" in text
    assert any(line.split() == ["depths", "(3,", "3,", "3)"] for line in lines)
    assert any(line.split()[:2] == ["--augment", "shift"] for line in lines if line)
    block = next(line for line in lines if "stage2_block1" in line)
    assert block.split() == ["backbone/stage2_block1", "16x16x32", "14,080", "3.54", "M", "21x21"]
    assert lines[-1].split() == ["head", "10", "650", "640", "the", "image"]


def test_it_leaves_no_weights_to_be_made():
    def waiting():
        return len(global_state.get_global_attribute("uninitialized_variables") or [])

    before = waiting()
    architecture.describe("resnet20")
    assert waiting() == before


def test_image_size():
    assert "for one 40x24x3 image" in architecture.describe("resnet20", [40, 24])
    assert "for one 24x24x3 image" in architecture.describe("resnet20", 24)
    with pytest.raises(ValueError, match="--image-size 1 2 3"):
        architecture.describe("resnet20", [1, 2, 3])
    with pytest.raises(ValueError, match="image_shape"):
        architecture.describe("resnet20", [2])
    with pytest.raises(ValueError, match="unknown model"):
        architecture.describe("resnet21")


def test_multiply_adds_of_the_papers():
    # 3x3 convolutions of the three stages, the stem and the dense layer, counted by hand
    by_hand = 32 * 32 * 27 * 16 + 6 * 1024 * 9 * 16 * 16
    by_hand += 256 * 9 * (16 * 32 + 5 * 32 * 32) + 64 * 9 * (32 * 64 + 5 * 64 * 64) + 640
    assert architecture.multiply_adds(resnet20()) == by_hand
    with no_weights():
        work = architecture.multiply_adds(resnet18())
    assert work == pytest.approx(1.8e9, rel=0.02)  # table 1


class One(keras.Model):
    """A layer on the rows of an image."""

    def __init__(self, layer, rows=False):
        super().__init__()
        self.layer = layer
        self.rows = rows

    def call(self, x, training=False):
        return self.layer(x[..., 0] if self.rows else x)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (One(Conv(6, 3, 2)), (8, 8, 4), 16 * 9 * 4 * 6),
        (One(keras.layers.Conv2D(6, 3, groups=2)), (8, 8, 4), 36 * 9 * 2 * 6),
        (One(keras.layers.DepthwiseConv2D(3)), (8, 8, 4), 36 * 9 * 4),
        (One(keras.layers.Conv2DTranspose(6, 3)), (8, 8, 4), 64 * 9 * 4 * 6),
        (One(keras.layers.EinsumDense("btd,de->bte", (None, 5))), (7, 4, 3), None),
        (One(SelfAttention(2), rows=True), (5, 6, 1), 5 * 6 * 18 + 2 * 5 * 5 * 6 + 5 * 36),
        (One(keras.layers.LSTM(4), rows=True), (5, 6, 1), "loop"),
    ],
    ids=["conv", "grouped", "depthwise", "transposed", "einsum", "attention", "loop"],
)
def test_multiply_adds_of_layers(model, shape, expected):
    if expected is None:  # EinsumDense takes three axes
        model, shape, expected = One(model.layer, rows=True), (7, 4, 1), 7 * 4 * 5
    result = architecture.multiply_adds(model, keras.Input(shape))
    assert result == (None if expected == "loop" else expected)


def test_counting_changes_no_answer(rng):
    model = resnet20(image_shape=(8, 8, 1), depths=(1,), filters=4)
    x = rng.uniform(size=(2, 8, 8, 1)).astype("float32")
    before = np.asarray(model(x))
    assert architecture.multiply_adds(model) > 0
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize(
    ("value", "text"),
    [(640, "640"), (1000, "1.00 k"), (40_551_040, "40.6 M"), (17.56e9, "17.6 G"), (1e12, "1.00 T")],
)
def test_short(value, text):
    assert architecture.short(value) == text
