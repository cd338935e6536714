"""The confusion matrix and the worst mistakes, of parts that are merged."""

import numpy as np
import pytest
from sklearn import metrics

from kerasdl.metrics.confusion import Confusion


def part_of(rng, indices):
    probabilities = rng.dirichlet(np.ones(3), len(indices))
    outputs = {"label": probabilities.argmax(-1), "probabilities": probabilities}
    batch = {
        "label": rng.integers(0, 3, len(indices)),
        "index": np.array(indices),
        "weight": (np.array(indices) < 18).astype(float),  # what follows only fills up
    }
    return outputs, batch


def test_merged_parts_are_the_whole_in_any_order(rng):
    parts = [part_of(rng, range(start, start + 5)) for start in range(0, 20, 5)]
    whole, halves = Confusion("abc", keep=4), [Confusion("abc", keep=4) for _ in range(2)]
    for i, part in enumerate(parts):
        whole.update(*part)
        halves[i % 2].update(*part)
    for order in (halves, halves[::-1]):
        merged = Confusion("abc", keep=4)
        for one in order:
            merged.merge(one.state())
        assert merged.result() == whole.result()
    result = whole.result()
    assert np.sum(result["confusion"]) == 18
    true = np.concatenate([batch["label"] for _, batch in parts])[:18]
    predicted = np.concatenate([outputs["label"] for outputs, _ in parts])[:18]
    confidence = np.concatenate([o["probabilities"].max(-1) for o, _ in parts])[:18]
    wrong = sorted(np.flatnonzero(true != predicted), key=lambda i: -confidence[i])[:4]
    assert [m["index"] for m in result["mistakes"]] == wrong
    for mistake in result["mistakes"]:
        i = mistake["index"]
        assert mistake["confidence"] == confidence[i]
        assert (mistake["true"], mistake["predicted"]) == (true[i], predicted[i])


def confusion_of(true, predicted, names):
    evaluator = Confusion(names)
    k = len(true)
    outputs = {"label": np.array(predicted), "probabilities": np.full((k, len(names)), 0.5)}
    batch = {"label": np.array(true), "index": np.arange(k), "weight": np.ones(k)}
    evaluator.update(outputs, batch)
    return evaluator.result()


def test_every_class_and_their_balance_are_those_of_scikit_learn(rng):
    true = rng.choice(4, 200, p=[0.85, 0.05, 0.05, 0.05])
    predicted = np.where(rng.random(200) < 0.8, true, rng.integers(0, 4, 200))
    result = confusion_of(true, predicted, "abcd")
    assert "balanced_accuracy" in Confusion.metrics
    expected = metrics.balanced_accuracy_score(true, predicted)
    assert result["test"] == {"balanced_accuracy": pytest.approx(expected)}
    rows = metrics.precision_recall_fscore_support(true, predicted)
    for i, name in enumerate("abcd"):
        one = dict(zip(("precision", "recall", "f1", "support"), (r[i] for r in rows), strict=True))
        assert result["classes"][name] == pytest.approx(one)


def test_a_class_without_examples_does_not_count():
    result = confusion_of([0, 0, 1, 1], [0, 0, 1, 2], ("a", "b", "c", "d"))
    assert result["test"]["balanced_accuracy"] == 0.75
    assert result["classes"]["b"] == {"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2}
    assert result["classes"]["c"] == {"precision": 0, "recall": None, "f1": 0, "support": 0}
    assert result["classes"]["d"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_one_class_that_is_always_predicted_is_no_better_than_chance():
    result = confusion_of([0] * 99 + [1], [0] * 100, "ab")
    assert result["test"]["balanced_accuracy"] == 0.5
