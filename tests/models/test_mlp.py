"""What the perceptron promises: its activations, and its layers as features."""

import keras
import numpy as np
import pytest

from kerasdl.layers.activation import ACTIVATIONS
from kerasdl.models.cnn.mlp import mlp


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_keeps_the_scale_of_its_input(activation):
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    model = mlp((8, 8, 1), 10, dims=(128, 128), activation=activation, features=True)
    last = np.asarray(model(x)["stage2"])
    assert last.shape == (64, 128)
    assert 0.1 < np.sqrt((last**2).mean()) < 4


def test_parameters_follow_dims_and_pieces():
    def count(**kwargs):
        return mlp((8, 8, 1), 10, **kwargs).count_params()

    assert count(dims=(20,)) == 64 * 20 + 20 + 20 * 10 + 10
    assert count(dims=(20,), activation="maxout", pieces=3) == 65 * 60 + 21 * 10
    assert count(dims=(20,), activation="prelu") == count(dims=(20,)) + 20


def test_features_are_the_hidden_layers_with_unchanged_paths(rng):
    backbone = mlp((8, 8, 1), 10, dims=(20, 12), features=True)
    x = rng.random((3, 8, 8, 1), np.float32)
    assert {k: v.shape for k, v in backbone(x).items()} == {"stage1": (3, 20), "stage2": (3, 12)}
    assert backbone.channels == {"stage1": 20, "stage2": 12}
    whole = mlp((8, 8, 1), 10, dims=(20, 12))
    paths = [w.path.split("backbone/")[1] for w in backbone.weights]
    assert paths == [w.path.split("backbone/")[1] for w in whole.backbone.weights]


def test_dropout_acts_in_training_only(rng):
    model = mlp((8, 8, 1), 10, drop_rate=0.5)
    x = rng.random((3, 8, 8, 1), np.float32)
    still, moved = model(x), model(x, training=True)
    np.testing.assert_array_equal(still, model(x))
    assert np.abs(keras.ops.convert_to_numpy(still - moved)).max() > 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="did you mean relu"):
        mlp((8, 8, 1), 10, activation="rellu")
    with pytest.raises(ValueError, match="dims"):
        mlp((8, 8, 1), 10, dims=())
    with pytest.raises(ValueError, match="drop_rate"):
        mlp((8, 8, 1), 10, droprate=0.1)
