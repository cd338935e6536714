"""Models of published tokenizers in TensorFlow's graph: BPE, WordPiece, unigrams, of words.

Each is called with words, string `(U,)`, none empty, and gives ragged int32 `(U, None)`.

Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; Schuster and Nakajima 2012 and
        Devlin et al. 2018 (the longest piece first); Kudo 2018, https://arxiv.org/abs/1804.10959.
"""

import numpy as np
import tensorflow as tf

from kerasdl.data.text.lookup import Strings, Table, Trie
from kerasdl.data.text.merges import Merges, unpacked

ABSENT = -1
UNKNOWN_COST = 10.0  # below the worst score of a unigram model, for a character without a piece


def bytes_of(strings):
    """The bytes of strings `(B,)`, ragged int32 `(B, None)`."""
    values = tf.io.decode_raw(tf.strings.reduce_join(strings), tf.uint8)
    return tf.RaggedTensor.from_row_lengths(
        tf.cast(values, tf.int32), tf.cast(tf.strings.length(strings), tf.int64)
    )


def kept(ids, keep):
    """Ragged ids `(U, None)` without those where `keep`, of its flat values, is False."""
    counts = tf.concat([[0], tf.cumsum(tf.cast(keep, tf.int64))], axis=0)
    splits = tf.gather(counts, ids.row_splits)
    return tf.RaggedTensor.from_row_splits(tf.boolean_mask(ids.flat_values, keep), splits)


class Bpe:
    """Byte-pair encoding of characters or of bytes.

    Args:
        letters: `{letter: id}`: of bytes, numbers as texts, or characters.
        merges: `[first, second, joined]` ids, in the order of their ranks, `packed`.
        vocab_size: Ids are below it.
        of_bytes: Whether letters are bytes.
        fallback: Ids of the 256 bytes, for characters that are no letters; () where they have none.
        unknown: The id of a letter that has none; None leaves it out.
        fuse: Whether unknown ones that follow each other are one.
        whole: `{word: id}` (texts, or bytes in Latin-1) of words that are not split.
        last: `{letter: id}` of the last letter of a word, where these have ids of their own.
    """

    def __init__(
        self,
        letters,
        merges,
        vocab_size,
        of_bytes,
        fallback=(),
        unknown=None,
        fuse=False,
        whole=(),
        last=(),
    ):
        self._of_bytes, self._fallback = of_bytes, np.array(fallback, np.int32)
        self._unknown, self._fuse = unknown, fuse
        keys = [int(letter) if of_bytes else ord(letter) for letter in letters]
        ids = np.array([*letters.values()], np.int32)
        self._letters = Table(np.array(keys, np.int32), ids)
        self._last = None
        if last:
            ids = np.array([*last.values()], np.int32)
            self._last = Table(np.array([*map(int, last)], np.int32), ids)
        merges = unpacked(merges)
        self._merges = Merges(merges[:, :2], merges[:, 2], vocab_size)
        self._whole = None
        if whole:
            code = "latin-1" if of_bytes else "utf-8"
            self._whole = Strings([w.encode(code) for w in whole], [*whole.values()])

    def __call__(self, words):
        letters = self._first(words)
        if self._whole is None:
            return self._merges(letters)
        whole = self._whole(words)
        known = tf.gather(whole >= 0, letters.value_rowids())
        joined = self._merges(kept(letters, ~known))
        at_once = tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(whole, whole >= 0), tf.cast(whole >= 0, tf.int64)
        )
        return tf.concat([at_once, joined], axis=1)

    def _first(self, words):
        """The ids of letters before any are joined."""
        values = bytes_of(words)
        missing = ABSENT if self._unknown is None else self._unknown
        if self._of_bytes:
            ids = self._letters(values.flat_values)
            if self._last is not None:
                rows = values.value_rowids()
                ends = tf.concat([rows[1:] != rows[:-1], tf.ones_like(rows[:1], tf.bool)], axis=0)
                ids = tf.where(ends, self._last(values.flat_values), ids)
            ids = tf.where(ids < 0, missing, ids)
        else:
            points = tf.strings.unicode_decode(words, "UTF-8").flat_values
            start = values.flat_values // 64 != 2  # the first byte of a character
            number = tf.gather(self._letters(points), tf.cumsum(tf.cast(start, tf.int32)) - 1)
            if len(self._fallback):
                other = tf.gather(self._fallback, values.flat_values)
            else:
                other = tf.where(start, missing, ABSENT)
            ids = tf.where(number < 0, other, tf.where(start, number, ABSENT))
        result = kept(values.with_flat_values(ids), ids >= 0)
        if self._fuse and self._unknown is not None:
            ids, rows = result.flat_values, result.value_rowids()
            again = (ids[1:] == self._unknown) & (ids[:-1] == self._unknown)
            again &= rows[1:] == rows[:-1]
            result = kept(result, ~tf.concat([tf.zeros_like(ids[:1], tf.bool), again], axis=0))
        return result


