"""Pixels that are kept once they are decoded, as far as memory allows."""

import numpy as np
import tensorflow as tf

from kerasdl.system import memory

MEMORY_BYTES = 4 * 2**30  # at most
SHARE = 8  # of the memory that is free, one part of so many
UNKNOWN = 2**30  # where it is not known how much is free


class Kept:
    """The pixels of a split's examples after they were first read.

    Args:
        count: Of examples; the first ones are kept where not all fit.
        shape: `(H, W, C)` of each, uint8.
        limit: Bytes; a share of the free memory if None.
    """

    def __init__(self, count, shape, limit=None):
        if limit is None:
            limit = min(MEMORY_BYTES, (memory.available() or UNKNOWN) // SHARE)
        self._shape = tuple(shape)
        size = min(count, limit // int(np.prod(shape)))
        self._pixels = np.empty((size, *shape), np.uint8)  # taken from the system when written to
        self._there = np.zeros(size, bool)

    def clear(self) -> None:
        """Forget all pixels."""
        self._there[:] = False

    def or_read(self, number, read):
        """Pixels of examples, kept or read.

        Args:
            number: Of the examples, int64 `(B,)`.
            read: `positions (n,) -> uint8 (n, H, W, C)` of some of them, in graph operations.

        Returns:
            uint8 `(B, H, W, C)`.
        """
        pixels, missing = tf.numpy_function(self._get, [number], (tf.uint8, tf.int64))
        missing = tf.ensure_shape(missing, (None,))

        def completed():
            rows = [number, missing, read(missing)]
            return tf.numpy_function(self._put, rows, tf.uint8)

        pixels = tf.cond(tf.size(missing) == 0, lambda: pixels, completed)
        return tf.ensure_shape(pixels, (None, *self._shape))

    def _get(self, number):
        """The pixels where all are there, and the positions of those that are not."""
        missing = np.flatnonzero(~self._holds(number))
        return self._pixels[number[: 0 if len(missing) else None]], missing

    def _put(self, number, missing, read):
        """Keep what was read, and give the pixels of all."""
        pixels = read
        if len(missing) < len(number):
            pixels = self._pixels[np.minimum(number, len(self._there) - 1)]
            pixels[missing] = read
        fits = number[missing] < len(self._there)
        self._pixels[number[missing][fits]] = read[fits]
        self._there[number[missing][fits]] = True  # only now, as others may be reading
        return pixels

    def _holds(self, number):
        there = number < len(self._there)
        there[there] = self._there[number[there]]
        return there
