"""Token ids that all tokenizers have, and how ids become text again."""

import json

import numpy as np

PAD, BOS, EOS, UNK = range(4)  # padding, begin, end, unknown: the first ids of every vocabulary
SPECIAL = 4
MASK = "[MASK]"  # how a text writes the token that stands for one to be filled in


class Pieces:
    """The text of token ids: each id stands for some bytes, and these are joined.

    Args:
        tokenizer: JSON of a `kerasdl.data.text.tokenizer.Tokenizer`; its `pieces` are Latin-1
            texts, one character per byte, in the order of the ids; the first three specials
            are empty. `mask` is the id of the mask token, where there is one.

    Attributes:
        pieces: The bytes of each id.
        mask: The id of the mask token, or None.
    """

    def __init__(self, tokenizer: str):
        metadata = json.loads(tokenizer)
        self.pieces = [piece.encode("latin-1") for piece in metadata["pieces"]]
        self.strip = metadata.get("strip", False)
        self.mask = metadata.get("mask")

    def decode(self, ids) -> str:
        """The text of ids `(N,)` up to the first `EOS`; broken UTF-8 becomes U+FFFD."""
        ids = np.asarray(ids).tolist()
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        text = b"".join(self.pieces[i] for i in ids).decode(errors="replace")
        return text.removeprefix(" ") if self.strip else text
