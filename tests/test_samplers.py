"""Samplers on the grids of published schedulers, against states that diffusers gave."""

import json
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.recipe import Recipe
from kerasdl.tasks.denoise import Denoise
from kerasdl.weights.schedulers import from_scheduler_config

FILES = sorted((Path(__file__).parent / "goldens").glob("scheduler_*.npz"))
# What is given with a call, not in a scheduler's file.
CALLS = {"ddim_eta1": {"eta": 1.0}, "flow_euler_even": {"spacing": "trailing"}}
INFO = DataInfo.of_images((8, 8, 1), "ab")


def task_of(settings):
    return Denoise(INFO, Recipe(model="ddpm_unet_small", task_kwargs=settings))


def close(result, expected, relative=1e-4):
    error = np.abs(np.asarray(result) - expected).max()
    assert error <= relative * np.abs(expected).max(), error


def golden(path):
    """The file, the task of its scheduler's settings, and its steps."""
    file, name = np.load(path), path.stem.removeprefix("scheduler_")
    config = json.loads(str(file["config"]))
    settings = from_scheduler_config({"_class_name": config["class"], **config["init"]})
    calls = len(file["outputs/timesteps"])
    steps = (calls + 1) // 2 if settings["sampler"] == "heun" else calls
    return file, task_of({**settings, "steps": steps, **CALLS.get(name, {})})


def network(process):
    """The network of the golden files, which is told the time as a number of steps."""

    def predict(x, t):
        return 0.3 * x + 0.1 * ops.sin(1000.0 * process.network_time(t))[:, None, None, None]

    return predict


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_states_of_published_schedulers(path):
    file, task = golden(path)
    sampler, process = task.sampler, task.diffusion
    predict = network(process)

    times = sampler.times()[:-1]
    twice = np.repeat(np.arange(len(times)), 2)[1:] if sampler.name == "heun" else slice(None)
    close(1000 * process.network_time(times)[twice], file["outputs/timesteps"])
    if process.discrete:
        close(process.table()[1:, 0] ** 2, file["outputs/alphas_cumprod"])
    if "outputs/sigmas" in file:
        close(sampler.sigmas()[:-1][twice], file["outputs/sigmas"][:-1])
        assert sampler.sigmas()[-1] == 0
    first = sampler.first(ops.convert_to_tensor(file["inputs/noise"]))
    close(first, file["inputs/first_state"])
    noises = file.get("inputs/step_noises")
    states = sampler.states(predict, first, noises=noises)
    assert states.shape == file["outputs/states"].shape
    for state, expected in zip(np.asarray(states), file["outputs/states"], strict=True):
        close(state, expected)
    close(sampler.run(predict, first, noises=noises), file["outputs/states"][-1])


def test_there_are_thirteen():
    assert len(FILES) == 13
