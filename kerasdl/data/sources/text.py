"""`text:FILE_OR_FOLDER`: plain text for language models, and what every such source is made of."""

import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.columns import Column, DataInfo
from kerasdl.data import fingerprint
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.splits import Split, check_val_split, make_source
from kerasdl.data.text import ngram
from kerasdl.data.text import tokenizer as tokenizers
from kerasdl.data.text.captions import caption_ids
from kerasdl.errors import UserError
from kerasdl.ops import noise

GIVES = {"token_ids": "tokens"}
MAX_LENGTH = 128
BETWEEN = "\n\n"  # two documents
SHIFT_STREAM = 2**16 + 64
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks that such a file begins with
BESIDE = "files beside those of the parts"
WITHOUT = "folders without texts"


class Every:
    """The endings of all files."""

    def __contains__(self, ending):
        return True


FORMATS = ((".txt",), (".tokens", ".raw", ".text"), Every())  # the first of which there are files


class WindowSplit(Split):
    """Windows of a stream of tokens, side by side; what is left at its end is dropped.

    Args:
        tokens: int32 `(M,)`.
        max_length: Targets per window, `N`; a window has the token before them as well.
        shift: Whether `load` moves each window on by a random part of its length, of its key.
    """

    def __init__(self, tokens, max_length, shift=False):
        self.tokens, self.max_length, self.shift = tokens, max_length, shift
        self._stream = tf.constant(tokens, tf.int32)

    def __len__(self):
        return max(len(self.tokens) - 1, 0) // self.max_length

    def columns(self):
        return {"start": np.arange(len(self), dtype=np.int64) * self.max_length}

    def digest(self):
        return fingerprint.of_arrays({"tokens": self.tokens})

    def load(self, rows):
        start = rows.pop("start")  # (B,)
        if self.shift and "key" in rows:
            moved = noise.randint(rows["key"], (), 0, self.max_length, SHIFT_STREAM)
            start = start + tf.cast(moved, tf.int64)
            start = tf.minimum(start, len(self.tokens) - self.max_length - 1)
        place = start[:, None] + tf.range(self.max_length + 1, dtype=tf.int64)
        return {**rows, "token_ids": tf.gather(self._stream, place)}


def load(where, options):
    """A text file, or all of a folder: `*.txt`, or what else there is; see `FORMATS`.

    A folder's parts are folders or files with the names of parts; see `find_parts`. Of what has
    none, and for parts that are missing, each training file is divided: its last part, a fraction
    `val_split`, is the test part, and as much before it is validation.
    """
    files, notes = find_parts(where, FORMATS, options)
    bad = []
    texts = {part: [read_text(path, options, bad) for path in files[part]] for part in files}
    if bad:
        notes.append(f"left out {len(bad)} unreadable files, the first {readable(bad[0])}")
    empty = [
        path
        for part, whole in texts.items()
        for path, text in zip(files[part], whole, strict=True)
        if not text and path not in bad
    ]
    if empty:
        notes.append(f"left out {len(empty)} empty files, the first {readable(empty[0])}")
    texts = {part: [text for text in whole if text] for part, whole in texts.items()}
    for part in texts:
        if not texts[part]:
            what = "training" if part == "train" else part
            raise UserError("; ".join([f"{options.name}: the {what} part holds no text", *notes]))
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


def find_parts(where, formats, options):
    """The files of a data set, by part.

    Parts are sub-folders, `Training/ valid/ test/` say, or else files directly in the folder,
    `train.txt`, `wiki.valid.tokens`, `test-00000-of-00002.txt` or `train.en-de.en`; for the names
    see `layout.PARTS`.
    A single folder around all of it is left aside.

    Args:
        where: A file, which is all of training, or a folder.
        formats: Endings of the files that are read, in lower case: the first of these collections
            that the folder has files of.
        options: Of `open_source`.

    Returns:
        `{part: paths}`, sorted; all is "train" where there are no parts. And notes of what was
        left out.

    Raises:
        UserError: There is no such file or folder, or there are parts but none for training.
    """
    if os.path.isfile(where):
        return {"train": [where]}, []
    if not os.path.isdir(where):
        name = readable(where)
        what = f"{name} is neither a file nor a folder" if os.path.exists(where) else ""
        raise UserError(f"{options.name}: {what or f'there is no file or folder {name}'}")
    for endings in formats:
        left = layout.LeftOut(where)
        root = tree = layout.read_tree(where, endings, left, options.skip_bad_files)
        if tree.count:
            break
    notes, levels = [], [tree]
    while not root.files and len(root.holding) == 1 and not layout.part_of(root.holding[0].name):
        root = root.holding[0]
        levels.append(root)
    if root is not tree:
        notes.append(f"the data set lies in {readable(os.path.relpath(root.path, where))}")
    folders = layout.part_folders(root, options.name)
    parts = {part: folders[part].paths() for part in layout.PARTS if part in folders}
    parts = {part: paths for part, paths in parts.items() if paths or part == "train"}
    parts = parts or _part_files(root, options.name)
    if parts:
        chosen = {path for paths in parts.values() for path in paths}
        for path in root.paths():
            if path not in chosen:
                left.add(BESIDE, path)
        notes.append("parts by name: " + ", ".join(_described(parts, root.path)))
    elif named := [n for n in _names(root) if layout.part_of(os.path.splitext(n)[0])]:
        notes.append(f"{readable(named[0])} has the name of a part, but is read with all others")
    for level in levels:
        for inner in level.folders:
            if not inner.count:
                left.add(WITHOUT, inner.path)
    return parts or {"train": root.paths()}, notes + left.notes()


