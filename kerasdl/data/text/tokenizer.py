"""Text as token ids and back, in TensorFlow's graph: characters, bytes, BPE, WordPiece, unigrams.

A `Tokenizer` is a short JSON text, so it can be kept in a run, a checkpoint and a
SavedModel. The first four ids are always those of `kerasdl.ops.text`: padding, begin, end, unknown.

Source: Sennrich et al. 2016, Neural machine translation of rare words with subword units (`bpe`,
        on bytes as in Radford et al. 2019); Schuster and Nakajima 2012 (`wordpiece`); Kudo 2018,
        Subword regularization (`sentencepiece`: its unigram model).
"""

import base64
import io
import json
import math
from collections import Counter
from functools import cached_property

import numpy as np
import tensorflow as tf

from kerasdl.data.text.lookup import Table
from kerasdl.data.text.merges import Merges
from kerasdl.data.text.published import Pipeline
from kerasdl.data.text.specs import byte_names
from kerasdl.data.text.subwords import bytes_of
from kerasdl.errors import UserError
from kerasdl.ops.text import MASK, SPECIAL, UNK, Pieces, Specials
from kerasdl.system.names import nearest

KINDS = ("char", "byte", "bpe", "wordpiece", "sentencepiece")
PUBLISHED = "published"  # the kind of those that others trained
VOCAB_SIZE = 8000  # default maximum of the kinds that are trained
NAMES = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
SPACE = r"\t\n\x0b\f\r \p{Z}"
# Where BPE joins nothing across; every character is matched. RE2 and Oniguruma read it alike.
SPLIT = rf" ?\p{{L}}+| ?\p{{N}}+| ?[^{SPACE}\p{{L}}\p{{N}}]+|[{SPACE}]+"
WORD = 32  # bytes after which BPE splits as well, so that its time is linear in the text's length
NOT_UTF8 = b"\xff"  # stands in no valid text
CHUNK = 2**20  # characters that `encode` reads at once, unless a single text has more


