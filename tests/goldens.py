"""Golden files: weights, inputs and outputs of other libraries' networks."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "goldens"


class Golden(NamedTuple):
    """One file's `config`, and arrays by name."""

    config: dict
    weights: dict
    checkpoint: dict
    inputs: dict
    outputs: dict


def read(name) -> Golden:
    """The golden `name`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        groups = {"weights": {}, "checkpoint": {}, "inputs": {}, "outputs": {}}
        for key in file.files:
            group, _, rest = key.partition("/")
            if group in groups:
                groups[group][rest] = file[key]
        return Golden(json.loads(str(file["config"])), **groups)


def deviation(value, golden) -> float:
    """The largest difference, relative to the golden's largest magnitude."""
    value = np.asarray(value)
    assert value.shape == golden.shape, (value.shape, golden.shape)
    return float(np.abs(value - golden).max() / np.abs(golden).max())
