"""Beam search against a plain one; special ids of other vocabularies."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.ops.beams import Beam, search
from kerasdl.ops.text import Specials

V, TOTAL, BATCH = 13, 6, 5
SPECIALS = Specials(pad=12, begin=12, end=(3,), unknown=None, never=(12, 7))


def tables(seed):
    """Logits of each example by position and token, `(B, T, V, V)`; the ends are likely."""
    result = np.random.default_rng(seed).normal(size=(BATCH, TOTAL, V, V)).astype("float32") * 2
    result[..., [3, 5]] += 1.5
    return result


def decode_step(token_ids, state, position):
    row = ops.cast(position * V + token_ids, "int32")  # (B, 1)
    return ops.take_along_axis(state[0], row[..., None], axis=1), state


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits)


def plain(table, beam, specials):
    """The search of transformers for one example: score, tokens."""
    running, kept = [(0.0, ())], []
    for n in range(1, TOTAL + 1):
        candidates = []
        for score, tokens in running:
            logits = table[n - 1, tokens[-1] if tokens else specials.begin].astype("float64")
            never = np.isin(np.arange(V), specials.never)
            if beam.renormalize:
                logits[never] = -np.inf
            logits = np.where(never, -np.inf, log_softmax(logits))
            if beam.forced_end and n == TOTAL:
                logits = np.where(np.arange(V) == specials.end[0], 0.0, -np.inf)
            candidates += [(score + x, (*tokens, t)) for t, x in enumerate(logits) if x > -np.inf]
        candidates = sorted(candidates, reverse=True)[: max(2, 1 + len(specials.end)) * beam.width]
        over = [tokens[-1] in specials.end or n == TOTAL for _, tokens in candidates]
        ended = [c for c, o in zip(candidates[: beam.width], over, strict=False) if o]
        running = [c for c, o in zip(candidates, over, strict=True) if not o][: beam.width]

        def divisor(length):
            base = length if beam.normalization == "power" else (5 + length) / 6
            return base**beam.alpha

        kept = sorted(kept + [(s / divisor(n), t) for s, t in ended], reverse=True)[: beam.width]
        if len(kept) == beam.width:
            length = TOTAL if beam.early_stopping == "never" else n
            if beam.early_stopping == "full" or not running:
                break
            if running[0][0] / divisor(length) <= kept[-1][0]:
                break
    return kept[0]


def found(table, beam, specials, wrap=lambda run: run):
    run = wrap(lambda state: search(decode_step, [state], BATCH, TOTAL, beam, specials))
    tokens, score = run(tf.reshape(table, (BATCH, TOTAL * V, V)))
    return np.asarray(tokens), np.asarray(score)


ALL = [
    Beam(*one)
    for one in itertools.product(
        (2, 4), (0.0, 1.0, 2.0), ("power", "wu"), ("full", "likely", "never"), (0, 1), (0, 1)
    )
]


@pytest.mark.parametrize("specials", [SPECIALS, Specials(12, 2, (3, 5), None, (12,))])
def test_sequences_that_end_are_kept_apart(specials):
    number = len(specials.end)
    lengths = set()
    for seed, beam in enumerate(ALL[number :: 12 + number]):
        table = tables(seed)
        tokens, score = found(table, beam, specials)
        for i in range(BATCH):
            expected, written = plain(table[i], beam, specials)
            lengths.add(len(written))
            rest = [specials.pad] * (TOTAL - len(written))
            assert tokens[i].tolist() == [*written, *rest], (beam, i)
            assert score[i] == pytest.approx(expected, rel=1e-4)
    assert len(lengths) > 3


@pytest.mark.parametrize("forced_end", [False, True])
def test_a_width_of_one_takes_the_likeliest_token(forced_end):
    table = tables(1)
    table[..., 3] -= 4  # ends are rare
    beam = Beam(1, 2.0, "power", "likely", False, forced_end)
    tokens, score = found(table, beam, SPECIALS, tf.function)
    for i in range(BATCH):
        last, written, total = SPECIALS.begin, [], 0.0
        for n in range(TOTAL):
            logits = log_softmax(table[i, n, last].astype("float64"))
            logits[list(SPECIALS.never)] = -np.inf
            if forced_end and n == TOTAL - 1:
                logits = np.where(np.arange(V) == 3, 0.0, -np.inf)
            last = int(np.argmax(logits))
            written, total = [*written, last], total + logits[last]
            if last == 3:
                break
        assert tokens[i].tolist() == written + [SPECIALS.pad] * (TOTAL - len(written))
        assert score[i] == pytest.approx(total / len(written) ** 2, rel=1e-4)
    assert forced_end == all(3 in row for row in tokens)
