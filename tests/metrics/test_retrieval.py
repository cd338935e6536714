"""Retrieval among candidates that differ, and classes told by their names."""

import numpy as np
import pytest

from kerasdl.metrics.retrieval import Retrieval, ZeroShot


def examples(rng, n=60, captions=20, dim=8, noise=1.5):
    """Images near to their captions, several of which are equal."""
    caption = rng.integers(0, captions, n)
    text = np.random.default_rng(7).normal(size=(captions, dim))[caption]
    image = text + noise * rng.normal(size=(n, dim))
    outputs = {"image_embeds": image, "text_embeds": text}
    outputs = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in outputs.items()}
    ids = np.stack([caption // 5, caption % 5], axis=1)
    return outputs, {"caption_ids": ids, "index": np.arange(n), "weight": np.ones(n)}


def part(data, rows):
    return [{k: v[rows] for k, v in one.items()} for one in data]


def result(evaluator, *parts):
    for one in parts:
        evaluator.update(*one)
    return evaluator.result()["test"]


def test_recall_is_that_of_loops(rng):
    data = examples(rng)
    evaluator = Retrieval(candidates=12)
    found = result(evaluator, data)
    outputs, batch = data
    caption = np.unique(batch["caption_ids"], axis=0, return_inverse=True)[1].reshape(-1)
    drawn = evaluator.drawn(batch["index"], caption)
    assert drawn.shape == (60, 12)
    np.testing.assert_array_equal(drawn[:, 0], np.arange(60))
    image, text = outputs["image_embeds"], outputs["text_embeds"]
    for what, query, others in (("caption", image, text), ("image", text, image)):
        for k in (1, 5):
            right = []
            for row, some in enumerate(drawn):
                assert len(set(caption[some])) == 12  # no caption twice
                scores = [query[row] @ others[i] for i in some]
                right.append(np.sum(np.array(scores[1:]) >= scores[0]) < k)
            assert found[f"{what}_r{k}"] == pytest.approx(np.mean(right))
    assert 0.2 < found["caption_r1"] < found["caption_r5"] < 1


def test_merging_is_as_one_evaluator_in_any_order(rng):
    data = examples(rng)
    whole = result(Retrieval(12), data)
    merged, order = Retrieval(12), rng.permutation(60)
    for rows in (order[40:], order[:25], order[20:40]):  # some twice
        other = Retrieval(12)
        other.update(*part(data, rows))
        merged.merge(other.state())
    assert merged.result()["test"] == whole
    padded = part(data, np.append(np.arange(60), [3, 3]))
    padded[1]["weight"][60:] = 0
    assert result(Retrieval(12), padded) == whole


def test_few_captions_none_and_collapse(rng):
    data = examples(rng, captions=3)
    assert result(Retrieval(), data)["caption_r5"] == 1.0
    assert np.isnan(Retrieval().result()["test"]["image_r1"])
    outputs, batch = examples(rng)
    same = {name: np.ones_like(value) for name, value in outputs.items()}
    assert set(result(Retrieval(12), (same, batch)).values()) == {0.0}


def test_classes_count_where_one_object_is():
    probabilities = np.eye(3)[[0, 1, 2, 2]]
    outputs = {"probabilities": probabilities, "label": probabilities.argmax(1)}
    labels = np.array([[0, -1], [-1, -1], [2, 1], [1, -1]])
    batch = {"labels": labels, "weight": np.ones(4), "index": np.arange(4)}
    evaluator = ZeroShot(("a", "b", "c"))
    assert result(evaluator, (outputs, batch))["zero_shot_top1"] == 0.5
    assert evaluator.matrix.sum() == 2
    one = {"label": np.array([0, 1, 0, 2]), "weight": np.array([1, 1, 1, 0]), "index": range(4)}
    found = result(ZeroShot(("a", "b", "c")), (outputs, one))
    assert found["zero_shot_top1"] == pytest.approx(2 / 3)
