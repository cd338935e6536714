"""Byte-pair encoding in TensorFlow's graph: of each word, pair by pair, the one learned first.

Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, algorithm 1.
"""

import base64
import zlib

import numpy as np
import tensorflow as tf

from kerasdl.data.text.lookup import Table

LARGEST = 2**26  # bytes of merges
NONE = np.int32(2**31 - 1)  # rank of a pair that is never joined


class Merges:
    """Joins pairs of ids in the order of their ranks, in graph operations.

    Args:
        pairs: int `(N, 2)`, in the order of their ranks.
        joined: int `(N,)`, the id that each pair becomes.
        vocab_size: Ids are below it.
    """

    def __init__(self, pairs, joined, vocab_size):
        pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
        self._joined = np.append(np.asarray(joined, np.int32), np.int32(0))
        ranks = np.arange(len(pairs), dtype=np.int32)
        self._size = max(int(vocab_size), 1)
        self._ranks = Table(pairs[:, 0] * self._size + pairs[:, 1], ranks, NONE)
        # Where a joined id is part of later pairs alone, all that are equal can be joined at once.
        made = np.full(self._size, -1, np.int64)
        np.maximum.at(made, self._joined[:-1], ranks)
        self._at_once = bool(np.all(made[pairs].max(axis=1, initial=-1) < ranks))

    def __call__(self, ids):
        """Join what can be joined in each word.

        Args:
            ids: Ragged int32 `(U, None)`, the ids of the letters of words.

        Returns:
            Ragged int32 `(U, None)`.
        """
        tokens, words = ids.flat_values, tf.cast(ids.value_rowids(), tf.int32)
        count, total = tf.cast(ids.nrows(), tf.int32), tf.size(tokens)
        if not len(self._ranks):
            return ids
        # What is finished stands where its first letter stood; -1 is nothing.
        states = (tokens, words, tf.range(total), tf.fill((total,), -1))
        shapes = (tf.TensorShape((None,)),) * 4
        *_, finished = tf.while_loop(
            lambda tokens, *_: tf.size(tokens) > 0,
            lambda *states: self._join(count, *states),
            states,
            shapes,
        )
        there = finished >= 0
        rows = tf.boolean_mask(tf.cast(ids.value_rowids(), tf.int32), there)
        lengths = tf.math.bincount(rows, minlength=count, maxlength=count, dtype=tf.int64)
        return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(finished, there), lengths)

    def _join(self, count, tokens, words, places, finished):
        """Join the pair of the lowest rank in each word, and take out the words that have none."""
        pairs = tf.cast(tokens[:-1], tf.int64) * self._size + tf.cast(tokens[1:], tf.int64)
        rank = tf.where(words[1:] == words[:-1], self._ranks(pairs), NONE)
        rank = tf.concat([rank, [NONE]], axis=0)
        lowest = tf.gather(tf.math.unsorted_segment_min(rank, words, count), words)
        goes_on = lowest < NONE
        some = (rank == lowest) & goes_on
        index = tf.range(tf.size(tokens))
        starts = some & ~tf.concat([[False], some[:-1]], axis=0)
        if self._at_once:  # of pairs that overlap the first, the third and so on
            run = tf.cumsum(tf.cast(starts, tf.int32)) - 1
            first = tf.concat([tf.boolean_mask(index, starts), [0]], axis=0)
            offset = index - tf.gather(first, tf.maximum(run, 0))
            joins = some & (offset % 2 == 0)
        else:
            first = tf.math.unsorted_segment_min(tf.where(some, index, NONE), words, count)
            joins = index == tf.gather(first, words)
        new = tf.gather(self._joined, tf.where(joins, rank, tf.size(self._joined) - 1))
        tokens = tf.where(joins, new, tokens)
        ends = tf.boolean_mask(places, ~goes_on)[:, None]
        finished = tf.tensor_scatter_nd_update(finished, ends, tf.boolean_mask(tokens, ~goes_on))
        stay = goes_on & ~tf.concat([[False], joins[:-1]], axis=0)
        return *(tf.boolean_mask(one, stay) for one in (tokens, words, places)), finished


def packed(merges) -> str:
    """Triples of ids as a text."""
    numbers = np.array(merges, "<i4").reshape(-1, 3)
    return base64.b64encode(zlib.compress(numbers.T.tobytes())).decode()


def unpacked(text: str):
    """int32 `(N, 3)`, what `packed` was given."""
    content = zlib.decompressobj().decompress(base64.b64decode(text), LARGEST)
    return np.frombuffer(content, "<i4").reshape(3, -1).T
