"""Token ids that all tokenizers have, and how ids become text again."""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

PAD, BOS, EOS, UNK = range(4)  # padding, begin, end, unknown: the first ids of every vocabulary
SPECIAL = 4
MASK = "[MASK]"  # how a text writes the token that stands for one to be filled in


@dataclass(frozen=True)
class Specials:
    """Ids of a vocabulary that stand for no text; those of this project's tokenizers by default.

    Attributes:
        pad: Fills texts up.
        begin: Before the first token of a text that is written; None where nothing is.
        end: Each of these ends a text.
        unknown: Stands for what has no token; None where everything has one.
        never: What no text that a model writes has in it; without an `end` in it, texts end there.
    """

    pad: int = PAD
    begin: int | None = BOS
    end: tuple = (EOS,)
    unknown: int | None = UNK
    never: tuple = tuple(range(SPECIAL))

    def to_dict(self) -> dict:
        """As it stands in JSON files."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Specials":
        """The inverse of `to_dict`; TypeError where these are no ids."""
        specials = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        ids = (specials.pad, *specials.end, *specials.never)
        for one in (*ids, specials.begin or 0, specials.unknown or 0):
            if type(one) is not int or one < 0:
                raise TypeError(f"{str(one)[:80]!r} is no id of a token")
        return specials

    @classmethod
    def of(cls, info) -> "Specials":
        """Those of the first text of a `DataInfo`: its tokenizer says them, or else its column."""
        column = info.first("tokens")
        values = json.loads(info.tokenizer).get("specials", {}) if info.tokenizer else {}
        return cls.from_dict(values or (column.specials if column else {}))


class Pieces:
    """The text of token ids: each id stands for some bytes, and these are joined.

    Args:
        tokenizer: JSON of a `kerasdl.data.text.tokenizer.Tokenizer`; its `pieces` are Latin-1
            texts, one character per byte, in the order of the ids; the first three specials
            are empty. `mask` is the id of the mask token, where there is one. Those of a published
            tokenizer have `hidden`, ids that no text shows, and `first`, `{id: piece}` of those
            that read otherwise where no shown one stands before them; there `blank` ids are none.

    Attributes:
        pieces: The bytes of each id.
        mask: The id of the mask token, or None.
        ends: Ids that a text ends before; its hidden ids do not end a published one.
        hidden, blank: See above.
        first: See above, `{id: bytes}`.
    """

    def __init__(self, tokenizer: str):
        metadata = json.loads(tokenizer)
        self.pieces = [piece.encode("latin-1") for piece in metadata["pieces"]]
        self.strip = metadata.get("strip", False)
        self.mask = metadata.get("mask")
        self.ends = () if "hidden" in metadata else (EOS,)
        self.hidden = frozenset(metadata.get("hidden", ()))
        self.blank = frozenset(metadata.get("blank", ()))
        first = metadata.get("first", {})
        self.first = {int(i): piece.encode("latin-1") for i, piece in first.items()}

    def decode(self, ids) -> str:
        """The text of ids `(N,)` up to the first end; broken UTF-8 becomes U+FFFD."""
        ids = np.asarray(ids).tolist()
        ids = next((ids[:n] for n, i in enumerate(ids) if i in self.ends), ids)
        pieces = [self.pieces[i] for i in ids]
        if self.first or self.blank:
            unseen = self.hidden | self.blank
            shown = next((n for n, i in enumerate(ids) if i not in unseen), len(ids))
            pieces = pieces[shown:]
            if pieces:
                pieces[0] = self.first.get(ids[shown], pieces[0])
        text = b"".join(pieces).decode(errors="replace")
        return text.removeprefix(" ") if self.strip else text
