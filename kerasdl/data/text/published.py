"""Tokenizers of published models in TensorFlow's graph.

Their metadata, which `kerasdl.data.text.reading` makes of the published files:

| key | what |
|---|---|
| `added` | two lists of `[text, id, lstrip, rstrip]`: found before and behind the normalizer |
| `normalizer` | steps of `kerasdl.data.text.normalize` |
| `prefix` | `[pattern, rewrite]` for the text that stands first; null where nothing is put there |
| `splits` | `[pattern, [text, ...]]` pairs: the texts, with boundaries between, replace a match |
| `model` | `[class of kerasdl.data.text.subwords, its arguments]`, or sentencepiece's, see below |
| `around` | two lists of ids: before and behind every text |

A model of sentencepiece is `["SentencePiece", arguments of SentencePiece]`.
"""

import base64

import numpy as np
import tensorflow as tf

from kerasdl.data.text import subwords
from kerasdl.data.text.lookup import Strings
from kerasdl.data.text.normalize import Normalizer
from kerasdl.data.text.patterns import SPACE, quoted

BOUNDARY = b"\xff"  # stands in no valid text


class Added:
    """Splits texts at tokens that are looked for as they stand.

    Args:
        tokens: `[text, id, lstrip, rstrip]`; the last two say whether white space around it goes.
    """

    def __init__(self, tokens):
        self._numbers = Strings([t.encode() for t, *_ in tokens], [n for _, n, *_ in tokens])
        longest_first = sorted((t for t, *_ in tokens), key=len, reverse=True)
        self._pattern = "|".join(map(quoted, longest_first))
        size = max((n for _, n, *_ in tokens), default=-1) + 1
        self._strips = np.zeros((size, 2), bool)  # what stands before, and behind
        for _, number, left, right in tokens:
            self._strips[number] = left, right
        self._any = bool(tokens)

    def __call__(self, texts, ids, rows, head):
        """Split texts where tokens are.

        Args:
            texts: string `(N,)`.
            ids: int32 `(N,)`, of those that are tokens already, -1 of others.
            rows: int64 `(N,)`, which texts they are of.
            head: bool `(N,)`, whether they are the first of these.

        Returns:
            The same of the parts, none of them empty.
        """
        if not self._any:
            return texts, ids, rows, head
        marked = tf.strings.regex_replace(texts, self._pattern, BOUNDARY + rb"\0" + BOUNDARY)
        parts = tf.strings.split(tf.where(ids < 0, marked, ""), BOUNDARY)
        place = tf.ragged.range(parts.row_lengths()).flat_values
        of = parts.value_rowids()
        found = tf.where(place % 2 == 1, self._numbers(parts.flat_values), -1)
        texts = self._stripped(parts.flat_values, found)
        ids = tf.maximum(found, tf.gather(ids, of))
        keep = (ids >= 0) | (texts != "")
        head = tf.gather(head, of) & (place == 0)
        rows = tf.gather(rows, of)
        return tuple(tf.boolean_mask(x, keep) for x in (texts, ids, rows, head))

    def _stripped(self, texts, found):
        """Texts without the white space that the tokens beside them take."""
        if not self._strips.any():
            return texts
        left, right = tf.unstack(tf.gather(self._strips, tf.maximum(found, 0)), axis=1)
        left, right = left & (found >= 0), right & (found >= 0)
        before = tf.concat([[False], right[:-1]], axis=0)
        behind = tf.concat([left[1:], [False]], axis=0)
        space = f"[{SPACE}]+"
        texts = tf.where(before, tf.strings.regex_replace(texts, rf"\A{space}", ""), texts)
        return tf.where(behind, tf.strings.regex_replace(texts, rf"{space}\z", ""), texts)


