"""What only the diffusion U-Net promises."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl import create_model
from kerasdl.models.generative import ddpm
from kerasdl.models.generative.ddpm import TINY


def inputs(count=2, labels=None, side=8, channels=2):
    rng = np.random.default_rng(0)
    x = {"image": rng.standard_normal((count, side, side, channels)).astype("float32")}
    x["time"] = rng.random(count).astype("float32")
    return x if labels is None else {**x, "label": np.array(labels, "int32")}


def awake(name, **kwargs):
    """A tiny model whose zero kernels are zero no more."""
    model = create_model(name, **{**TINY[name], **kwargs})
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    return model


def test_at_first_it_predicts_nothing():
    model = create_model("ddpm_unet", **TINY["ddpm_unet"])
    np.testing.assert_array_equal(model(inputs()), 0.0)


@pytest.mark.parametrize("part", ["image", "time", "label"])
def test_every_input_counts(part):
    model = awake("ddpm_unet_small")
    x = inputs(2, [0, 1])
    other = dict(x)
    other[part] = x[part][::-1].copy()
    assert np.abs(np.asarray(model(x) - model(other))).max() > 1e-3


def test_examples_do_not_see_each_other():
    model = awake("ddpm_unet_small")
    x = inputs(3, [0, 1, 3])
    whole = np.asarray(model(x))
    for i in range(3):
        alone = model({k: v[i : i + 1] for k, v in x.items()})
        np.testing.assert_allclose(alone, whole[i : i + 1], atol=1e-5)


def test_no_class_is_a_class_of_its_own():
    model = awake("ddpm_unet_small")
    result = [np.asarray(model(inputs(1, [k]))) for k in range(4)]  # 3 classes, and none
    for i in range(4):
        for j in range(i):
            assert np.abs(result[i] - result[j]).max() > 1e-4


def test_time_embedding_is_the_papers():
    result = np.asarray(ddpm.time_embedding(ops.convert_to_tensor([0.0, 7.0]), 8))
    rates = np.exp(-np.log(10000) * np.arange(4) / 3)
    np.testing.assert_allclose(result[0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(result[1], [*np.sin(7 * rates), *np.cos(7 * rates)], atol=1e-6)


@pytest.mark.parametrize("side", [8, 16, 28, 32])
def test_the_small_one_takes_8_to_32_pixels(side):
    with keras.StatelessScope(initialize_variables=False):
        model = create_model("ddpm_unet_small", image_shape=(side, side, 1))
        assert model.compute_output_spec(model.symbolic_inputs()).shape == (None, side, side, 1)
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"image_shape": (30, 32, 1)}, "be a multiple of 4; the nearest to 30 are 28 and 32"),
        ({"image_shape": (8, 3, 1)}, "the nearest to 3 are 4"),
        ({"image_shape": (8, 8)}, "height, width, channels"),
        ({"dim": 7}, "dim 7: must be even"),
        ({"depth": 0}, "depth 0"),
        ({"attention_levels": (3,)}, "attention_levels 3: must be at least 0 and at most 2"),
        ({"filters": 3}, "no argument 'filters'"),
    ],
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        create_model("ddpm_unet_small", **kwargs)


def test_a_label_where_none_is_taken_and_the_other_way_round():
    with pytest.raises(ValueError, match="takes no label"):
        create_model("ddpm_unet", **TINY["ddpm_unet"])(inputs(2, [0, 1]))
    with pytest.raises(ValueError, match="needs a label"):
        create_model("ddpm_unet_small", **TINY["ddpm_unet_small"])(inputs())
