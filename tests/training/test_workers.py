"""Two workers, in processes of their own, train as one device does, whatever happens to them."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kerasdl.launch import hosts
from kerasdl.store import checkpoint
from kerasdl.system import processes
from tests.training.processes import finish, run_script, run_two, start, start_two, weights
from tests.training.several import MODELS, STEPS

SEVERAL = Path(__file__).with_name("several.py")
SECONDS = 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What `several.py` wrote on one device, on two of a process, and as each of two workers."""
    folder = tmp_path_factory.mktemp("several")

    def run(kind):
        return run_script(SEVERAL, kind, out=folder / f"{kind}.npz", seconds=1500)

    with ThreadPoolExecutor() as pool:  # most of the time is tracing, which takes one core
        result = list(pool.map(run, ("one_device", "mirrored")))
    result += run_two(SEVERAL, "multi_worker_mirrored", out=folder / "workers.npz", seconds=1500)
    for status, what in result:
        assert status == 0, what
    return [what for _, what in result]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_step_evaluation_and_weight_equals_one_devices(model, trained):
    one, *others = trained
    names = [k for k in one if k.startswith(f"{model}/") and "seed_generator" not in k]
    assert len(names) > 5 and len(one[f"{model}/losses"]) == STEPS
    for other in others:
        for name in names:
            if name.endswith("/names"):
                assert other[name].tolist() == one[name].tolist()
                continue
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_evaluators_ran_under_every_strategy(trained):
    for result in trained:
        assert {"val_mean_iou", "val_pixel_accuracy"} <= set(result["unet_small/names"])
        assert {"val_ap", "val_mask_ap"} <= set(result["mask_rcnn_small/names"])
        assert {"val_knn_top1", "val_linear_probe_top1"} <= set(result["simclr_small/names"])
        assert {"val_caption_r1", "val_zero_shot_top1"} <= set(result["clip_small/names"])


# -- a run that moves -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(tmp_path):
    settings = {
        "model": "mlp",
        "drop_rate": 0.0,
        "epochs": 2,
        "max_steps": 30,
        "precision": "float64",
        "checkpoint_steps": 10,
        "augment": ["shift"],
        "mixup": 0.2,  # its partners stand on the other worker
    }
    whole = finish(tmp_path, "whole", **settings)
    parts = []
    status, _ = start(tmp_path, "moved", kill={"step": 12}, strategy="one_device", **settings)
    assert status == -signal.SIGKILL
    (status, _), (other, _) = start_two(tmp_path, "moved", stop_at=20, **settings)
    assert (status, other) == (0, 0)
    for name in ("moved.npz", "moved.1.npz"):
        with np.load(tmp_path / name) as result:
            parts.append(dict(result))
    assert (parts[0]["losses"] == parts[1]["losses"]).all()
    last = finish(tmp_path, "moved", strategy="one_device", **settings)
    losses = np.concatenate([whole["losses"][:10], parts[0]["losses"], last["losses"]])
    np.testing.assert_allclose(losses, whole["losses"], rtol=0, atol=1e-9)
    a, b = weights(whole), weights(last)
    assert max(np.abs(a[k] - b[k]).max() for k in a) < 1e-9


# -- the launcher and real workers --------------------------------------------------------------


def launch(folder, name, *flags):
    """Start `launch --workers 2`; its output goes to a file."""
    command = [sys.executable, "-c", "from kerasdl.cli import run; run()", "launch"]
    command += ["--workers", "2", "--", "--output", str(folder), "--experiment", name]
    command += ["--model", "mlp", "--export", "none", "--log", "none", *flags]
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env=processes.environment(TF_CPP_MIN_LOG_LEVEL="3")
        )


def workers_of(name):
    """`{rank: pid}` of the running workers of an experiment."""
    result = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if name.encode() in words and b"kerasdl.launch.guard" not in words:
                text = (path / "environ").read_bytes()
                place = [v for v in text.split(b"\0") if v.startswith(b"TF_CONFIG=")]
                if place:
                    place = json.loads(place[0].removeprefix(b"TF_CONFIG="))
                    result[place["task"]["index"]] = int(path.name)
    return result


