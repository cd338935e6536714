"""Losses and metrics of a whole set are the same on one device, two replicas and two workers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.training.processes import WORKERS, run_script, run_two

SCRIPT = Path(__file__).with_name("whole_set.py")
METRICS = {
    "unet_small": ("val_mean_iou", "val_pixel_accuracy", "loss"),
    "simclr_small": ("val_knn_top1", "val_linear_probe_top1", "val_contrast_top1", "loss"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one device, two replicas, and each of two workers wrote."""
    folder = tmp_path_factory.mktemp("whole_set")

    def alone(strategy):
        return run_script(SCRIPT, strategy, out=folder / f"{strategy}.npz")

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(alone, ("one_device", "mirrored")))
    outcomes += run_two(SCRIPT, WORKERS, out=folder / "workers.npz")
    for status, result in outcomes:
        assert status == 0, result
    return [result for _, result in outcomes]


@pytest.mark.slow
@pytest.mark.parametrize("other", [1, 2, 3])
def test_all_strategies_agree_in_float64(results, other):
    one, two = results[0], results[other]
    assert one.keys() == two.keys()
    apart = {k: np.abs(one[k] - two[k]).max() for k in one if "seed_generator" not in k}
    assert {k: v for k, v in apart.items() if not v <= 1e-9} == {}


@pytest.mark.slow
def test_evaluators_ran_after_each_epoch(results):
    for name, metrics in METRICS.items():
        for epoch in (1, 2):
            for metric in metrics:
                assert np.isfinite(results[0][f"{name}/{epoch}/{metric}"])