class WordPiece:
    """The longest piece that a word begins with, again and again.

    Args:
        pieces: `{piece: id}`; those behind the first begin with `prefix`.
        unknown: The id of a word that is not made of pieces.
        prefix: See `pieces`.
        longest: Characters of a word, at most; longer ones are unknown.
    """

    def __init__(self, pieces: dict, unknown: int, prefix="##", longest=100):
        self._trie = Trie([p for p in pieces if p], [n for p, n in pieces.items() if p])
        self._behind = self._trie.node(prefix)
        self._unknown, self._longest = unknown, longest

    def __call__(self, words):
        points = tf.strings.unicode_decode(words, "UTF-8")
        values, ends = points.flat_values, tf.cast(points.row_limits(), tf.int32)
        starts = tf.cast(points.row_starts(), tf.int32)
        long = ends - starts > self._longest
        count = tf.size(starts)
        rows = tf.boolean_mask(tf.range(count), ~long)
        ids = tf.fill((tf.size(values),), ABSENT)
        one = tf.TensorShape((None,))

        def step(rows, places, ids, bad):
            first = places == tf.gather(starts, rows)
            node = tf.where(first, 0, self._behind)
            number, end = self._piece(values, places, tf.gather(ends, rows), node)
            none = number < 0
            bad = tf.tensor_scatter_nd_update(bad, rows[:, None], none)
            ids = tf.tensor_scatter_nd_update(ids, places[:, None], number)
            on = ~none & (end < tf.gather(ends, rows))
            return tf.boolean_mask(rows, on), tf.boolean_mask(end, on), ids, bad

        states = (rows, tf.gather(starts, rows), ids, long)
        *_, ids, bad = tf.while_loop(lambda rows, *_: tf.size(rows) > 0, step, states, (one,) * 4)
        good = points.with_flat_values(ids)
        good = kept(good, (ids >= 0) & ~tf.gather(bad, points.value_rowids()))
        unknown = tf.fill((tf.reduce_sum(tf.cast(bad, tf.int32)),), self._unknown)
        unknown = tf.RaggedTensor.from_row_lengths(unknown, tf.cast(bad, tf.int64))
        return tf.concat([unknown, good], axis=1)

    def _piece(self, values, places, ends, node):
        """The longest piece at each place, and where it ends; -1 where there is none."""
        one = tf.TensorShape((None,))

        def step(rows, places, node, number, end):
            node = self._trie.step(node, tf.gather(values, places))
            rows, places, node = (tf.boolean_mask(x, node >= 0) for x in (rows, places, node))
            found = self._trie.numbers(node)
            there, behind = tf.boolean_mask(rows, found >= 0)[:, None], places + 1
            number = tf.tensor_scatter_nd_update(number, there, tf.boolean_mask(found, found >= 0))
            end = tf.tensor_scatter_nd_update(end, there, tf.boolean_mask(behind, found >= 0))
            on = behind < tf.gather(ends, rows)
            rows, places, node = (tf.boolean_mask(x, on) for x in (rows, behind, node))
            return rows, places, node, number, end

        valid = node >= 0
        rows = tf.boolean_mask(tf.range(tf.size(places)), valid)
        states = (rows, tf.boolean_mask(places, valid), tf.boolean_mask(node, valid))
        states += (tf.fill((tf.size(places),), ABSENT), tf.identity(places))
        *_, number, end = tf.while_loop(
            lambda rows, *_: tf.size(rows) > 0, step, states, (one,) * 5
        )
        return number, end