class Tokenizer(tf.Module):
    """Token ids of texts and texts of token ids.

    A `tf.Module`: a SavedModel whose signatures use it must track it. `char`, `byte` and `bpe`
    need TensorFlow's own operations only, and have no resources.

    Args:
        metadata: `kind`, `pieces` (see `kerasdl.ops.text.Pieces`), `strip` (whether a leading space
            is dropped), and for `bpe` the `merges`, pairs of ids in the order of their ranks; for
            `sentencepiece` its `model`, as base64. `mask` is the id of the mask token, the last
            one, where there is one: what a text calls `[MASK]`. Of `published` ones what
            `kerasdl.data.text.published` says, and `specials`, as `kerasdl.ops.text.Specials`
            has them.

    Raises:
        ValueError: An unknown kind.
    """

    def __init__(self, metadata: dict):
        super().__init__()
        if metadata["kind"] not in (*KINDS, PUBLISHED):
            raise UserError(
                f"tokenizer {metadata['kind']!r}: not one of {', '.join(KINDS)}"
                f"{nearest(metadata['kind'], KINDS)}"
            )
        self.kind = metadata["kind"]
        self._json = json.dumps(metadata)
        self._pieces = Pieces(self._json)
        self.specials = Specials.from_dict(metadata.get("specials", {}))
        self._table, self._encoded = None, self._ids
        known = self._pieces.pieces[: self._pieces.mask]
        if self.kind == "char":
            self._table = _characters(known)
        elif self.kind == "bpe":
            self._merges = _merges(self._pieces.pieces, metadata["merges"])
        elif self.kind == "wordpiece":
            self._words = _wordpiece(known)
        elif self.kind == "sentencepiece":
            self._model = base64.b64decode(metadata["model"])
        elif self.kind == PUBLISHED:
            self._pipeline = Pipeline(metadata)
            spec = [tf.TensorSpec((None,), tf.string)]
            graph = tf.function(self._ids, spec, autograph=False)
            # No part of the module: a SavedModel holds signatures.
            self._encoded = lambda strings: graph(strings)

    def to_json(self) -> str:
        return self._json

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        return cls(json.loads(text))

    @property
    def vocab_size(self) -> int:
        """Ids of the vocabulary, with the special ones."""
        return len(self._pieces.pieces)

    @property
    def needs_text_ops(self) -> bool:
        """Whether `ids` needs the operations of tensorflow-text."""
        if self.kind == PUBLISHED:
            return self._pipeline.needs_text_ops
        return self.kind in ("wordpiece", "sentencepiece")

    @cached_property
    def _known(self):
        return {piece.decode() for piece in self._pieces.pieces[SPECIAL:]}

    def of_targets(self) -> "Tokenizer":
        """The tokenizer of translations, where that of their sources is this one."""
        metadata = json.loads(self._json)
        if not metadata.get("target"):
            return self
        return Tokenizer({**metadata, "model": metadata["target"]})

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that have no id, sorted; only `char` has such."""
        text = text if self._pieces.mask is None else text.replace(MASK, "")
        return sorted(set(text) - self._known) if self.kind == "char" else []

    def encode(self, texts) -> list[np.ndarray]:
        """The ids of each text, int32; those of published tokenizers with what these put around.

        Args:
            texts: Strings, or bytes of UTF-8.

        Raises:
            ValueError: A text is not valid Unicode.
        """
        result, chunk, size = [], [], 0
        for number, text in enumerate(texts):
            chunk.append(_utf8(text, number, self.kind != "byte"))
            size += len(chunk[-1])
            if size >= CHUNK:
                result += self._arrays(chunk)
                chunk, size = [], 0
        return result + (self._arrays(chunk) if chunk else [])

    def _arrays(self, texts):
        ids = self._encoded(tf.constant(texts, tf.string))
        return np.split(ids.flat_values.numpy(), ids.row_splits.numpy()[1:-1])

    def decode(self, ids) -> str:
        """The text of ids `(N,)` up to the first end; broken UTF-8 becomes U+FFFD."""
        return self._pieces.decode(ids)

    def ids(self, strings):
        """Ids of a batch of texts, in graph operations.

        Args:
            strings: string `(B,)`, UTF-8 (`byte` takes anything).

        Returns:
            `(ids, lengths)`: int32 `(B, N)`, filled up with padding, and int32 `(B,)`.

        Raises:
            tf.errors.InvalidArgumentError: A text is not valid UTF-8.
        """
        ids = self._ids(strings)
        return ids.to_tensor(self.specials.pad), tf.cast(ids.row_lengths(), tf.int32)

    def text(self, ids):
        """Texts of a batch of ids up to the first end, in graph operations.

        Args:
            ids: int `(B, M)`.

        Returns:
            string `(B,)`; broken UTF-8 becomes U+FFFD.
        """
        ids = tf.cast(ids, tf.int32)
        for end in self._pieces.ends:
            ended = tf.cumsum(tf.cast(ids == end, tf.int32), axis=1) > 0
            ids = tf.where(ended, self.specials.pad, ids)
        pieces = tf.gather(tf.constant(self._pieces.pieces), ids)
        if self._pieces.first or self._pieces.blank:
            pieces = self._with_first(ids, pieces)
        text = tf.strings.reduce_join(pieces, axis=1)
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        return tf.strings.regex_replace(text, "^ ", "") if self._pieces.strip else text

    def _with_first(self, ids, pieces):
        """Pieces, of which the first that is shown may read otherwise."""
        unseen = np.zeros(self.vocab_size, bool)
        unseen[[*self._pieces.hidden, *self._pieces.blank]] = True
        hidden = tf.gather(unseen, ids)
        place = tf.cumsum(tf.cast(~hidden, tf.int32), axis=1)
        if self._pieces.blank:
            pieces = tf.where(hidden & (place == 0), "", pieces)
        order = sorted(self._pieces.first)
        numbers = Table(np.array(order, np.int32), np.arange(len(order), dtype=np.int32))(ids)
        texts = [*(self._pieces.first[i] for i in order), b""]
        other = tf.gather(texts, tf.maximum(numbers, 0))
        return tf.where(~hidden & (place == 1) & (numbers >= 0), other, pieces)

    def _ids(self, strings):
        """Ragged int32 `(B, None)`; what stands between mask tokens is read by itself."""
        if self._pieces.mask is None or self.kind == PUBLISHED:
            return self._plain_ids(strings)
        parts = tf.strings.split(strings, MASK)
        ids = self._plain_ids(parts.flat_values)
        masks = tf.fill((ids.nrows(), 1), self._pieces.mask)
        ids = parts.with_flat_values(tf.concat([ids, masks], axis=1))
        return ids.merge_dims(1, 2)[:, :-1]

    def _plain_ids(self, strings):
        if self.kind == "byte":
            return bytes_of(strings) + SPECIAL
        if self.kind == "char":
            points = tf.strings.unicode_decode(strings, "UTF-8", errors="strict")
            return tf.ragged.map_flat_values(self._characters, points)
        # Changes nothing, but refuses what is not UTF-8.
        strings = tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="strict")
        if self.kind == PUBLISHED:
            return self._pipeline(strings)
        if self.kind == "bpe":
            return self._bpe(strings)
        if self.kind == "wordpiece":
            return tf.cast(self._words(strings), tf.int32)
        import tensorflow_text

        # Made anew each time: TensorFlow forgets the model outside of graphs when a seed is set.
        return tensorflow_text.SentencepieceTokenizer(self._model, tf.int32).tokenize(strings)

    def _characters(self, points):
        characters, ids = self._table
        place = tf.minimum(tf.searchsorted(characters, points), len(characters) - 1)
        return tf.where(tf.gather(characters, place) == points, tf.gather(ids, place), UNK)

    def _bpe(self, strings):
        """Split into words, and these after some bytes, and join pairs in each."""
        marked = tf.strings.regex_replace(strings, SPLIT, b"\\0" + NOT_UTF8)
        words = tf.strings.split(marked, NOT_UTF8)
        unique, place = tf.unique(words.flat_values)
        letters = bytes_of(unique)  # (U, None)
        offset = tf.ragged.range(letters.row_lengths()).flat_values
        starts = tf.where(offset % WORD == 0)[:, 0]
        ends = tf.concat([starts, letters.row_splits[-1:]], axis=0)
        ids = self._merges(tf.RaggedTensor.from_row_splits(letters.flat_values + SPECIAL, ends))
        parts = -(-letters.row_lengths() // WORD)  # of each word
        ids = tf.RaggedTensor.from_row_lengths(ids, parts).merge_dims(1, 2)
        return words.with_flat_values(tf.gather(ids, place)).merge_dims(1, 2)


def train(kind: str, texts, vocab_size: int | None = None) -> Tokenizer:
    """A tokenizer for some texts; the same for the same texts.

    Args:
        kind: `char` (the characters of the texts, the most frequent ones up to `vocab_size`),
            `byte`, `bpe`, `wordpiece` or `sentencepiece`.
        texts: Strings, at least one of which is not empty.
        vocab_size: Maximum number of ids, the four special ones included; None is 8,000, and for
            `char` all characters.

    Raises:
        ValueError: An unknown kind, no text, or a vocabulary that is too small.
    """
    texts = [text for text in texts if text]
    if kind not in KINDS:
        raise UserError(f"--tokenizer {kind}: not one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    if not texts:
        raise UserError("a tokenizer needs at least one text that is not empty")
    if kind == "char":
        return _train_char(texts, vocab_size)
    if kind == "byte":
        if vocab_size is not None:
            raise UserError(
                f"--vocab-size {vocab_size}: byte always has {SPECIAL + 256} ids; leave it out"
            )
        return _make(kind, [bytes([value]) for value in range(256)])
    return {"bpe": _train_bpe, "wordpiece": _train_wordpiece, "sentencepiece": _train_unigram}[
        kind
    ](texts, vocab_size or VOCAB_SIZE)


def give_texts(task):
    """Give a task the token ids of the texts that it needs; returns the task."""
    if task.texts:
        task.text_ids = Tokenizer.from_json(task.info.tokenizer).encode(task.texts)
    return task


def with_mask(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with a mask token besides: its last id."""
    metadata = json.loads(tokenizer.to_json())
    if "mask" in metadata:
        return tokenizer
    pieces = metadata["pieces"]
    word = f" {MASK}" if tokenizer.kind == "wordpiece" else MASK  # its words begin with a space
    return Tokenizer({**metadata, "pieces": [*pieces, word], "mask": len(pieces)})


