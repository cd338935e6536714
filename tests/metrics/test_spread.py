"""Collapsed embeddings are seen."""

import numpy as np
import pytest

from kerasdl.metrics.evaluator import joined
from kerasdl.metrics.spread import OF_EMBEDDINGS, OF_FEATURES, Spread


def given(z, name="features", weight=None):
    spread = Spread()
    outputs = {"features": np.zeros((len(z), 2)), name: np.asarray(z)}
    spread.update(outputs, {"weight": np.ones(len(z)) if weight is None else weight})
    return spread


def test_from_one_place_to_all_directions(rng):
    """Opposite embeddings have the mean 0; of length only the direction counts."""
    assert given([[1.0, 2.0], [3.0, 6.0]]).result()["test"]["spread"] == pytest.approx(0, abs=1e-7)
    assert given([[1.0, 2.0], [-3.0, -6.0]]).result()["test"]["spread"] == 1
    assert given([[1.0, 0.0], [0.0, 1.0]], "projection").result()["test"][
        "spread"
    ] == pytest.approx(np.sqrt(0.5))
    z = rng.normal(size=(500, 30))
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected = np.sqrt(np.sum(u.var(0)))
    assert given(z).result()["test"]["spread"] == pytest.approx(expected)


def test_a_collapse_is_a_warning_and_nothing_else_is(rng):
    center, around = rng.normal(size=8), rng.normal(size=(40, 8))
    assert "warnings" not in given(center + around).result()
    result = given(center + 0.3 * OF_FEATURES * around).result()
    assert "have collapsed" in result["warnings"][0] and 0 < result["test"]["spread"] < OF_FEATURES
    stricter = Spread(OF_EMBEDDINGS)
    stricter.merge(given(center + 0.05 * around).state())
    assert (
        "warnings" in stricter.result() and "warnings" not in given(center + 0.05 * around).result()
    )
    both = joined([result, {"test": {"knn_top1": 0.5}, "more": 1}, result])
    assert both["test"].keys() == {"spread", "knn_top1"} and both["more"] == 1
    assert both["warnings"] == 2 * result["warnings"]


def test_merging_is_one_evaluator_of_all(rng):
    z, weight = rng.normal(size=(30, 5)) + 1, np.r_[np.ones(25), np.zeros(5)]
    whole, first, second = given(z[:25]), given(z[:10]), given(z[10:], weight=weight[10:])
    for one, other in ((first, second), (second, first)):
        merged = Spread()
        for part in (one, other):
            merged.merge(part.state())
        assert merged.result()["test"]["spread"] == pytest.approx(whole.result()["test"]["spread"])


def test_little_is_computed_as_exactly_as_much(rng):
    """Not 1 less the square of the mean, of whose digits nothing would be left."""
    center, around = rng.normal(size=6), 1e-9 * rng.normal(size=(20, 6))
    z = center + around
    expected = np.sqrt(
        np.sum((around - around @ np.outer(center, center) / (center @ center)).var(0))
    )
    found = given(z).result()["test"]["spread"]
    assert found == pytest.approx(expected / np.linalg.norm(center), rel=1e-5)
