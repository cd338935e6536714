"""The U-Net of diffusers: its weights, its config, and its timesteps."""

import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.generative import ddpm
from kerasdl.ops.diffusion import Diffusion, Sampler
from kerasdl.weights.configs import Config
from kerasdl.weights.families.ddpm import FAMILIES, of_config
from kerasdl.weights.rename import to_ours, to_theirs
from tests.goldens import deviation, read

FAMILY = FAMILIES[0]
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def golden():
    return read("unet_ddpm")


@pytest.fixture(scope="module")
def model(golden):
    row, arguments = of_config(Config("it", golden.config["resolved_config"]))
    return getattr(ddpm, row)(**arguments)


def fill(model, weights):
    renamed = to_ours(FAMILY, model, weights)
    assert not renamed.missing and not renamed.left_over
    for weight in model.weights:
        path = weight.path.removeprefix(f"{model.name}/")
        if path in renamed.arrays:
            weight.assign(renamed.arrays[path])


def old_names(weights):
    for new, old in OLD.items():
        weights = {k.replace(f".{new}.", f".{old}."): v for k, v in weights.items()}
    return weights


@pytest.mark.parametrize("names", [dict, old_names])
def test_answers_are_those_of_the_library(golden, model, names):
    fill(model, names(golden.weights))
    x = np.moveaxis(golden.inputs["sample"], 1, -1)
    time = ((golden.inputs["timestep"] + 1) / 1000).astype("float32")
    given = {"image": x, "time": time}
    for name, value in (("sample", model(given)), ("middle", model.middle(given))):
        assert deviation(np.moveaxis(value, -1, 1), golden.outputs[name]) < 1e-4
    back = to_theirs(FAMILY, model)
    assert back.keys() == golden.weights.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, golden.weights[name])


def test_a_sampler_tells_the_network_the_timesteps_of_its_levels(model):
    """The timestep of the network's library is the index of the level of noise it is at."""
    sampler = Sampler(Diffusion("linear", "eps"), "ddpm", 1000)
    times = sampler.times()[:-1]
    product = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    alpha, _ = sampler.diffusion.levels(times)
    timesteps = np.arange(999, -1, -1)
    np.testing.assert_allclose(alpha**2, product[timesteps], rtol=1e-12)
    expected = model.time1(ddpm.time_embedding(timesteps.astype("float32"), model.dim))
    expected = model.time2(expected * (1 / (1 + np.exp(-np.asarray(expected)))))
    answer = model.embed({"time": times.astype("float32")})
    np.testing.assert_allclose(answer, expected, atol=2e-3)
    off = model.embed({"time": times.astype("float32") - 0.001})
    assert np.abs(np.asarray(off) - expected).max() > 0.1


def test_other_sizes_go_there_and_back(golden):
    arguments = {"image_shape": (8, 12, 2), "dim": 8, "widths": (8, 20), "depth": 3, "groups": 4}
    first, second = (ddpm.ddpm_unet(**arguments, attention_levels=(0, 1)) for _ in range(2))
    fill(second, to_theirs(FAMILY, first))
    for a, b in zip(first.trainable_weights, second.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip_sin_to_cos": True}, "flip_sin_to_cos"),
        ({"freq_shift": 0}, "freq_shift"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
        ({"attention_head_dim": 8}, "attention_head_dim is 8"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "'SkipDownBlock2D'"),
        ({"up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}, "up_block_types"),
        ({"sample_size": [16, "12"]}, "sample_size cannot be"),
        ({"sample_size": [16]}, "sample_size cannot be"),
        ({"out_channels": 6}, "out_channels must be in_channels 3"),
    ],
)
def test_options_that_are_not_ours_are_refused_by_name(golden, change, message):
    with pytest.raises(UserError, match=message):
        of_config(Config("it", {**golden.config["resolved_config"], **change}))