def _make(kind, pieces, space=b"", **more):
    """A tokenizer of the pieces (bytes) after the special ones."""
    pieces = [b"", b"", b"", space + "\ufffd".encode(), *pieces]
    return Tokenizer({"kind": kind, "pieces": [p.decode("latin-1") for p in pieces], **more})


def _train_char(texts, vocab_size):
    count = Counter()
    for text in texts:
        count.update(text)
    maximum = math.inf if vocab_size is None else vocab_size - SPECIAL
    if maximum < 1:
        raise UserError(f"--vocab-size {vocab_size}: char needs at least {SPECIAL + 1}")
    order = sorted(count, key=lambda character: (-count[character], character))
    kept = sorted(order[: min(maximum, len(order))])
    return _make("char", [character.encode() for character in kept])


def _train_bpe(texts, vocab_size):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if vocab_size < SPECIAL + 256:
        raise UserError(f"--vocab-size {vocab_size}: bpe needs at least {SPECIAL + 256}")
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    byte = {character: bytes([value]) for value, character in byte_names().items()}
    merges = [
        tuple(b"".join(byte[c] for c in half) for half in pair)
        for pair in json.loads(model.to_str())["model"]["merges"]
    ]
    pieces = list(dict.fromkeys([*(bytes([v]) for v in range(256)), *map(b"".join, merges)]))
    number = {piece: SPECIAL + i for i, piece in enumerate(pieces)}
    return _make("bpe", pieces, merges=[[number[a], number[b]] for a, b in merges])


