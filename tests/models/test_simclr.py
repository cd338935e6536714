"""What SimCLR's paper promises, and what a backbone by name must do."""

import json
import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn.resnet import resnet20
from kerasdl.models.selfsupervised import simclr


@pytest.fixture(scope="module")
def model():
    return simclr.simclr_small((8, 8, 1), depths=(1, 1), filters=4, hidden_dim=7, projection_dim=5)


def count(variables):
    return sum(math.prod(v.shape) for v in variables)


def test_parameters():
    with keras.StatelessScope():  # allocates nothing
        small, model = simclr.simclr_small(), simclr.simclr()
    backbone = 269_722 - 650  # resnet20 without its dense layer
    head = 2 * (64 * 64 + 64)
    assert count(small.trainable_variables) == backbone + head
    assert (count(model.weights), count(model.trainable_variables)) == (28_019_776, 27_966_656)


def test_the_tiny_variant_differs_in_every_value():
    model = simclr.simclr_small(**simclr.TINY["simclr_small"])
    assert model.get_config() == {
        **model.get_config(),
        **simclr.TINY["simclr_small"],
        "name": "simclr_small",
    }
    assert model(np.zeros((2, 8, 12, 1), "float32")).shape == (2, 6)


def test_the_head_is_two_layers_on_pooled_features(model, rng):
    x = rng.uniform(size=(3, 8, 8, 1)).astype("float32")
    maps = list(model.backbone(x).values())[-1]
    h = model.features(x)
    assert h.shape == (3, 8)
    np.testing.assert_allclose(h, np.mean(maps, axis=(1, 2)), rtol=1e-5)
    w1, b1 = model.head.hidden.get_weights()
    w2, b2 = model.head.output_layer.get_weights()
    assert w1.shape == (8, 7) and w2.shape == (7, 5)
    z = np.maximum(np.asarray(h) @ w1 + b1, 0) @ w2 + b2
    np.testing.assert_allclose(model(x), z, rtol=1e-4, atol=1e-5)


def test_weights_have_the_paths_of_a_classifier(model):
    """So that `--initial-checkpoint` finds the backbone."""
    classifier = resnet20((8, 8, 1), 10, depths=(1, 1), filters=4)
    paths = [
        [v.path.removeprefix(f"{m.name}/") for v in m.backbone.weights] for m in (model, classifier)
    ]
    assert paths[0] == paths[1]
    assert all(v.path.startswith("simclr_small/") for v in model.weights)


def test_the_hidden_layer_is_as_wide_as_the_representation():
    model = simclr.simclr_small((8, 8, 1), depths=(1, 1), filters=4)
    assert model.head.hidden.units == 8


def test_it_survives_a_file(model, rng, tmp_path):
    x = rng.uniform(size=(3, 8, 8, 1)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded.features(x), model.features(x))


def test_the_backbone_is_given_what_is_its_own():
    model = simclr.simclr_small(
        (8, 8, 3), backbone="vit_digits", depth=1, input_mean=(0.1, 0.2, 0.3)
    )
    assert model.backbone.normalize.mean == (0.1, 0.2, 0.3)
    assert model(np.zeros((2, 8, 8, 3), "float32")).shape == (2, 64)
    with pytest.raises(ValueError, match="resnet20 has no argument 'dephts'"):
        simclr.simclr_small((8, 8, 1), dephts=(1,))
    with pytest.raises(ValueError, match="resnet21"):
        simclr.simclr_small((8, 8, 1), backbone="resnet21")


def test_answers_are_wide_enough_under_mixed_precision(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = simclr.simclr_small((8, 8, 1), depths=(1,), filters=4)
    assert model(np.zeros((2, 8, 8, 1), "float32")).dtype == "float32"
