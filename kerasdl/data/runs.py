"""Masks as the places where their numbers change: small in memory, decoded in graph operations.

Source: Lin et al. 2014, https://arxiv.org/abs/1405.0312, and its `pycocotools` (polygons, and
        COCO's run-length encoding, whose runs go down the columns).
"""

import numpy as np
import tensorflow as tf

FAR = 4  # sizes of the picture beyond which a polygon's points are brought nearer


class Runs:
    """One column of masks, each of the same shape.

    Args:
        masks: Integer arrays, 0 or more and below 2^15, or `changes` of such.
        shape: Of one mask.
        dtype: Of the decoded numbers.
    """

    def __init__(self, masks, shape, dtype):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        pairs = [mask if isinstance(mask, tuple) else changes(mask) for mask in masks]
        self.ends = np.cumsum([0] + [len(places) for places, _ in pairs]).astype(np.int64)
        empty = [(np.zeros(0, np.int32), np.zeros(0, np.int16))]
        self.places, self.steps = map(np.concatenate, zip(*(pairs or empty), strict=True))
        self._tensors = []

    def rows(self, numbers):
        """int64 `(n, 2)`: what `decoded` needs of the masks `numbers`."""
        return np.stack([self.ends[numbers], self.ends[np.asarray(numbers) + 1]], axis=1)

    def decoded(self, row):
        """One mask from its row of `rows`, in graph operations."""
        if not self._tensors:
            with tf.init_scope():
                self._tensors += [tf.constant(self.places), tf.constant(self.steps)]
        places, steps = (part[row[0] : row[1]] for part in self._tensors)
        size = int(np.prod(self.shape))
        changed = tf.scatter_nd(places[:, None], tf.cast(steps, tf.int32), [size])
        return tf.cast(tf.reshape(tf.cumsum(changed), self.shape), self.dtype)

    def array(self, numbers):
        """The masks `numbers` as one array `(n, ...)`."""
        result = np.zeros((len(numbers), int(np.prod(self.shape))), self.dtype)
        for mask, (start, end) in zip(result, self.rows(numbers), strict=True):
            changed = np.zeros(len(mask), np.int32)
            changed[self.places[start:end]] = self.steps[start:end]
            mask[:] = np.cumsum(changed)
        return result.reshape(-1, *self.shape)

    def digest_of(self, number) -> bytes:
        """Bytes that tell a mask from others."""
        own = slice(*self.rows([number])[0])
        return self.places[own].tobytes() + self.steps[own].tobytes()


def changes(mask):
    """Where a flattened mask differs from the number before it, and by how much: int32 and int16
    `(n,)`."""
    steps = np.diff(np.asarray(mask).reshape(-1).astype(np.int16), prepend=np.int16(0))
    places = np.flatnonzero(steps)
    return places.astype(np.int32), steps[places]


def of_polygons(polygons, size):
    """bool `(H, W)` of the pixels inside any of some polygons.

    Args:
        polygons: float arrays `(n, 2)` of points `x y` in pixels, each of three points or more.
        size: `(H, W)`.
    """
    from pycocotools import mask

    height, width = size
    bounds = np.array([width, height], np.float64)
    near = [np.clip(points, -FAR * bounds, (FAR + 1) * bounds) for points in polygons]
    encoded = mask.frPyObjects([points.reshape(-1).tolist() for points in near], height, width)
    return mask.decode(mask.merge(encoded)).astype(bool)


def of_coco(encoded, size):
    """bool `(H, W)` of COCO's run-length encoding, or None where it is none of this size.

    Args:
        encoded: `{"size": [H, W], "counts": list of int, or text}`.
        size: `(H, W)` of the picture.
    """
    counts = encoded.get("counts")
    if isinstance(counts, str):
        counts = _counts(counts)
    whole = isinstance(counts, list) and all(type(n) is int and 0 <= n <= 2**31 for n in counts)
    if not whole or sum(counts) != size[0] * size[1] or encoded.get("size") != list(size):
        return None
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[::-1]).T


def _counts(text):
    """The runs in COCO's compressed text, or None where it is damaged. It is not left to
    `pycocotools`, which reads beyond the end of some."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return None if shift else counts
