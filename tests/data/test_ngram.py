"""The n-gram baseline, against its formula counted one token at a time."""

import math

import numpy as np
import pytest

from kerasdl.data.text.ngram import NGram, metrics

V = 5
RNG = np.random.default_rng(0)
TRAIN = RNG.choice(V, 300, p=[0.4, 0.3, 0.2, 0.1, 0.0])
TEST = RNG.integers(0, V, 60)


def brute(history, word, order):
    """The probability of `word` after `history`, by the formula."""
    if order == 0:
        return 1 / V
    if len(history) < order - 1:
        return brute(history, word, len(history) + 1)
    context = list(history[len(history) - order + 1 :])
    train = TRAIN.tolist()
    following = [
        train[i + order - 1]
        for i in range(len(train) - order + 1)
        if train[i : i + order - 1] == context
    ]
    lower = brute(history, word, order - 1)
    if not following:
        return lower
    kinds = len(set(following))
    return (following.count(word) + kinds * lower) / (len(following) + kinds)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_equals_the_formula(order):
    result = NGram(TRAIN, V, order).probabilities(TEST)
    right = [brute(TEST[:i].tolist(), w, order) for i, w in enumerate(TEST.tolist())]
    np.testing.assert_allclose(result, right, rtol=1e-12)


def test_probabilities_sum_to_one():
    model = NGram(TRAIN, V)
    for start in range(0, 50, 7):
        history = TEST[start : start + 6]
        each = [model.probabilities([*history, word])[-1] for word in range(V)]
        assert sum(each) == pytest.approx(1, abs=1e-12) and min(each) > 0


def test_figures_skip_the_first_and_count_characters():
    result = metrics(TRAIN, TEST, V, tokens_per_character=0.5)
    bits = [-math.log2(brute(TEST[:i].tolist(), TEST[i], 5)) for i in range(1, len(TEST))]
    assert result["name"] == "5-gram, Witten-Bell"
    assert result["bits_per_character"] == pytest.approx(0.5 * np.mean(bits), rel=1e-12)


def test_a_stream_shorter_than_the_order():
    assert NGram(np.array([1, 2]), V).probabilities([1])[0] == pytest.approx((1 + 2 / V) / 4)
    large = NGram(np.arange(40) % 7, 50_000)
    assert large.probabilities(np.arange(40) % 7)[-1] > 0.9
