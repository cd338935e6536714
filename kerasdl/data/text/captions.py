"""Captions as token ids: begun, ended and padded."""

import numpy as np

from kerasdl.errors import UserError

LEAST = 3  # tokens: the beginning, one of the text, the end


def caption_ids(tokenizer, texts: dict, max_length: int | None = None) -> dict:
    """The token ids of the captions of each part.

    Args:
        tokenizer: A `kerasdl.data.text.tokenizer.Tokenizer`; a published one may begin and end
            texts itself.
        texts: `{part: strings}`.
        max_length: Of a caption in tokens, with those that begin and end it: of longer ones the
            beginning is kept. As long as the longest if None.

    Returns:
        `{part: int32 (n, N)}`, of one `N`.

    Raises:
        UserError: The tokenizer has no token that ends a text, or there is no room for one.
    """
    specials = tokenizer.specials
    if not specials.end:
        raise UserError("captions: the tokenizer has no token that ends a text")
    if max_length is not None and max_length < LEAST:
        raise UserError(f"--max-length {max_length}: captions need at least {LEAST} tokens")
    begin, end = [] if specials.begin is None else [specials.begin], [specials.end[0]]
    rows = {}
    for part, some in texts.items():
        rows[part] = []
        for ids in map(list, tokenizer.encode(some)):
            ids = ids[len(begin) * (ids[:1] == begin) :]
            ids = ids[:-1] if ids[-1:] == end else ids
            room = None if max_length is None else max_length - len(begin) - 1
            rows[part].append(begin + ids[:room] + end)
    length = max_length or max(len(ids) for some in rows.values() for ids in some)
    result = {}
    for part, some in rows.items():
        result[part] = np.full((len(some), length), specials.pad, np.int32)
        for row, ids in zip(result[part], some, strict=True):
            row[: len(ids)] = ids
    return result
