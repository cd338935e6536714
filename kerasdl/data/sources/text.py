"""`text:FILE_OR_FOLDER`: plain text for language models, and what every such source is made of."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import fingerprint
from kerasdl.data.sources.folder import PARTS
from kerasdl.data.splits import Split, check_val_split, make_source
from kerasdl.data.text import ngram
from kerasdl.data.text import tokenizer as tokenizers
from kerasdl.errors import UserError
from kerasdl.ops import noise
from kerasdl.ops.text import UNK

GIVES = {"token_ids": "tokens"}
MAX_LENGTH = 128
BETWEEN = "\n\n"  # two documents
SHIFT_STREAM = 2**16 + 64


class WindowSplit(Split):
    """Windows of a stream of tokens, side by side; what is left at its end is dropped.

    Args:
        tokens: int32 `(M,)`.
        max_length: Targets per window, `N`; a window has the token before them as well.
        shift: Whether `load` moves each window on by a random part of its length, of its key.
    """

    batched = True

    def __init__(self, tokens, max_length, shift=False):
        self.tokens, self.max_length, self.shift = tokens, max_length, shift
        self._stream = tf.constant(tokens, tf.int32)

    def __len__(self):
        return max(len(self.tokens) - 1, 0) // self.max_length

    def columns(self):
        return {"start": np.arange(len(self), dtype=np.int64) * self.max_length}

    def digest(self):
        return fingerprint.of_arrays({"tokens": self.tokens})

    def load(self, row):
        start = row.pop("start")  # (B,)
        if self.shift and "key" in row:
            moved = noise.randint(row["key"], (), 0, self.max_length, SHIFT_STREAM)
            start = start + tf.cast(moved, tf.int64)
            start = tf.minimum(start, len(self.tokens) - self.max_length - 1)
        place = start[:, None] + tf.range(self.max_length + 1, dtype=tf.int64)
        return {**row, "token_ids": tf.gather(self._stream, place)}


def load(where, options):
    """A text file, or all of a folder: `*.txt`, or every file where there is none of these.

    A folder's `train/`, `val/` and `test/` are its parts. Of what has none, and for parts that are
    missing, each training file is divided: its last part, a fraction `val_split`, is the test part,
    and as much before it is validation.
    """
    root = Path(where)
    if not root.exists():
        raise UserError(f"{options.name}: there is no file or folder {where}")
    notes, bad = [], []
    texts = {
        part: [read_text(path, options, bad) for path in paths]
        for part, paths in _find(root).items()
    }
    if bad:
        notes.append(f"left out {len(bad)} unreadable files, the first {bad[0]}")
    texts = {part: [text for text in whole if text] for part, whole in texts.items()}
    if not texts.get("train"):
        raise UserError(f"{options.name}: the training part holds no text")
    split_missing(options, texts, notes)
    return language_source(options, texts, notes)


def split_missing(options, texts, notes):
    """Take the parts that are not in `{part: texts}` from the end of each training text."""
    missing = [part for part in ("validation", "test") if part not in texts]
    if not missing:
        return
    check_fractions(options, len(missing))
    whole, fraction = texts["train"], options.val_split
    ends = [1 - fraction * k for k in range(len(missing), -1, -1)]
    for part, start, end in zip(["train", *missing], [0, *ends], ends, strict=False):
        texts[part] = [text[round(len(text) * start) : round(len(text) * end)] for text in whole]
    for part in missing:
        notes.append(f"{part} part: {fraction:.0%} of each training text, from its end")


def _find(root):
    """`{part: paths}`, sorted; all is `train` where there are no parts."""

    def files(folder):
        result = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(p.startswith(".") for p in path.parts[len(root.parts) :])
        ]
        return [path for path in result if path.suffix.lower() == ".txt"] or result

    if root.is_file():
        return {"train": [root]}
    if not (root / "train").is_dir():
        return {"train": files(root)}
    return {
        part: [path for name in names if (root / name).is_dir() for path in files(root / name)]
        for part, names in PARTS.items()
        if any((root / name).is_dir() for name in names)
    }


def read_text(path, options, bad=None) -> str:
    """The text of a UTF-8 file, with plain line ends.

    Args:
        path: Of the file.
        options: Of `open_source`.
        bad: A list that the paths of files that are left out (`skip_bad_files`) are added to.

    Raises:
        ValueError: The file cannot be read, or is not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        if bad is not None and options.skip_bad_files:
            bad.append(path)
            return ""
        what = getattr(error, "strerror", None) or f"is not UTF-8 at byte {error.start}"
        raise UserError(f"{options.name}: {path} {what}") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def check_fractions(options, parts=2):
    """UserError where `parts` held-out parts cannot each be `val_split` of the examples."""
    check_val_split(options)
    if options.val_split * parts >= 1:
        raise UserError(
            f"--val-split {options.val_split}: must be below {1 / parts:g}, since the validation "
            "and the test part each take this fraction"
        )


def tokenizer_for(options, texts, kind):
    """The tokenizer of an earlier run, or a new one of the training texts.

    Args:
        options: Of `open_source`.
        texts: Of the training part.
        kind: Kind of a new one where `options.tokenizer` is None.
    """
    if options.info is not None and options.info.tokenizer:
        return tokenizers.Tokenizer.from_json(options.info.tokenizer)
    return tokenizers.train(options.tokenizer or kind, texts, options.vocab_size)


def language_source(options, documents, notes, *, kind="char", max_length=MAX_LENGTH):
    """A source of windows of text.

    Args:
        options: Of `open_source`.
        documents: `{"train": texts, "validation": ..., "test": ...}`; an empty line is put between
            the texts of a part.
        notes: Further lines for the user.
        kind: Of the tokenizer, where none is requested.
        max_length: Of a window, where none is requested.
    """
    documents = {
        part: [text + BETWEEN for text in texts[:-1]] + texts[-1:]
        for part, texts in documents.items()
    }
    tokenizer = tokenizer_for(options, documents["train"], kind)
    length = (options.info and options.info.max_length) or options.max_length or max_length
    splits, counts = {}, {}
    for part in ("train", "validation", "test"):
        tokens = np.concatenate([np.zeros(0, np.int32), *tokenizer.encode(documents[part])])
        splits[part] = WindowSplit(tokens, length, shift=part == "train")
        counts[part] = sum(map(len, documents[part]))
        if not len(splits[part]):
            raise UserError(
                f"{options.name}: the {part} part has {len(tokens)} tokens, but one window needs "
                f"{length + 1} (--max-length {length})"
            )
    lengths = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    notes = [*notes, f"characters: {lengths}; {tokenizer.kind} tokens: {tokenizer.vocab_size:,}"]
    test = splits["test"].tokens
    if unknown := int(np.sum(test == UNK)):
        notes.append(f"{unknown:,} of {len(test):,} test tokens are unknown")
    if tokenizer.kind == "wordpiece":
        notes.append("wordpiece reads spaces and line ends alike, and writes one space for them")
    ratios = {part: len(split.tokens) / counts[part] for part, split in splits.items()}
    info = DataInfo.of_texts(tokenizer.to_json(), length, tokens_per_character=ratios)

    def baseline():
        return ngram.metrics(
            splits["train"].tokens,
            test[: len(splits["test"]) * length + 1],
            tokenizer.vocab_size,
            ratios["test"],
        )

    return make_source(options, splits, info, notes, baseline)