def wait_for_step(job, folder, minimum):
    """Wait until a checkpoint of a later step than `minimum` is there; returns its step."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and job.poll() is None:
        for path in checkpoint.newest_first(folder / "checkpoints")[:1]:
            step = int(path.stem.partition("-")[2])
            if step > minimum:
                return step
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint after step {minimum}: status {job.poll()}")


def last_arrays(folder):
    header, arrays = checkpoint.latest(folder / "checkpoints")
    return header["step"], arrays


LONG = ("--epochs", "100", "--checkpoint-steps", "50")  # 1,900 steps


@pytest.mark.slow
def test_killed_workers_end_with_the_weights_of_an_undisturbed_run(tmp_path):
    job = launch(tmp_path, "undisturbed", *LONG)
    assert job.wait(SECONDS) == 0, (tmp_path / "undisturbed.log").read_text()
    job = launch(tmp_path, "killed", *LONG)
    step = 0
    for ranks in ((1,), (0,), (0, 1)):
        step = wait_for_step(job, tmp_path / "killed", step + 50)
        time.sleep(random.random() / 2)
        running = workers_of("killed")
        for rank in ranks:
            os.kill(running[rank], signal.SIGKILL)
        while any(workers_of("killed").get(rank) == running[rank] for rank in ranks):
            time.sleep(0.05)
    assert job.wait(SECONDS) == 0, (tmp_path / "killed.log").read_text()
    text = (tmp_path / "killed.log").read_text()
    assert text.count("restart") == 3 and text.count("going on from step") == 3
    (step, arrays), (last, again) = (
        last_arrays(tmp_path / name) for name in ("undisturbed", "killed")
    )
    assert step == last == 1900
    assert all((arrays[k] == again[k]).all() for k in arrays)
    assert not workers_of("killed")


@pytest.mark.slow
def test_sigterm_saves_and_leaves_no_process(tmp_path):
    job = launch(tmp_path, "stopped", *LONG, "--epochs", "5000")
    step = wait_for_step(job, tmp_path / "stopped", 50)
    job.terminate()
    assert job.wait(SECONDS) == 128 + signal.SIGTERM, (tmp_path / "stopped.log").read_text()
    assert not workers_of("stopped")
    text = (tmp_path / "stopped.log").read_text()
    assert "stopped by SIGTERM" in text and "kills" not in text
    saved, _ = last_arrays(tmp_path / "stopped")
    assert saved >= step and f"at step {saved} of" in text


def run_by_hand(folder, index, addresses, *flags, patience=60):
    words = [sys.executable, "-c", "from kerasdl.cli import run; run()", "--model", "linear"]
    return subprocess.run(
        [*words, "--export", "none", "--output", str(folder), *flags],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=processes.environment(**hosts.variables(addresses, index, patience)),
    )


def last_line(done):
    return done.stderr.strip().splitlines()[-1]  # below TensorFlow's own, where they are wanted


@pytest.mark.slow
def test_workers_with_other_flags_name_them(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in hosts.free_ports(2)]
    with ThreadPoolExecutor() as pool:
        result = pool.map(
            lambda i: run_by_hand(tmp_path, i, addresses, "--lr", f"0.{i + 1}"), (0, 1)
        )
    for done in result:
        assert done.returncode == 2
        assert last_line(done) == "error: workers 0 and 1 differ: --lr is 0.1 and 0.2"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "line"),
    [(0, "worker 1 (127.0.0.1:{1}) did not come within 6 s"), (1, "worker 0 (127.0.0.1:{0}) did")],
)
def test_a_worker_that_is_not_there(index, line, tmp_path):
    ports = hosts.free_ports(2)
    done = run_by_hand(tmp_path, index, [f"127.0.0.1:{port}" for port in ports], patience=6)
    assert done.returncode == 2
    assert last_line(done).startswith(f"error: {line.format(*ports)}")
    assert "Traceback" not in done.stderr