class Unigram:
    """The likeliest pieces of a word, by Viterbi's algorithm.

    Args:
        pieces: `[text, score]` in the order of their ids; one without a text is in no word.
        unknown: The id of characters that have no piece.
        fallback: Ids of the 256 bytes for these; () where they have none.
        fuse: Whether unknown ones that follow each other are one.
        dtype: Of sums of scores.
    """

    def __init__(self, pieces, unknown, fallback=(), fuse=True, dtype="float64"):
        texts = {text: i for i, (text, _) in enumerate(pieces) if text}
        self._trie = Trie([*texts], [*texts.values()])
        self._scores = np.array([score for _, score in pieces], dtype)
        self._unknown, self._fuse = unknown, fuse
        self._fallback = np.array(fallback, np.int32)
        self._cost = (self._scores.min() - self._scores.dtype.type(UNKNOWN_COST)).astype(dtype)

    def __call__(self, words):
        points, rows = self._best(words)
        return self._to_bytes(points, rows) if len(self._fallback) else self._kept(rows)[0]

    def pieces(self, words):
        """The ids as `__call__` gives them, and the pieces as they stand, ragged `(U, None)`.

        With ids of bytes, the pieces are None.
        """
        points, rows = self._best(words)
        if len(self._fallback):
            return self._to_bytes(points, rows), None
        ids, keep = self._kept(rows)
        number = tf.cumsum(tf.cast(keep, tf.int64)) - 1
        parts = tf.RaggedTensor.from_value_rowids(points.flat_values, number, ids.row_splits[-1])
        return ids, ids.with_flat_values(tf.strings.unicode_encode(parts, "UTF-8"))

    def _kept(self, rows):
        """The pieces of `_best`, and where they begin."""
        ids, of = rows.flat_values, rows.value_rowids()
        keep = ids >= 0
        result = kept(rows, keep)
        if self._fuse:
            ids, of = result.flat_values, result.value_rowids()
            again = (ids[1:] == self._unknown) & (ids[:-1] == self._unknown)
            again &= of[1:] == of[:-1]
            first = ~tf.concat([tf.zeros_like(ids[:1], tf.bool), again], axis=0)
            place = tf.where(keep)
            keep = tf.tensor_scatter_nd_update(keep, place, first)
            result = kept(result, first)
        return result, keep

    def _best(self, words):
        """The code points of words, and at each the piece that begins there, or -1."""
        points = tf.strings.unicode_decode(words, "UTF-8")
        lengths = tf.cast(points.row_lengths(), tf.int32)
        # Between characters: one more place than characters of each word.
        starts = tf.cast(points.row_starts(), tf.int32) + tf.range(tf.size(lengths))
        size = tf.size(points.flat_values) + tf.size(lengths)
        padded = tf.concat([points, tf.zeros((points.nrows(), 1), tf.int32)], axis=1).flat_values
        score = tf.zeros((size,), self._scores.dtype)
        back = tf.fill((size,), ABSENT)  # where the piece that ends here began
        piece = tf.fill((size,), ABSENT)
        one = tf.TensorShape((None,))

        def forward(position, rows, score, back, piece):
            place = tf.gather(starts, rows) + position
            state = (tf.zeros_like(place), place, place, tf.gather(starts + lengths, rows))
            single = tf.zeros((size,), tf.bool)

            def longer(node, origin, at, end, score, back, piece, single):
                node = self._trie.step(node, tf.gather(padded, at))
                node, origin, at, end = (
                    tf.boolean_mask(x, node >= 0) for x in (node, origin, at, end)
                )
                number = self._trie.numbers(node)
                there = number >= 0
                alone = tf.boolean_mask(origin, there & (at == origin))
                single = tf.tensor_scatter_nd_update(
                    single, alone[:, None], tf.ones_like(alone, tf.bool)
                )
                score, back, piece = self._better(
                    *(tf.boolean_mask(x, there) for x in (number, origin, at + 1)),
                    *(score, back, piece),
                )
                on = at + 1 < end
                node, origin, at, end = (
                    tf.boolean_mask(x, on) for x in (node, origin, at + 1, end)
                )
                return node, origin, at, end, score, back, piece, single

            *_, score, back, piece, single = tf.while_loop(
                lambda node, *_: tf.size(node) > 0,
                longer,
                (*state, score, back, piece, single),
                (one,) * 8,
            )
            lone = tf.boolean_mask(place, ~tf.gather(single, place))
            none = tf.fill((tf.size(lone),), self._unknown)
            score, back, piece = self._better(none, lone, lone + 1, score, back, piece, self._cost)
            rows = tf.boolean_mask(rows, position + 1 < tf.gather(lengths, rows))
            return position + 1, rows, score, back, piece

        states = (tf.constant(0), tf.range(tf.size(lengths)), score, back, piece)
        *_, back, piece = tf.while_loop(
            lambda position, rows, *_: tf.size(rows) > 0,
            forward,
            states,
            (tf.TensorShape(()), one, one, one, one),
        )
        return self._backward(points, starts, lengths, back, piece)

    def _better(self, number, origin, target, score, back, piece, cost=None):
        """Take over pieces that are better than what ended at their targets; the first of equals
        stays."""
        own = tf.gather(self._scores, number) if cost is None else tf.constant(cost)
        new = tf.gather(score, origin) + own
        better = (tf.gather(back, target) < 0) | (new > tf.gather(score, target))
        place = tf.boolean_mask(target, better)[:, None]
        new, origin, number = (tf.boolean_mask(x, better) for x in (new, origin, number))
        score = tf.tensor_scatter_nd_update(score, place, new)
        back = tf.tensor_scatter_nd_update(back, place, origin)
        return score, back, tf.tensor_scatter_nd_update(piece, place, number)

    def _backward(self, points, starts, lengths, back, piece):
        """The pieces of the best path."""
        one = tf.TensorShape((None,))
        places = starts + lengths

        def step(places, taken):
            origin = tf.gather(back, places)
            taken = tf.tensor_scatter_nd_update(taken, origin[:, None], tf.gather(piece, places))
            return tf.boolean_mask(origin, tf.gather(back, origin) >= 0), taken

        # A piece stands at its first character.
        _, taken = tf.while_loop(
            lambda places, taken: tf.size(places) > 0,
            step,
            (places, tf.fill(tf.shape(back), ABSENT)),
            (one, one),
        )
        rows = tf.RaggedTensor.from_row_lengths(taken, points.row_lengths() + 1)[:, :-1]
        return points, rows

    def _to_bytes(self, points, rows):
        """Bytes in the place of unknown characters."""
        characters = tf.strings.unicode_encode(points.flat_values[:, None], "UTF-8")
        unknown = rows.flat_values == self._unknown
        values = bytes_of(tf.where(unknown, characters, "?"))
        other = tf.gather(self._fallback, values.flat_values)
        of = values.value_rowids()
        ids = tf.where(tf.gather(unknown, of), other, tf.gather(rows.flat_values, of))
        ends = tf.gather(values.row_splits, rows.row_splits)
        ids = tf.RaggedTensor.from_row_splits(ids, ends)
        return kept(ids, ids.flat_values >= 0)
