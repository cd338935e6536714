"""A published `tokenizer.json` as the metadata of `kerasdl.data.text.tokenizer.Tokenizer`.

The `tokenizers` library itself says which characters it lowers, splits at or takes out, so that
they are those of its Unicode. What is not known is refused by its name. Truncation and padding of
a file are left out.
"""

import functools
import json

from kerasdl.data.text import patterns
from kerasdl.data.text.decoders import around, pieces_of
from kerasdl.data.text.merges import packed
from kerasdl.data.text.patterns import ISOLATED, SPACE, quoted
from kerasdl.data.text.specs import (
    byte_names,
    bytes_by_name,
    library,
    made,
    parts_of,
    pattern_of,
    refused,
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ANYTHING = "(?s:.)"
BEHAVIORS = {
    "Removed": ["", ""],
    "Isolated": ISOLATED,
    "MergedWithPrevious": [r"\0", ""],
    "MergedWithNext": ["", r"\0"],
}
SEPARATOR = "\U00020000"  # between characters that are tried: part of no decomposition
DELETING = ("Strip", "StripAccents", "BertNormalizer", "Nmt")  # where the first letter may go
TRIED = ("Lowercase", "StripAccents", "BertNormalizer", "NFD", "NFKD", "Nmt")


def metadata(data: dict, names=None) -> dict:
    """The metadata of a `tokenizer.json`.

    Args:
        data: The JSON object.
        names: `{"eos_token": text, ...}` as `tokenizer_config.json` has them.

    Raises:
        UserError: It is none, or has something in it that is not known.
    """
    whole = library(data)
    data = json.loads(whole.to_str())  # as the library understands it
    model, added = data["model"], data["added_tokens"]
    vocabulary = whole.get_vocab(with_added_tokens=True)
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        tokens[number] = token
    for one in added:
        tokens[one["id"]] = one["content"]
    splits, prefix, of_bytes = _pre_tokenizer(data["pre_tokenizer"], data["normalizer"])
    special = {one["id"] for one in added if one["special"]}
    special |= {vocabulary[t] for t in (names or {}).values() if t in vocabulary}
    if suffix := model.get("end_of_word_suffix"):  # CLIP writes a space for it
        byte = byte_names()[ord(" ")]
        tokens = [t.removesuffix(suffix) + byte * t.endswith(suffix) for t in tokens]
    pieces, strip, first = pieces_of(data["decoder"], tokens)
    hidden = sorted(special)
    return {
        "kind": "published",
        "pieces": ["" if i in special else p.decode("latin-1") for i, p in enumerate(pieces)],
        "strip": strip,
        "first": {str(i): p.decode("latin-1") for i, p in first.items() if i not in special},
        "hidden": hidden,
        "names": {k: vocabulary[t] for k, t in (names or {}).items() if t in vocabulary},
        "added": _added(added, data["normalizer"]),
        "normalizer": _normalizer(data["normalizer"]),
        "prefix": prefix,
        "splits": splits,
        "model": _model(model, len(tokens), of_bytes),
        "around": around(data["post_processor"]),
    }


def _added(added, normalizer):
    """The two lists of added tokens, the second with its texts as the normalizer leaves them."""
    lists = [], []
    change = made("normalizer", normalizer).normalize_str if normalizer else str
    for one in added:
        if one["single_word"]:
            raise refused(f"single_word of the added token {one['content']!r}")
        text = change(one["content"]) if one["normalized"] else one["content"]
        if text and text not in [t for t, *_ in lists[one["normalized"]]]:
            entry = [text, one["id"], bool(one["lstrip"]), bool(one["rstrip"])]
            lists[one["normalized"]].append(entry)
    return [*lists]


# Normalizers


def _normalizer(spec):
    steps = []
    for one in parts_of(spec, "normalizers"):
        kind = one["type"]
        if kind in TRIED:
            steps += _tried(json.dumps(one, sort_keys=True))
        elif kind in ("NFC", "NFKC"):
            steps += _composed(kind)
        elif kind == "Replace":
            text, regex = pattern_of(one["pattern"])
            if not text:
                raise refused("the normalizer Replace of an empty text")
            pattern = patterns.translate(text) if regex else quoted(text)
            steps.append(["replace", pattern, one["content"].replace("\\", "\\\\")])
        elif kind == "Prepend":
            text = one["prepend"].replace("\\", "\\\\")
            steps.append(["replace", rf"\A({ANYTHING})", rf"{text}\1"])
        elif kind == "Strip":
            steps += [["replace", rf"\A[{SPACE}]+", ""]] * bool(one["strip_left"])
            steps += [["replace", rf"[{SPACE}]+\z", ""]] * bool(one["strip_right"])
        else:
            raise refused(f"the normalizer {kind}")
    return steps


@functools.lru_cache(8)
def _tried(text):
    """Steps of a normalizer that changes each character by itself, as it changes all there are."""
    spec = json.loads(text)
    steps = []
    if spec["type"] == "BertNormalizer" and spec["handle_chinese_chars"]:
        alone = spec | {"clean_text": False, "lowercase": False, "strip_accents": False}
        spaced = {c for c, new in _changes(alone).items() if new == f" {c} "}
        steps.append(["replace", f"([{patterns.ranges(spaced)}])", r" \1 "])
        spec = spec | {"handle_chinese_chars": False}
    table = _changes(spec)
    if gone := {c for c, new in table.items() if not new}:
        steps.append(["replace", f"[{patterns.ranges(gone)}]", ""])
        table = {c: new for c, new in table.items() if new}
    classes = {}
    if _orders(spec):
        left = set(patterns.characters()) - gone
        left -= {c for c, new in table.items() if c not in new}
        classes = {c: k for c, k in combining_classes().items() if c in left}
    return [*steps, ["map", table, classes]]


@functools.lru_cache(2)
def _composed(form):
    """Steps of NFC or NFKC: TensorFlow's, before it the characters that its Unicode lacks."""
    import tensorflow_text

    characters = [c for c in patterns.characters() if c != SEPARATOR]
    new = tensorflow_text.normalize_utf8([SEPARATOR.join(characters)], form)
    new = new.numpy()[0].decode().split(SEPARATOR)
    changes = _changes({"type": form})
    pairs = zip(characters, new, strict=True)
    table = {c: changes.get(c, c) for c, new in pairs if new != changes.get(c, c)}
    return [["map", table, {}]] * bool(table) + [["unicode", form]]


def _orders(spec):
    """Whether a normalizer decomposes, after which marks stand in Unicode's canonical order."""
    if spec["type"] == "BertNormalizer":
        strips = spec["strip_accents"]
        return spec["lowercase"] if strips is None else strips
    return spec["type"] in ("NFD", "NFKD")


def _changes(spec):
    """`{character: text}` of what a normalizer changes."""
    characters = [c for c in patterns.characters() if c != SEPARATOR]
    change = made("normalizer", spec).normalize_str
    between = change(SEPARATOR)
    new = change(SEPARATOR.join(characters)).split(between)
    pairs = zip([*characters, SEPARATOR], [*new, between], strict=True)
    return {a: b for a, b in pairs if a != b}


@functools.cache
def combining_classes() -> dict:
    """Numbers of the marks that the library sorts, in the order of Unicode's classes."""
    import unicodedata

    change = made("normalizer", {"type": "NFD"}).normalize_str
    marks = sorted(patterns.members(r"\p{M}"))
    marks = [c for c in marks if change(c) == c]  # of others, their parts
    classes = {}
    for mark in marks:
        classes.setdefault(unicodedata.combining(mark), mark)
    classes.pop(0, None)
    known = [classes[k] for k in sorted(classes)]
    pairs = [(mark, one) for mark in marks for one in known]
    swapped = [
        change(SEPARATOR.join(a + b for a, b in order)).split(SEPARATOR)
        for order in (pairs, [(b, a) for a, b in pairs])
    ]
    result = {}
    for i, mark in enumerate(marks):
        row = slice(i * len(known), (i + 1) * len(known))
        over = sum(new != a + b for (a, b), new in zip(pairs[row], swapped[0][row], strict=True))
        under = sum(new != b + a for (a, b), new in zip(pairs[row], swapped[1][row], strict=True))
        if over or under:  # ranks of equal classes are equal
            result[mark] = 2 * over + 2 if over + under < len(known) else 2 * over + 1
    return result


# Pre-tokenizers


def _pre_tokenizer(spec, normalizer):
    """`(splits, prefix, whether words are read as bytes)`."""
    splits, prefix, of_bytes = [], None, False
    for one in parts_of(spec, "pretokenizers"):
        kind = one["type"]
        if of_bytes:
            raise refused(f"the pre_tokenizer {kind} behind ByteLevel")
        if kind == "ByteLevel":
            if one["add_prefix_space"]:
                splits.append([f" ({ANYTHING}*)|({ANYTHING}+)", [r" \1\2"]])
            splits += patterns.split_steps(GPT2) if one["use_regex"] else []
            of_bytes = True
        elif kind == "Metaspace":
            more, prefix = _metaspace(one, bool(splits), normalizer)
            splits += more
        elif kind == "Split":
            splits += _split(one)
        elif kind in ("BertPreTokenizer", "WhitespaceSplit", "Whitespace"):
            splits.append([f"[{SPACE}]+", ["", ""]])
            if kind == "BertPreTokenizer":
                splits.append([f"[{patterns.ranges(_alone(json.dumps(one)))}]", ISOLATED])
            elif kind == "Whitespace":
                splits.append([f"[{_word_characters()}]+", ISOLATED])
        elif kind == "CharDelimiterSplit":
            splits.append([quoted(one["delimiter"]), ["", ""]])
        elif kind in ("Punctuation", "Digits"):
            splits.append(_of_characters(one))
        else:
            raise refused(f"the pre_tokenizer {kind}")
    return splits, prefix, of_bytes


def _metaspace(spec, behind, normalizer):
    """Splits and prefix of a Metaspace, which stands `behind` others or not."""
    mark, scheme = spec["replacement"], spec["prepend_scheme"]
    prefix = None
    steps = [[" ", [mark]]]
    if scheme == "always":
        steps.append([f"{mark}({ANYTHING}*)|({ANYTHING}+)", [rf"{mark}\1\2"]])
    elif scheme == "first":
        kinds = [one["type"] for one in parts_of(normalizer, "normalizers")]
        deleting = [kind for kind in kinds if kind in DELETING]
        if behind or deleting:
            raise refused(f"Metaspace with prepend_scheme first behind {deleting or 'others'}")
        prefix = [rf"\A[ {mark}]({ANYTHING}*)|\A({ANYTHING}+)", rf"{mark}\1\2"]
    if spec.get("split", True):
        steps.append([mark, BEHAVIORS["MergedWithNext"]])
    return steps, prefix


def _split(spec):
    text, regex = pattern_of(spec["pattern"])
    behavior = spec["behavior"]
    if not text:
        raise refused("the pre_tokenizer Split at an empty text")
    looks = regex and patterns.LOOK in patterns.alternatives(text)
    if spec["invert"]:
        if behavior != "Removed":
            raise refused("the pre_tokenizer Split with invert")
        if not looks:  # what the pattern matches is kept, all else removed
            pattern = patterns.translate(text) if regex else quoted(text)
            return [[f"({pattern})|{ANYTHING}", ["", r"\1", ""]]]
        behavior = "Isolated"  # all is matched, so nothing is left to remove
    if behavior not in BEHAVIORS or (looks and behavior != "Isolated"):
        raise refused(f"the pre_tokenizer Split with the behavior {behavior}")
    if behavior == "Isolated" and regex:
        return patterns.split_steps(text)
    return [[patterns.translate(text) if regex else quoted(text), BEHAVIORS[behavior]]]


def _of_characters(spec):
    """The split of Punctuation or Digits."""
    if spec["type"] == "Digits":
        behavior = "Isolated" if spec["individual_digits"] else "Contiguous"
        alone = spec | {"individual_digits": True}
    else:
        behavior, alone = spec["behavior"], spec | {"behavior": "Isolated"}
    inside = patterns.ranges(_alone(json.dumps(alone)))
    if behavior == "Contiguous":
        return [f"[{inside}]+", ISOLATED]
    return [f"[{inside}]", BEHAVIORS[behavior]]


@functools.lru_cache(8)
def _alone(text):
    """The characters that a pre-tokenizer makes words of their own."""
    split = made("pre_tokenizer", json.loads(text)).pre_tokenize_str
    pieces = split("".join(f"a{c}" for c in patterns.characters()))
    return frozenset(piece for piece, _ in pieces if len(piece) == 1) - {"a"}


@functools.cache
def _word_characters():
    r"""`\w` of the library's Whitespace, in brackets."""
    split = made("pre_tokenizer", {"type": "Whitespace"}).pre_tokenize_str
    pieces = split(" ".join(f"a{c}" for c in patterns.characters()))
    return patterns.ranges({piece[1] for piece, _ in pieces if len(piece) == 2 and piece[0] == "a"})


# Models


def _model(model, size, of_bytes):
    kind = model["type"]
    make = {"BPE": _bpe, "WordPiece": _wordpiece, "Unigram": _unigram}.get(kind)
    if make is None:
        raise refused(f"the model {kind}")
    if of_bytes and kind != "BPE":
        raise refused(f"the pre_tokenizer ByteLevel before the model {kind}")
    return make(model, size, of_bytes)


def _fallback(model, vocabulary):
    """The ids of the 256 bytes; () where a model does not use them."""
    if not model.get("byte_fallback"):
        return []
    ids = [vocabulary.get(f"<0x{value:02X}>") for value in range(256)]
    if None in ids and any(one is not None for one in ids):
        raise refused("byte_fallback with only some of the bytes")
    return [] if None in ids else ids


def _bpe(model, size, of_bytes):
    for key in ("dropout", "continuing_subword_prefix"):
        if model.get(key):
            raise refused(f"{key} of the model BPE")
    vocabulary, suffix = model["vocab"], model.get("end_of_word_suffix") or ""
    if suffix and (not of_bytes or model.get("ignore_merges")):
        raise refused("end_of_word_suffix of the model BPE, but of bytes")
    merges = {}
    for rank, pair in enumerate(model["merges"]):
        first, second = pair.split(" ") if isinstance(pair, str) else pair
        merges[first, second] = rank
    order = sorted(merges, key=merges.get)
    byte = bytes_by_name()
    if of_bytes:
        letters = {str(byte[t]): i for t, i in vocabulary.items() if t in byte}
    else:
        letters = {t: i for t, i in vocabulary.items() if len(t) == 1}
    last = {}
    if suffix:
        ends = {t.removesuffix(suffix): i for t, i in vocabulary.items() if t.endswith(suffix)}
        last = {str(byte[t]): i for t, i in ends.items() if t in byte}
    whole = {}
    if model.get("ignore_merges"):  # of bytes, the pieces themselves
        whole = True if of_bytes else {t: i for t, i in vocabulary.items() if t}
    unknown = model.get("unk_token")
    settings = {
        "letters": letters,
        "last": last,
        "merges": packed([[vocabulary[a], vocabulary[b], vocabulary[a + b]] for a, b in order]),
        "vocab_size": size,
        "of_bytes": of_bytes,
        "fallback": _fallback(model, vocabulary),
        "unknown": None if unknown is None else vocabulary.get(unknown),
        "fuse": bool(model.get("fuse_unk")),
        "whole": whole,
    }
    return ["Bpe", settings]


def _wordpiece(model, size, of_bytes):
    vocabulary = model["vocab"]
    if model["unk_token"] not in vocabulary:
        raise refused("WordPiece without an unk_token in its vocab")
    settings = {
        "pieces": vocabulary,
        "unknown": vocabulary[model["unk_token"]],
        "prefix": model["continuing_subword_prefix"],
        "longest": model["max_input_chars_per_word"],
    }
    return ["WordPiece", settings]


def _unigram(model, size, of_bytes):
    if model["unk_id"] is None:
        raise refused("Unigram without an unk_id")
    vocabulary = {text: i for i, (text, _) in enumerate(model["vocab"])}
    settings = {
        "pieces": model["vocab"],
        "unknown": model["unk_id"],
        "fallback": _fallback(model, vocabulary),
    }
    return ["Unigram", settings]