def _part_files(folder, name):
    """`{part: paths}` of the files of a folder that are named as parts; empty where there are no
    two parts, one of them for training."""
    for separators in (r"._\- ", "."):
        parts = {}
        for file in folder.files:
            stem = re.sub(r"([._-]?\d+(-of-\d+)?)$", "", os.path.splitext(file)[0])
            part = layout.part_of(re.split(f"[{separators}]", stem)[-1])
            dotted = [one for one in map(layout.part_of, stem.split(".")) if one]
            if len(dotted) == 1:  # train.en-de.en
                part = part or dotted[0]
            parts.setdefault(part, []).append(os.path.join(folder.path, file))
        others = parts.pop(None, [])
        if "train" in parts and not others and not folder.holding:
            break  # my_train.txt is a part only where every file is one
    if "train" not in parts:
        if parts and not others and not folder.holding:
            names = ", ".join(map(readable, folder.files))
            raise UserError(f"{name}: there is no file train for the training part, but {names}")
        return {}
    return {part: parts[part] for part in layout.PARTS if part in parts} if len(parts) > 1 else {}


def _names(folder):
    return [*folder.files, *(inner.name for inner in folder.holding)]


def _described(parts, root):
    """Each part's name with its files."""
    for part, paths in parts.items():
        first = readable(os.path.relpath(paths[0], root)) if paths else "no file"
        yield f"{part} {first}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def read_text(path, options, bad=None) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, with plain line ends.

    Args:
        path: Of the file.
        options: Of `open_source`.
        bad: A list that the paths of files that are left out (`skip_bad_files`) are added to.

    Raises:
        ValueError: The file cannot be read, or is not in UTF-8.
    """
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-16" if data[:2] in UTF_16 else "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if bad is not None and options.skip_bad_files:
            bad.append(path)
            return ""
        what = getattr(error, "strerror", None)
        what = what or f"is not {error.encoding.upper()} at byte {error.start}"
        raise UserError(f"{options.name}: {readable(path)} {what}") from error
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
    """The tokenizer of an earlier run or of initial weights, or a new one of the training texts.

    Args:
        options: Of `open_source`.
        texts: Of the training part.
        kind: Kind of a new one where `options.tokenizer` is None; for a task that masks tokens it
            has a mask token besides.

    Raises:
        UserError: A kind or size is requested that is not that of the initial weights.
    """
    if options.info is not None and options.info.tokenizer:
        return tokenizers.Tokenizer.from_json(options.info.tokenizer)
    if options.pretrained:
        pretrained = tokenizers.Tokenizer.from_json(options.pretrained)
        has = {"--tokenizer": pretrained.kind, "--vocab-size": pretrained.vocab_size}
        wanted = (options.tokenizer, options.vocab_size)
        for (flag, value), other in zip(has.items(), wanted, strict=True):
            if other not in (None, value):
                raise UserError(
                    f"{flag} {other}: the initial weights are for the tokens of a tokenizer with "
                    f"{flag} {value}, which is taken; leave it out"
                )
        return pretrained
    new = tokenizers.train(options.tokenizer or kind, texts, options.vocab_size)
    return tokenizers.with_mask(new) if getattr(options.task, "masks_tokens", False) else new


def captions_for(options, texts):
    """Captions as token ids, begun and ended.

    Args:
        options: Of `open_source`; of a caption of more than `max_length` tokens the beginning is
            kept.
        texts: `{part: strings}`, "train" among them.

    Returns:
        `{part: int32 (n, N)}`; the column that they are; and `{name of its tokenizer: JSON}`.
    """
    tokenizer = tokenizer_for(options, texts["train"], "bpe")
    length = (options.info and options.info.max_length) or options.max_length
    ids = caption_ids(tokenizer, texts, length)
    length = ids["train"].shape[1]
    column = Column("tokens", (length,), tokenizer="text", max_length=length)
    return ids, column, {"text": tokenizer.to_json()}


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
    if unknown := int(np.sum(test == tokenizer.specials.unknown)):
        notes.append(f"{unknown:,} of {len(test):,} test tokens are unknown")
    if tokenizer.kind == "wordpiece":
        notes.append("wordpiece reads spaces and line ends alike, and writes one space for them")
    ratios = {part: len(split.tokens) / counts[part] for part, split in splits.items()}
    info = DataInfo.of_texts(tokenizer.to_json(), length, tokens_per_character=ratios)

    def baseline():
        if getattr(options.task, "masks_tokens", False):
            return ngram.most_frequent(splits["train"].tokens, test)
        return ngram.metrics(
            splits["train"].tokens,
            test[: len(splits["test"]) * length + 1],
            tokenizer.vocab_size,
            ratios["test"],
        )

    return make_source(options, splits, info, notes, baseline)
