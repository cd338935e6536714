"""The confusion matrix and the worst mistakes, of parts that are merged."""

import numpy as np

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
