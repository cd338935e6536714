"""`pairs:FILE_OR_FOLDER`: texts and their translations, and what every such source is made of."""

import hashlib

import numpy as np

from kerasdl.columns import DataInfo
from kerasdl.data.sources.pair_files import FORMATS, joined_sides, read_pairs, sides_of
from kerasdl.data.sources.text import check_fractions, find_parts, tokenizer_for
from kerasdl.data.splits import ArraySplit, make_source
from kerasdl.errors import UserError

GIVES = {"source_ids": "tokens", "target_ids": "tokens"}
MAX_LENGTH = 128


def load(where, options):
    """A table of sources and targets, or a folder of tables or of pairs of files, `train.en` and
    `train.de` say; see `pair_files.read_pairs` and `sides_of`.

    A folder's parts are folders or files with the names of parts; see `text.find_parts`. Parts that
    are missing are a fraction `val_split` each of the training pairs, by a hash of the source, so
    that no source is in two of them.
    """
    sides = sides_of(where, options)
    files, notes = find_parts(where, (sides,) if sides else FORMATS, options)
    if sides:
        files = {part: joined_sides(paths, sides, options) for part, paths in files.items()}
        notes.append(f"sources are the files *{sides[0]}, targets *{sides[1]}")
    if not files["train"]:
        what = "the training part holds no tables (.tsv, .csv or .txt)"
        raise UserError("; ".join([f"{options.name}: {what}", *notes]))
    parts, more = read_pairs(files, where, options)
    missing = [part for part in ("test", "validation") if part not in parts]
    if missing:
        parts |= divide(parts["train"], options, missing)
    if len(missing) == 1:
        more.append(f"{missing[0]} part: {options.val_split:.0%} of the training pairs")
    return translation_source(options, parts, notes + more)


def divide(pairs, options, missing=("test", "validation")):
    """`{part: pairs}` by a hash of the source: `val_split` of them for each of `missing`."""
    check_fractions(options, len(missing))
    parts = {part: [] for part in (*missing, "train")}
    for pair in pairs:
        place = int(hashlib.sha256(pair[0].encode()).hexdigest()[:8], 16) / 2**32
        parts[[*parts][min(int(place / options.val_split), len(missing))]].append(pair)
    for part, chosen in parts.items():
        if not chosen:
            raise UserError(
                f"{options.name}: {len(pairs)} pairs are too few: none is in the {part} part"
            )
    return parts


def translation_source(
    options, parts, notes, *, kind="bpe", max_length=MAX_LENGTH, groups=None, class_names=()
):
    """A source of pairs, with one tokenizer for both sides.

    Args:
        options: Of `open_source`.
        parts: `{part: [(source, target), ...]}` of train, validation and test.
        notes: Further lines for the user.
        kind: Of the tokenizer, where none is requested.
        max_length: Of the longest source and target in tokens, where none is requested; None
            for the longest that there is. Longer pairs are left out. It is `info.max_length`: the
            longest source has one token more, its end, and the longest target two.
        groups: `{part: int per pair}`, the column `group`, or None.
        class_names: Of the groups.
    """
    notes = list(notes)
    tokenizer = tokenizer_for(options, [text for pair in parts["train"] for text in pair], kind)
    specials, both = tokenizer.specials, (tokenizer, tokenizer.of_targets())
    sides = {
        part: [one.encode(texts) for one, texts in zip(both, zip(*pairs, strict=True), strict=True)]
        for part, pairs in parts.items()
    }
    lengths = {
        part: np.maximum(*([len(ids) for ids in side] for side in both))
        for part, both in sides.items()
    }
    maximum = (options.info and options.info.max_length) or options.max_length or max_length
    maximum = maximum or int(max(map(np.max, lengths.values())))
    kept = {}
    for part in ("train", "validation", "test"):
        kept[part] = np.flatnonzero(lengths[part] <= maximum)
        left = len(lengths[part]) - len(kept[part])
        if left:
            notes.append(f"left out {left:,} {part} pairs of more than {maximum} tokens")
        if not len(kept[part]):
            raise UserError(
                f"{options.name}: every pair of the {part} part has more than {maximum} tokens "
                f"(--max-length); the shortest has {lengths[part].min()}"
            )
    # One width for all parts, so that nothing is compiled twice.
    wide = [
        max(len(sides[part][side][i]) for part, rows in kept.items() for i in rows)
        for side in (0, 1)
    ]
    splits, end = {}, specials.end[0]
    for part, rows in kept.items():
        source, target = ([side[i] for i in rows] for side in sides[part])
        arrays = {
            "source_ids": _filled([[*ids, end] for ids in source], wide[0] + 1, specials.pad),
            "target_ids": _filled(
                [[specials.begin, *ids, end] for ids in target], wide[1] + 2, specials.pad
            ),
        }
        if groups is not None:
            arrays["group"] = np.asarray(groups[part], np.int32)[rows]
        splits[part] = ArraySplit(arrays)
    counts = ", ".join(f"{part} {len(rows):,}" for part, rows in kept.items())
    notes.append(f"pairs: {counts}; {tokenizer.kind} tokens: {tokenizer.vocab_size:,}")
    if unknown := int(
        sum(np.sum(a == specials.unknown) for a in splits["test"].arrays.values() if a.ndim > 1)
    ):
        notes.append(f"{unknown:,} test tokens are unknown")
    info = DataInfo.of_texts(
        tokenizer.to_json(), maximum, ("source_ids", "target_ids"), class_names
    )
    return make_source(options, splits, info, notes)


def _filled(rows, width, pad):
    """int32 `(n, width)`, filled up with `pad`."""
    array = np.full((len(rows), width), pad, np.int32)
    for line, row in zip(array, rows, strict=True):
        line[: len(row)] = row
    return array