def _train_wordpiece(texts, vocab_size):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.WordPiece(unk_token=NAMES[UNK]))
    model.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Given in order, since the trainer numbers the others in no fixed order.
    characters = sorted(set().union(*texts))
    suffixes = [f"##{character}" for character in characters if not character.isspace()]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=NAMES + suffixes, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    vocabulary = model.get_vocab()
    if len(vocabulary) > vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: wordpiece needs at least {len(vocabulary)} for the "
            "characters of these texts"
        )
    words = sorted(vocabulary, key=vocabulary.get)[SPECIAL:]
    pieces = [w[2:] if len(w) > 2 and w.startswith("##") else f" {w}" for w in words]
    return _make("wordpiece", [p.encode() for p in pieces], b" ", strip=True)


def _train_unigram(texts, vocab_size):
    import sentencepiece

    model = io.BytesIO()
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n"],
            max_sentence_length=2**20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"--vocab-size {vocab_size}: too small for sentencepiece, which needs the "
            f"{len(set().union(*texts))} characters of these texts and 256 bytes"
        ) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = []
    for i in range(SPECIAL, trained.vocab_size()):
        name = trained.id_to_piece(i)
        byte = bytes([int(name[1:-1], 16)]) if trained.is_byte(i) else None
        pieces.append(byte or name.replace("\u2581", " ").encode())
    code = base64.b64encode(model.getvalue()).decode()
    return _make("sentencepiece", pieces, strip=True, model=code)


def _wordpiece(pieces):
    """KerasHub's tokenizer of a vocabulary, as a function."""
    import keras_hub

    words = [piece.decode() for piece in pieces[SPECIAL:]]
    words = [word[1:] if word.startswith(" ") else f"##{word}" for word in words]
    layer = keras_hub.tokenizers.WordPieceTokenizer(NAMES + words, oov_token=NAMES[UNK])
    graph = tf.function(layer)  # outside of graphs the layer returns lists
    return lambda strings: graph(strings)  # no part of the module: a SavedModel holds signatures


def _characters(pieces):
    """Sorted code points, and the id of each."""
    points = np.array([ord(piece.decode()) for piece in pieces[SPECIAL:]], np.int32)
    order = np.argsort(points)
    return points[order], (order + SPECIAL).astype(np.int32)


def _merges(pieces, merges):
    number = {piece: i for i, piece in enumerate(pieces)}
    joined = [number[pieces[a] + pieces[b]] for a, b in merges]
    return Merges(merges, joined, len(pieces))


def _utf8(text, number, strict):
    """Bytes of a text; ValueError where they are not UTF-8 and `strict`."""
    try:
        if isinstance(text, str):
            return text.encode()
        if strict:
            bytes(text).decode()
    except UnicodeError as error:
        raise UserError(
            f"text {number + 1} is not valid Unicode at position {error.start}: {error.reason}"
        ) from error
    return bytes(text)
