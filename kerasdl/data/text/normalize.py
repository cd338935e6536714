"""Normalizers of published tokenizers in TensorFlow's graph: characters that become others.

A step is a JSON list: `["replace", pattern of RE2, rewrite]`; `["map", {character: text},
{character: combining class}]`, where those of a class stay in order; `["unicode", form]`.
"""

import itertools

import numpy as np
import tensorflow as tf

from kerasdl.data.text.lookup import Table

CLASSES = 256  # combining classes are below it


class Mapping:
    """Texts with characters replaced, each by some others or none, in graph operations.

    Args:
        table: `{character: text}`.
        classes: `{character: int}`: characters with a class, which is at least 1, are sorted by
            it wherever they follow each other, as in Unicode's canonical order.
    """

    def __init__(self, table: dict, classes: dict):
        targets = [[*map(ord, text)] for text in table.values()]
        lengths = np.array([len(one) for one in targets], np.int32)
        starts = np.cumsum(lengths) - lengths
        keys = np.array([*map(ord, table)], np.int32)
        self._rows = Table(keys, np.stack([lengths, starts], 1).astype(np.int32))
        self._targets = np.array([*itertools.chain(*targets), 0], np.int32)
        marks = np.array([*map(ord, classes)], np.int32)
        self._classes = Table(marks, np.array([*classes.values()], np.int64), 0)

    def __call__(self, strings):
        """string `(N,)` of string `(N,)`."""
        points = tf.strings.unicode_decode(strings, "UTF-8")
        rows = self._rows(points.flat_values)
        length = tf.where(rows[:, 0] < 0, 1, rows[:, 0])
        end = tf.cumsum(length)
        origin = tf.repeat(tf.range(tf.size(length)), length)
        place = tf.range(tf.size(origin)) - tf.gather(end - length, origin)
        rows = tf.gather(rows, origin)
        new = tf.gather(self._targets, tf.maximum(rows[:, 1] + place, 0))
        new = tf.where(rows[:, 0] < 0, tf.gather(points.flat_values, origin), new)
        splits = tf.gather(tf.concat([[0], end], axis=0), points.row_splits)
        result = tf.RaggedTensor.from_row_splits(new, tf.cast(splits, tf.int64))
        if len(self._classes):
            kind = self._classes(new)
            run = tf.cumsum(tf.cast(kind == 0, tf.int64)) + result.value_rowids()
            order = tf.argsort(run * CLASSES + kind, stable=True)
            result = result.with_flat_values(tf.gather(new, order))
        return tf.strings.unicode_encode(result, "UTF-8")


class Normalizer:
    """The steps of a normalizer, one after the other, in graph operations.

    Args:
        steps: See the module.
    """

    def __init__(self, steps):
        self._steps = [_step(*step) for step in steps]
        self.needs_text_ops = any(kind == "unicode" for kind, *_ in steps)

    def __call__(self, strings):
        """string `(N,)` of string `(N,)`."""
        for step in self._steps:
            strings = step(strings)
        return strings


def _step(kind, *arguments):
    if kind == "map":
        return Mapping(*arguments)
    if kind == "replace":
        pattern, rewrite = arguments
        return lambda strings: tf.strings.regex_replace(strings, pattern, rewrite)
    import tensorflow_text

    (form,) = arguments
    return lambda strings: tensorflow_text.normalize_utf8(strings, form)
