"""Every kind of model in the loop: gradients, learning, an exact stop and resume, replicas."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.ops.text import PAD
from kerasdl.training import loop
from tests.training.battery import CUT, REPLICAS, Watch, session
from tests.training.processes import run_script
from tests.variants import BATTERY, task_of

# Steps until a queue holds no random directions, which are easier to tell from a key than keys are.
FILLED = {"momentum_contrast": 2}
SCRIPT = Path(__file__).with_name("battery.py")


@pytest.fixture(scope="module", params=BATTERY)
def name(request):
    """A row of the battery."""
    return request.param


@pytest.fixture(scope="module")
def trained(name, tmp_path_factory):
    """What `battery.py` result, `{strategy: arrays}`, each in a process of its own."""
    folder, result = tmp_path_factory.mktemp(name), {}
    for strategy in REPLICAS:
        out = folder / f"{strategy}.npz"
        status, result[strategy] = run_script(SCRIPT, name, strategy, folder, out=out)
        assert status == 0, result[strategy]
    return result


def part(arrays, prefix):
    """The arrays whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def test_every_weight_is_trained(name, trained):
    one = trained["one_device"]
    norms = np.max(one["whole/norms"][:3], axis=0)
    gradients = dict(zip(one["weights"].tolist(), norms.tolist(), strict=True))
    reasons = catalog.row(name).expected_zero_grad
    expected = {path for path in gradients if any(re.search(r, path) for r, _ in reasons)}
    smallest = 1e-6 * np.median([g for path, g in gradients.items() if path not in expected])
    missing = [p for p, g in gradients.items() if not g > smallest and p not in expected]
    assert not missing, f"no gradient reaches {', '.join(missing)}"
    for pattern, reason in reasons:
        assert reason, f"{pattern}: no reason given"


def test_one_batch_is_learned(name, trained):
    losses = trained["one_device"]["learned"][FILLED.get(catalog.row(name).task, 0) :]
    assert np.isfinite(losses).all()
    if len(task_of(name).players) == 1:
        assert losses.min() < CUT * losses[0], f"{len(losses)} steps: {losses[0]} to {losses.min()}"
    else:
        before, after = (part(trained["one_device"], p) for p in ("start/", "whole/state/model/"))
        for player in task_of(name).players:
            weights = trained["one_device"][f"player/{player}"]
            assert len(weights) > 0
            for path in weights:
                assert (before[path] != after[path]).any(), f"{player} does not move {path}"


def test_two_steps_a_stop_and_two_steps_are_four_steps(trained):
    whole, parts = (part(trained["one_device"], f"{name}/") for name in ("whole", "parts"))
    assert len(whole["losses"]) == 4
    assert whole.keys() == parts.keys() | {"norms"}
    for key, value in parts.items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)


def test_two_replicas_equal_one_device(trained):
    one, two = (part(trained[strategy], "whole/") for strategy in REPLICAS)
    assert one.keys() == two.keys() and len(one) > 5
    far = {k: np.abs(one[k] - two[k]).max() for k in one}
    assert {k: v for k, v in far.items() if not v <= 1e-9} == {}


def test_a_session_of_two_replicas_goes_on_from_one_devices_checkpoint(trained):
    whole, resumed = trained["one_device"], part(trained["mirrored"], "resumed/")
    np.testing.assert_allclose(resumed.pop("losses"), whole["whole/losses"][2:], rtol=0, atol=1e-9)
    assert len(resumed) > 5
    far = {k: np.abs(whole[f"whole/{k}"] - v).max() for k, v in resumed.items()}
    assert {k: v for k, v in far.items() if not v <= 1e-9} == {}


def test_metrics_and_pictures_are_those_of_the_task(name, trained):
    task, one = task_of(name), trained["one_device"]
    metrics = part(one, "metric/")
    assert set(task.metrics) <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    for key, value in part(one, "picture/").items():
        if value.dtype.kind == "i":  # ids of its vocabulary
            assert value.ndim == 2 and 0 <= value.min() and value.max() < one["vocab_size"]
            assert (value != PAD).any(), key
        else:
            assert value.ndim in (4, 5) and 0 <= value.min() and value.max() <= 1, key


# One variant of every task; of detection the simplest.
TASKS = {catalog.row(name).task: name for name in reversed(BATTERY)} | {"detect": "yolo_v1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS.values())
def test_a_new_session_goes_on_as_the_stopped_one_itself_does(name, tmp_path):
    stopped = session(name, tmp_path / "stopped", [Watch(stop_at=2)], checkpoint_steps=2)
    with pytest.raises(loop.Stopped):
        stopped.fit()
    assert stopped.loop.step == 2
    shutil.copytree(tmp_path / "stopped", tmp_path / "new")
    stopped.loop.stop_signal = None
    stopped.loop.fit()  # which equals one that is never stopped: see above
    new = session(name, tmp_path / "new")
    new.fit()
    a, b = stopped.loop.weights(), new.loop.weights()
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    assert new.loop.history == stopped.loop.history


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
