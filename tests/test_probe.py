"""Probes of features against direct computations."""

import numpy as np
import pytest

from kerasdl.metrics.probe import KNN, LinearProbe
from kerasdl.ops.labels import balanced

CLASSES, DIM = 4, 6


def examples(rng, n, start=0, dim=DIM):
    """Features that say something, though not everything, about the labels."""
    label = rng.integers(0, CLASSES, n)
    centers = np.random.default_rng(7).normal(size=(CLASSES, dim))
    features = (centers[label] + rng.normal(size=(n, dim))).astype(np.float32)
    batch = {"label": label, "index": np.arange(start, start + n), "weight": np.ones(n)}
    return {"features": features}, batch


def part(data, rows):
    outputs, batch = data
    return {k: v[rows] for k, v in outputs.items()}, {k: v[rows] for k, v in batch.items()}


def value(probe):
    (result,) = probe.result()["test"].values()
    return result


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_knn_is_a_weighted_vote_of_the_nearest(k, rng):
    reference, evaluated = examples(rng, 60), examples(rng, 30, 100)
    probe = KNN(CLASSES, k, temperature=0.1)
    probe.refer(*reference)
    probe.update(*evaluated)
    known, label = reference[0]["features"].astype(float), reference[1]["label"]
    right = 0
    for x, y in zip(evaluated[0]["features"].astype(float), evaluated[1]["label"], strict=True):
        cosine = [x @ r / (np.linalg.norm(x) * np.linalg.norm(r)) for r in known]
        score = np.zeros(CLASSES)
        for i in sorted(range(len(known)), key=lambda i: -cosine[i])[:k]:
            score[label[i]] += np.exp(cosine[i] / 0.1)
        right += score.argmax() == y
    assert value(probe) == right / 30
    assert 1 / CLASSES < right / 30 < 1


def test_linear_probe_minimizes_its_objective(rng):
    """Its classes are those of gradient descent on the objective that it states."""
    reference, evaluated = examples(rng, 80), examples(rng, 200, 100)
    probe = LinearProbe(CLASSES, labels=20, l2=0.7)
    probe.refer(*reference)
    probe.update(*evaluated)

    known, label = reference[0]["features"].astype(float), reference[1]["label"]
    mean, std = known.mean(0), known.std(0)
    chosen = np.concatenate([np.flatnonzero(label == c)[:5] for c in range(CLASSES)])
    x, y = (known[chosen] - mean) / std, np.eye(CLASSES)[label[chosen]]
    w, b = np.zeros((DIM, CLASSES)), np.zeros(CLASSES)
    for _ in range(20000):
        p = np.exp(x @ w + b)
        p /= p.sum(1, keepdims=True)
        w -= 0.02 * (x.T @ (p - y) + 0.7 * w)
        b -= 0.02 * (p - y).sum(0)
    predicted = ((evaluated[0]["features"] - mean) / std @ w + b).argmax(1)
    expected = np.mean(predicted == evaluated[1]["label"])
    assert abs(value(probe) - expected) <= 0.005  # one of 200, where two classes are level
    assert 0.4 < expected < 1


@pytest.mark.parametrize("make", [KNN, LinearProbe])
def test_the_order_of_batches_and_of_merging_does_not_matter(make, rng):
    reference, evaluated = examples(rng, 90), examples(rng, 40, 100)
    whole = make(CLASSES)
    whole.refer(*reference)
    whole.update(*evaluated)
    orders = (((0, 1, 2), (0, 1)), ((2, 0, 1), (1, 0)))
    for thirds, order in orders:
        workers = [make(CLASSES) for _ in range(2)]
        for i in thirds:
            for worker in workers:  # the whole reference each: it counts once
                worker.refer(*part(reference, slice(30 * i, 30 * i + 30)))
        for i, worker in enumerate(workers):
            worker.update(*part(evaluated, slice(i, None, 2)))
        merged = make(CLASSES)
        for i in order:
            merged.merge(workers[i].state())
        assert merged.result() == whole.result()


@pytest.mark.parametrize("make", [KNN, LinearProbe])
def test_examples_of_weight_0_do_not_count(make, rng):
    reference, evaluated = examples(rng, 90), examples(rng, 40, 100)
    one, other = make(CLASSES), make(CLASSES)
    for probe in (one, other):
        probe.refer(*reference)
    one.update(*part(evaluated, slice(30)))
    evaluated[1]["weight"][30:] = 0
    evaluated[1]["label"][30:] = (evaluated[1]["label"][30:] + 1) % CLASSES
    other.update(*evaluated)
    assert one.result() == other.result()


def test_labels_are_chosen_evenly_and_first():
    label = np.array([2, 0, 0, 1, 0, 2, 1, 0, 2, 1])
    assert balanced(label, 6).tolist() == [0, 1, 2, 3, 5, 6]
    assert np.bincount(label[balanced(label, 7)]).tolist() == [3, 2, 2]
    assert balanced(label, 99).tolist() == list(range(10))
    rare = np.array([0, 1, 1, 1, 1, 0, 1])
    assert np.bincount(rare[balanced(rare, 6)]).tolist() == [2, 4]


def test_one_class_alone_is_what_is_predicted(rng):
    probe = LinearProbe(CLASSES)
    outputs, batch = examples(rng, 10)
    probe.refer(outputs, {**batch, "label": np.full(10, 2)})
    probe.update(outputs, {**batch, "label": np.array([2] * 4 + [0] * 6)})
    assert value(probe) == 0.4


def test_a_feature_that_never_changes_says_nothing(rng):
    reference, evaluated = examples(rng, 60), examples(rng, 30, 100)
    plain, padded = LinearProbe(CLASSES), LinearProbe(CLASSES)
    for probe, extra in ((plain, 0), (padded, 2)):
        for give, (outputs, batch) in ((probe.refer, reference), (probe.update, evaluated)):
            more = np.full((len(batch["label"]), extra), 0.1, np.float32)
            give({"features": np.concatenate([outputs["features"], more], 1)}, batch)
    assert plain.result() == padded.result()


@pytest.mark.parametrize("make", [KNN, LinearProbe])
def test_a_probe_without_examples(make, rng):
    probe = make(CLASSES)
    probe.update(*examples(rng, 5))
    with pytest.raises(ValueError, match="reference examples"):
        probe.result()
    assert make(CLASSES).state() == {}
