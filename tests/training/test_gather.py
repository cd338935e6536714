"""Rows gathered over replicas and workers, with gradients that flow back to all of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kerasdl.ops import gather
from tests.training.gathering import EXAMPLES, VIEWS
from tests.training.processes import WORKERS, run_script, run_two

SCRIPT = Path(__file__).with_name("gathering.py")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """What two parts of one CPU wrote, and what each of two workers did."""
    folder = tmp_path_factory.mktemp("gathering")
    with ThreadPoolExecutor() as pool:
        mirrored = pool.submit(run_script, SCRIPT, "mirrored", out=folder / "mirrored.npz")
        workers = run_two(SCRIPT, WORKERS, out=folder / "workers.npz")
        results = [mirrored.result(), *workers]
    for status, what in results:
        assert status == 0, what
    return [what for _, what in results]


def replicas(computed, name, where):
    """A result of both replicas, the first one's first."""
    mirrored, *workers = computed
    if where == "mirrored":
        return mirrored[f"replicas/{name}"]
    return np.concatenate([worker[f"replicas/{name}"] for worker in workers])


everywhere = pytest.mark.parametrize("where", ["mirrored", "workers"])


@pytest.mark.slow
@everywhere
def test_every_replica_has_all_rows_and_knows_its_own(where, computed):
    for rows in replicas(computed, "rows", where):
        np.testing.assert_array_equal(rows, VIEWS)
    np.testing.assert_array_equal(replicas(computed, "offset", where), [0, EXAMPLES // 2])


@pytest.mark.slow
@everywhere
def test_a_coupled_loss_and_its_gradients_equal_one_devices(where, computed):
    one = computed[0]
    for name in ("kernel", "loss"):
        for value in replicas(computed, name, where):
            np.testing.assert_allclose(value, one[f"one/{name}"][0], rtol=0, atol=1e-9)
    by_views = np.concatenate(replicas(computed, "by_views", where))
    np.testing.assert_allclose(by_views, one["one/by_views"][0], rtol=0, atol=1e-9)


@pytest.mark.slow
@everywhere
def test_what_follows_an_update_is_the_same_on_every_replica(where, computed):
    one = computed[0]
    for name in ("queue", "teacher", "head"):
        copies = replicas(computed, name, where)
        assert len(copies) == 2
        np.testing.assert_array_equal(copies[0], copies[1])
        np.testing.assert_allclose(copies[0], one[f"one/{name}"][0], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_gradient_through_the_other_replicas_counts(computed):
    one, cut = (computed[0][f"{k}/kernel"][0] for k in ("one", "cut"))
    assert abs(one - cut).max() > 1e-3


def test_one_replica_gathers_its_own_rows():
    x = np.arange(6.0).reshape(3, 2)
    assert gather.gather(x) is x
    assert int(gather.offset(x)) == 0


def test_what_joins_rows_is_said_by_the_loop_and_ends_with_it():
    x = np.arange(6.0).reshape(3, 2)
    with gather.over(lambda rows: np.concatenate([rows - 1, rows]), 1):
        np.testing.assert_array_equal(gather.gather(x)[3:], x)
        assert int(gather.offset(x)) == 3
    assert gather.gather(x) is x
