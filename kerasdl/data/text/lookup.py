"""Tables in TensorFlow's graph without resources: of pairs, of strings, and a trie of code points.

Keys are sorted and searched, so that a table is a constant of a few arrays whatever its size.
"""

import numpy as np
import tensorflow as tf

POINTS = 2**21  # code points are below it
BUCKETS = 2**63 - 25  # of strings; the largest prime below 2^63


class Table:
    """Values of whole numbers, in graph operations.

    Args:
        keys: int64 or int32 `(N,)`, each once, in any order.
        values: `(N,)` or `(N, M)`.
        default: The value of what is no key.
    """

    def __init__(self, keys, values, default=-1):
        keys, values = np.asarray(keys), np.asarray(values)
        order = np.argsort(keys, kind="stable")
        self._keys, self._values, self._default = keys[order], values[order], default

    def __len__(self):
        return len(self._keys)

    def __call__(self, wanted):
        """The values of `wanted`, of any shape and the keys' type."""
        if not len(self._keys):
            shape = tf.concat([tf.shape(wanted), self._values.shape[1:]], axis=0)
            return tf.fill(shape, tf.constant(self._default, self._values.dtype))
        flat = tf.reshape(wanted, (-1,))
        place = tf.minimum(tf.searchsorted(self._keys, flat), len(self._keys) - 1)
        found = tf.reshape(tf.gather(self._keys, place) == flat, tf.shape(wanted))
        values = tf.gather(self._values, tf.reshape(place, tf.shape(wanted)))
        for _ in self._values.shape[1:]:
            found = found[..., None]
        return tf.where(found, values, tf.constant(self._default, self._values.dtype))


class Strings:
    """Numbers of strings, in graph operations; -1 of those that are not in it.

    Args:
        strings: Bytes, each once.
        numbers: int32 `(N,)`.
    """

    def __init__(self, strings, numbers):
        self._strings = np.array([*strings, b""], object)  # the last one stands for none
        self._buckets = BUCKETS
        with tf.init_scope():
            hashed = tf.strings.to_hash_bucket_fast(self._strings[:-1], self._buckets).numpy()
        if len(np.unique(hashed)) < len(hashed):
            raise ValueError("two strings of the table have the same hash, or are the same")
        self._places = Table(hashed, np.arange(len(hashed), dtype=np.int32), len(hashed))
        self._numbers = np.append(np.asarray(numbers, np.int32), np.int32(-1))

    def __call__(self, wanted):
        """int32 numbers of strings `(N,)`."""
        place = self._places(tf.strings.to_hash_bucket_fast(wanted, self._buckets))
        same = tf.gather(self._strings, place) == wanted
        return tf.where(same, tf.gather(self._numbers, place), -1)


class Trie:
    """The beginnings of code points that are words, in graph operations.

    Args:
        words: Texts, each once, none empty.
        numbers: int32 `(N,)`.
    """

    def __init__(self, words, numbers):
        edges, ends, self._nodes = {}, {}, 1
        for word, number in zip(words, numbers, strict=True):
            node = 0
            for character in word:
                key = node * POINTS + ord(character)
                node = edges.get(key)
                if node is None:
                    node = edges[key] = self._nodes
                    self._nodes += 1
            ends[node] = number
        self._edges = edges
        keys, values = np.array([*edges], np.int64), np.array([*edges.values()], np.int32)
        self._children = Table(keys, values)
        self._numbers = np.full(self._nodes, -1, np.int32)
        self._numbers[[*ends]] = [*ends.values()]

    def node(self, text: str) -> int:
        """The node behind a text; -1 where no word begins with it."""
        node = 0
        for character in text:
            node = self._edges.get(node * POINTS + ord(character), -1) if node >= 0 else -1
        return node

    def step(self, nodes, points):
        """int32 `(N,)`: the nodes behind code points that follow nodes; -1 where there is none."""
        key = tf.cast(nodes, tf.int64) * POINTS + tf.cast(points, tf.int64)
        return self._children(key)

    def numbers(self, nodes):
        """int32 `(N,)`: of the words that end at nodes, which exist; -1 where none does."""
        return tf.gather(self._numbers, nodes)
