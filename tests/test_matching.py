"""Optimal assignment, against all permutations and SciPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from kerasdl.ops.matching import assign


def test_no_permutation_is_better(rng):
    cost = rng.normal(size=(30, 4, 6))
    column = np.asarray(assign(cost, np.ones((30, 4), bool)))
    rows = np.arange(4)
    for table, one in zip(cost, column, strict=True):
        lowest = min(table[rows, list(p)].sum() for p in itertools.permutations(range(6), 4))
        assert len(set(one)) == 4
        assert abs(table[rows, one].sum() - lowest) < 1e-12


@pytest.mark.parametrize(
    "wrap", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)]
)
@pytest.mark.parametrize("shape", [(3, 5, 9), (4, 6, 6), (3, 7, 4), (2, 1, 3)])
def test_it_equals_scipy(shape, wrap, rng):
    """Where some rows are not there, there are more rows than columns, or costs are alike."""
    for dtype, digits in (("float64", 15), ("float32", 15), ("float64", 0)):
        cost = np.round(3 * rng.normal(size=(2, *shape)), digits).astype(dtype)
        valid = rng.random((2, *shape[:-1])) < 0.7
        valid[0, 0], valid[1, 0] = False, True
        column = np.asarray(wrap(assign)(cost, valid))
        assert column.dtype == "int32" and column.shape == valid.shape
        assert (column[~valid] == -1).all()
        for i in np.ndindex(valid.shape[:-1]):
            table, there, one = cost[i], valid[i], column[i]
            rows = np.flatnonzero(there & (one >= 0))
            best = linear_sum_assignment(table[there])
            assert len(rows) == len(best[0]) == len(set(one[rows]))
            lowest = table[there][best].sum()
            np.testing.assert_allclose(table[rows, one[rows]].sum(), lowest, rtol=1e-6)
            if digits and len(rows) == there.sum():  # only one is the best
                np.testing.assert_array_equal(one[rows], best[1])


def test_it_ends_whatever_the_costs(rng):
    cost = rng.normal(size=(4, 3, 5)).astype("float32")
    cost[0], cost[1, 0], cost[2, 1, 1], cost[3, :, :4] = np.nan, np.inf, -np.inf, np.inf
    column = np.asarray(assign(cost, np.ones((4, 3), bool)))
    assert [len(set(one)) for one in column] == [3] * 4
    assert column.min() >= 0 and column.max() < 5 and column[2, 1] == 1 and 4 in column[3]
