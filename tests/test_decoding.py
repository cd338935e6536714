"""Decoding: choices, loops over toy models, beams against exhaustive search."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.ops import beams, decoding, noise
from kerasdl.ops.text import BOS, EOS, PAD, Specials

V, LENGTH = 6, 3  # PAD and BOS are never written, so four tokens are
RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(LENGTH + 1, V, V)).astype("float32") * 2  # [position, token, next]


def decode_step(token_ids, state, position):
    """A toy model: logits by position and token; the state counts the tokens it has seen."""
    n = ops.shape(token_ids)[1]
    table = ops.convert_to_tensor(TABLE)
    places = ops.minimum(position + ops.arange(n, dtype="int32"), LENGTH)
    logits = ops.take(ops.reshape(table, (-1, V)), places[None] * V + token_ids, axis=0)
    return logits, [state[0] + ops.cast(n, "float32")]  # (B, n, V)


def score_of(sequence, alpha):
    """Normalized log probability of a sequence of ids, the rest of it after EOS left out."""
    last, total = BOS, 0.0
    for position, token in enumerate(sequence):
        logits = np.where(np.isin(np.arange(V), (PAD, BOS)), -np.inf, TABLE[position, last])
        total += logits[token] - np.logaddexp.reduce(logits)
        last = token
    return total / ((5 + len(sequence)) / 6) ** alpha


def all_sequences():
    """Every sequence that ends in EOS, or is cut at LENGTH."""
    tokens = [t for t in range(V) if t not in (PAD, BOS, EOS)]
    for n in range(LENGTH):
        for words in itertools.product(tokens, repeat=n):
            yield (*words, EOS)
    yield from itertools.product(tokens, repeat=LENGTH)


def search(width, alpha, batch=2):
    run = tf.function(
        lambda state: beams.search(
            decode_step, [state], batch, LENGTH, beams.Beam(width, alpha), Specials()
        )
    )
    tokens, score = run(tf.zeros((batch, 1)))
    return np.asarray(tokens), np.asarray(score)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_of_everything_is_exhaustive_search(alpha):
    best = max(all_sequences(), key=lambda s: score_of(s, alpha))
    tokens, score = search(V**LENGTH, alpha)
    expected = np.array([*best, *[PAD] * (LENGTH - len(best))])
    np.testing.assert_array_equal(tokens, [expected, expected])
    np.testing.assert_allclose(score, score_of(best, alpha), rtol=1e-5)


def test_a_beam_of_one_is_greedy():
    last, written = BOS, []
    for position in range(LENGTH):
        logits = TABLE[position, last].copy()
        logits[[PAD, BOS]] = -np.inf
        last = int(np.argmax(logits))
        written.append(last)
        if last == EOS:
            break
    tokens, score = search(1, 0.6)
    assert tokens[0].tolist() == written + [PAD] * (LENGTH - len(written))
    np.testing.assert_allclose(score[0], score_of(written, 0.6), rtol=1e-5)


def test_wider_beams_are_never_worse_than_all_there_is():
    best = max(score_of(s, 0.0) for s in all_sequences())
    for width in (1, 2, 4):
        assert search(width, 0.0)[1][0] <= best + 1e-5


def test_write_keeps_prompts_and_lengths():
    prompt = np.array([[4, 5, 0], [3, 5, 5], [5, 4, 3]], "int32")
    length, limit = np.array([2, 1, 3], "int32"), np.array([4, 2, 3], "int32")

    def choose(logits, position):
        return decoding.greedy(logits)

    whole = {}
    for prefill in (True, False):
        run = tf.function(
            lambda state, prefill=prefill: decoding.generate(
                decode_step, [state], prompt, length, 4, limit, choose, prefill
            )
        )
        whole[prefill] = np.asarray(run(tf.zeros((3, 1))))
    np.testing.assert_array_equal(whole[True], whole[False])
    assert whole[True][0, :2].tolist() == [4, 5] and (whole[True][0] != 0).any()
    assert whole[True][1].tolist() == [3, int(np.argmax(TABLE[0, 3])), 0, 0]
    assert whole[True][2].tolist() == [5, 4, 3, 0]


def test_top_k_and_top_p_keep_what_they_say():
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]] * 4, "float32"))
    top_k = np.array([0, 1, 3, 9], "int32")
    kept = np.asarray(decoding.filter_logits(logits, top_k=top_k)) > -1e8
    assert kept.sum(-1).tolist() == [4, 1, 3, 4]
    top_p = np.array([0.4, 0.6, 0.8, 1.0], "float32")
    kept = np.asarray(decoding.filter_logits(logits, top_p=top_p)) > -1e8
    assert kept.sum(-1).tolist() == [1, 2, 3, 4]


def test_draws_follow_the_probabilities():
    n, p = 20_000, np.array([0.5, 0.3, 0.2], "float32")
    logits = np.tile(np.log(p), (n, 1))
    key = noise.keys(0, 0, np.arange(n))
    hot = np.full(n, 1.0, "float32")
    sampled = np.asarray(decoding.sample(logits, key, 3, hot))
    np.testing.assert_allclose(np.bincount(sampled, minlength=3) / n, p, atol=0.015)
    again = np.asarray(decoding.sample(logits, key, 3, hot))
    np.testing.assert_array_equal(sampled, again)
    assert (sampled != np.asarray(decoding.sample(logits, key, 4, hot))).any()
    assert (np.asarray(decoding.sample(logits, key, 3, np.zeros(n, "float32"))) == 0).all()
    square = np.asarray(decoding.sample(logits, key, 3, np.full(n, 0.5, "float32")))
    np.testing.assert_allclose(
        np.bincount(square, minlength=3) / n, p**2 / np.sum(p**2), atol=0.015
    )