class Pipeline:
    """Ids of texts as a published tokenizer gives them.

    Args:
        metadata: See the module.
    """

    def __init__(self, metadata: dict):
        self._added = [Added(tokens) for tokens in metadata["added"]]
        self._normalizer = Normalizer(metadata["normalizer"])
        self._prefix = metadata["prefix"]
        self._splits = [
            (pattern, BOUNDARY.join(text.encode() for text in texts))
            for pattern, texts in metadata["splits"]
        ]
        kind, *arguments = metadata["model"]
        self._around = metadata["around"]
        self._sentences = kind == "SentencePiece"
        self.needs_text_ops = self._sentences or self._normalizer.needs_text_ops
        if self._sentences:
            self._model = SentencePiece(*arguments)
        else:
            (settings,) = arguments
            if settings.get("whole") is True:
                words = enumerate(metadata["pieces"])
                settings = settings | {"whole": {word: i for i, word in words if word}}
            self._model = getattr(subwords, kind)(**settings)

    def __call__(self, strings):
        """Ragged int32 `(B, None)` of strings `(B,)`, which are UTF-8."""
        count = tf.size(strings)
        state = strings, tf.fill((count,), -1), tf.range(tf.cast(count, tf.int64))
        state = *state, tf.fill((count,), True)
        before, behind = self._added
        texts, ids, rows, head = before(*state)
        texts = self._normalizer(texts)
        texts, ids, rows, head = behind(texts, ids, rows, head)
        if self._prefix:
            pattern, rewrite = self._prefix
            new = tf.strings.regex_replace(texts, pattern, rewrite, replace_global=False)
            texts = tf.where(head, new, texts)
        token = ids >= 0
        numbers = self._numbers(tf.where(token, "", texts))
        tokens = tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(ids, token), tf.cast(token, tf.int64)
        )
        numbers = tf.concat([numbers, tokens], axis=1)
        rows = tf.RaggedTensor.from_value_rowids(numbers, rows, tf.cast(count, tf.int64))
        return self._framed(rows.merge_dims(1, 2), count)

    def _numbers(self, texts):
        """Ids of texts `(N,)` without added tokens: those of their words."""
        if self._sentences:
            return self._model(texts)
        for pattern, rewrite in self._splits:
            texts = tf.strings.regex_replace(texts, pattern, rewrite)
        words = tf.strings.split(texts, BOUNDARY)
        words = subwords.kept(words, words.flat_values != "")
        unique, place = tf.unique(words.flat_values)
        ids = self._model(unique)
        return words.with_flat_values(tf.gather(ids, place)).merge_dims(1, 2)

    def _framed(self, ids, count):
        """With what stands before and behind each text."""
        first, last = (np.array(one, np.int32) for one in self._around)
        parts = []
        for one in (first, None, last):
            if one is None:
                parts.append(ids)
            elif len(one):
                parts.append(tf.RaggedTensor.from_tensor(tf.tile(one[None], (count, 1))))
        return tf.concat(parts, axis=1) if len(parts) > 1 else ids


class SentencePiece:
    """A model of sentencepiece, by the operation of tensorflow-text.

    The operation is of an older library, which breaks ties between unigrams in another way: it only
    normalizes their texts.

    Args:
        model: In base64.
        unigram: Arguments of `Unigram`, or None of other models.
        texts: `[text]` of ids that the pieces have in place of their own; or None.
        unknown: The id of other pieces, likewise.
    """

    def __init__(self, model, unigram=None, texts=None, unknown=None):
        self._code, self._unknown = base64.b64decode(model), unknown
        self._unigram, self._normal = None, None
        if unigram:
            self._unigram = subwords.Unigram(**unigram)
            # Bytes stand for characters without a piece; without them these are pieces as they are.
            self._normal = _raw(unigram["pieces"], unigram["fallback"])
        self._places = None
        if texts:
            self._places = Strings([text.encode() for text in texts], [*range(len(texts))])

    def _tokenize(self, strings, kind):
        import tensorflow_text

        # Made anew each time: TensorFlow forgets the model outside of graphs when a seed is set.
        return tensorflow_text.SentencepieceTokenizer(self._code, kind).tokenize(strings)

    def __call__(self, strings):
        if self._unigram is None:
            if self._places is None:
                return self._tokenize(strings, tf.int32)
            pieces = self._tokenize(strings, tf.string)
        else:
            if self._normal is None:
                normal = self._tokenize(strings, tf.string)
            else:
                ids = self._tokenize(strings, tf.int32)
                normal = ids.with_flat_values(tf.gather(self._normal, ids.flat_values))
            words = tf.strings.reduce_join(normal, axis=1)
            there = words != ""
            ids, pieces = self._unigram.pieces(tf.boolean_mask(words, there))
            rows = tf.cast(tf.where(there)[:, 0], tf.int64)
            count = tf.size(strings, tf.int64)

            def placed(x):
                of = tf.gather(rows, x.value_rowids())
                return tf.RaggedTensor.from_value_rowids(x.flat_values, of, count)

            if self._places is None:
                return placed(ids)
            pieces = placed(pieces)
        found = self._places(pieces.flat_values)
        return pieces.with_flat_values(tf.where(found < 0, self._unknown, found))


def _raw(pieces, fallback):
    """The bytes of each piece as the normalized text has them; None without ids of bytes."""
    if not fallback:
        return None
    texts = [text.encode() for text, _ in pieces]
    for value, number in enumerate(fallback):
        texts[number] = bytes([value])
    return texts
