"""A run that is killed and started again ends as one that was never stopped, bit for bit."""

import signal
from pathlib import Path

import pytest

from tests.training.processes import difference, finish, run_script, start

SETTINGS = {
    "model": "resnet20",
    "model_kwargs": {"depths": [1, 1, 1], "drop_rate": 0.2},
    "epochs": 3,
    "batch_size": 128,
    "limit_batches": 5,  # 15 steps
    "augment": ["shift", "noise"],
    "mixup": 0.2,
    "ema_decay": 0.9,
    "checkpoint_steps": 4,
}
# Inside the second epoch; during the third checkpoint's write; right after a checkpoint.
KILLS = {"inside an epoch": {"step": 7}, "while saving": {"save": 3}, "at a boundary": {"step": 8}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("whole"), "whole", **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS)
def test_killed_and_started_again_is_bit_equal(kill, undisturbed, tmp_path):
    status, _ = start(tmp_path, "killed", kill=KILLS[kill], **SETTINGS)
    assert status == -signal.SIGKILL
    result = finish(tmp_path, "killed", **SETTINGS)
    assert 0 < len(result["losses"]) < len(undisturbed["losses"]) == 15
    assert (result["losses"] == undisturbed["losses"][-len(result["losses"]) :]).all()
    assert difference(result, undisturbed) == 0


@pytest.mark.slow
def test_killed_with_a_teacher_is_bit_equal(undisturbed, tmp_path_factory, tmp_path):
    """It learns features of the undisturbed run, and from examples without labels."""
    teacher = {"model_kwargs": {"depths": [1, 1]}, "epochs": 1, "limit_batches": 2}
    finish(tmp_path, "teacher", **{**SETTINGS, **teacher})
    learns = {"distill_from": str(tmp_path / "teacher"), "distill": "features", "labels": 300}
    whole = finish(tmp_path, "whole", **{**SETTINGS, **learns})
    status, _ = start(tmp_path, "killed", kill={"step": 7}, **{**SETTINGS, **learns})
    assert status == -signal.SIGKILL
    result = finish(tmp_path, "killed", **{**SETTINGS, **learns})
    assert 0 < len(result["losses"]) < 15
    assert difference(result, whole) == 0
    assert difference(whole, undisturbed) > 0


@pytest.mark.slow
def test_fifty_kills_lose_nothing(tmp_path):
    script = Path(__file__).with_name("kills.py")
    status, result = run_script(script, tmp_path, "50", out=tmp_path / "found.npz", seconds=900)
    assert status == 0, result
    assert result["half"] >= 15  # in the middle of a write
    assert result["damaged"] == 0 and len(result["steps"]) == 51
    assert (result["steps"][1:] >= result["steps"][:-1]).all() and result["steps"][-1] >= 100
    assert result["same"]
