"""What the recurrent classifiers promise: they read rows, in order, and end with their state."""

import numpy as np
import pytest

from kerasdl.models.sequence import rnn_classifier as rows
from kerasdl.models.sequence.rnn_classifier import (
    bilstm_classifier,
    gru_classifier,
    lstm_classifier,
)

NAMES = sorted(rows.TINY)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_follow_units_and_layers(name):
    gates = {"rnn": 1, "lstm": 4, "gru": 3, "bilstm": 4}[name.split("_")[0]]
    extra = 3 * 10 if name == "gru_classifier" else 0  # the GRU's second bias
    both = 2 if name == "bilstm_classifier" else 1
    model = getattr(rows, name)((8, 6, 2), 5, units=10, num_layers=2)
    layers = [gates * 10 * (d + 10 + 1) + extra for d in (12, 10 * both)]
    assert model.count_params() == both * sum(layers) + (10 * both + 1) * 5


def test_one_row_is_one_step(rng):
    """The last row reaches the state after the last step only; the first, all of them."""
    backbone = lstm_classifier((5, 4, 3), 7, units=6, features=True)
    x = rng.random((2, 5, 4, 3)).astype("float32")
    before = np.asarray(backbone(x)["stage1"])
    assert before.shape == (2, 5, 6)
    for row in range(5):
        changed = x.copy()
        changed[:, row] += 0.5
        moved = np.abs(np.asarray(backbone(changed)["stage1"]) - before).max(axis=(0, 2)) > 0
        np.testing.assert_array_equal(moved, np.arange(5) >= row)


def test_the_head_sees_the_end_of_each_direction(rng):
    x = rng.random((2, 5, 4, 1)).astype("float32")
    features = gru_classifier((5, 4, 1), 7, units=6, num_layers=2, features=True)(x)
    np.testing.assert_array_equal(features["final"], features["stage1"][:, -1])
    backbone = bilstm_classifier((5, 4, 1), 7, units=6, features=True)
    features = backbone(x)
    np.testing.assert_array_equal(features["final"][:, :6], features["stage1"][:, -1, :6])
    np.testing.assert_array_equal(features["final"][:, 6:], features["stage1"][:, 0, 6:])
    assert backbone.channels == {"stage1": 12}


def test_any_sequence_is_an_image_of_one_channel(rng):
    sequence = rng.normal(size=(2, 9, 5)).astype("float32")
    model = lstm_classifier((9, 5, 1), 3, units=4)
    layer = model.backbone.stage1.rnns[0]
    _, state = layer(sequence)
    np.testing.assert_allclose(model(sequence[..., None]), model.head(state[0]), atol=1e-6)


def test_channels_are_normalized_before_rows_are_read(rng):
    x = rng.random((2, 5, 4, 3)).astype("float32")
    plain = lstm_classifier((5, 4, 3), 7, units=6)
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    scaled = lstm_classifier((5, 4, 3), 7, units=6, input_mean=mean, input_std=std)
    scaled.set_weights(plain.get_weights())
    moved = x * np.float32(std) + np.float32(mean)
    np.testing.assert_allclose(scaled(moved), plain(x), atol=1e-5)


def test_dropout_acts_in_training_only(rng):
    model = lstm_classifier((5, 4, 1), 3, drop_rate=0.5)
    x = rng.random((2, 5, 4, 1)).astype("float32")
    np.testing.assert_array_equal(model(x), model(x))
    assert np.abs(model(x, training=True) - model(x)).max() > 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="did you mean num_layers"):
        lstm_classifier((8, 8, 1), 10, num_layer=2)
    with pytest.raises(ValueError, match="units 0"):
        lstm_classifier((8, 8, 1), 10, units=0)
    with pytest.raises(ValueError, match="not one of rnn, lstm, gru"):
        lstm_classifier((8, 8, 1), 10, kind="lstn")
    with pytest.raises(ValueError, match="height, width, channels"):
        lstm_classifier((8, 8), 10)
