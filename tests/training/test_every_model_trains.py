"""Every kind of model in the loop: metrics, an exact stop and resume, replicas."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kerasdl.inference import evaluation
from kerasdl.ops.text import PAD
from kerasdl.training import loop
from tests.test_every_model import BATTERY
from tests.training.battery import Losses, session
from tests.training.processes import run_script

SCRIPT = Path(__file__).with_name("battery.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", BATTERY)
def test_two_steps_a_stop_and_two_steps_are_four_steps(name, tmp_path):
    whole = session(name, tmp_path / "whole")
    whole.fit()
    stopped = session(name, tmp_path / "parts", [Losses(stop_at=2)], checkpoint_steps=2)
    with pytest.raises(loop.Stopped):
        stopped.fit()
    assert stopped.loop.step == 2
    parts = session(name, tmp_path / "parts")
    parts.fit()
    a, b = whole.loop.weights(), parts.loop.weights()
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    assert parts.loop.history == whole.loop.history
    assert set(whole.task.summarize(dict.fromkeys(whole.trainer.names, 1.0), "train")) < set(
        whole.loop.history[0]
    )
    model, task = parts.run.restore("last")
    batches, _ = parts.evaluation(parts.source.test)
    metrics, result = evaluation.evaluate(model, task, batches)
    assert set(task.metrics) <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    if "confusion" in result:
        assert np.sum(result["confusion"]) == 64  # limit_batches applies
    assert_pictures(task, model, next(iter(batches)))


@pytest.mark.slow
def test_the_same_step_in_every_session(tmp_path):
    def weights(number):  # overlapping pooling beside convolutions
        made = session("googlenet", tmp_path / str(number), limit_batches=1)
        made.fit()
        return made.loop.weights()

    first = weights(0)
    for number in range(1, 7):
        again = weights(number)
        assert all((first[k] == again[k]).all() for k in first), number


def assert_pictures(task, model, batch):
    """What a task shows are images in [0, 1], or ids of its vocabulary."""
    for name, value in task.pictures(model, task.prepare(batch)).items():
        value = np.asarray(value)
        if value.dtype.kind == "i":
            assert value.ndim == 2 and 0 <= value.min() and value.max() < task.info.vocab_size
            assert (value != PAD).any(), name
        else:
            assert value.ndim in (4, 5) and 0 <= value.min() and value.max() <= 1, name


@pytest.mark.slow
def test_two_replicas_equal_one_device_in_float64(tmp_path):
    def run(name):
        return run_script(SCRIPT, name, out=tmp_path / f"{name}.npz", seconds=1500)

    # Side by side: most of the time is tracing, which takes one core.
    with ThreadPoolExecutor() as pool:
        (status, one), (other, two) = pool.map(run, ("one_device", "mirrored"))
    assert status == 0, one
    assert other == 0, two
    assert one.keys() == two.keys() and len(one) > 10 * len(BATTERY)
    apart = {k: np.abs(one[k] - two[k]).max() for k in one if "seed_generator" not in k}
    assert {k: v for k, v in apart.items() if v > 1e-9} == {}
