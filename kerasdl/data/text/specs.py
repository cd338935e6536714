"""Parts of a `tokenizer.json`, as the `tokenizers` library reads them."""

import functools
import json

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable

EMPTY = {"type": "BPE", "vocab": {}, "merges": []}


def refused(what, name="tokenizer.json"):
    """A UserError of what is not known."""
    return UserError(f"{name}: {printable(str(what))[:160]} is not supported")


def library(data) -> object:
    """The `tokenizers` library's own of a `tokenizer.json`.

    Raises:
        UserError: It is none.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(data))
    except Exception as error:  # of no kind of its own
        raise UserError(f"tokenizer.json: {printable(str(error))[:200]}") from None


def made(kind, spec):
    """The library's own of a part: its `normalizer`, `pre_tokenizer` or `decoder`."""
    whole = {"version": "1.0", "added_tokens": [], "model": EMPTY, kind: spec}
    return getattr(library(whole), kind)


@functools.cache
def byte_names() -> dict:
    """`{byte: character}` as GPT-2's byte-level BPE writes bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [value for value in range(256) if value not in plain]
    return {v: chr(v) for v in plain} | {v: chr(256 + i) for i, v in enumerate(rest)}


@functools.cache
def bytes_by_name() -> dict:
    """The inverse of `byte_names`."""
    return {character: value for value, character in byte_names().items()}


def parts_of(spec, key):
    """The parts of a spec, of a Sequence all of them."""
    if not spec:
        return []
    if spec["type"] == "Sequence":
        return [one for part in spec[key] for one in parts_of(part, key)]
    return [spec]


def pattern_of(spec):
    """The text of a pattern, and whether it is a regular expression of Oniguruma."""
    if "String" in spec:
        return spec["String"], False
    return spec["Regex"], True
