"""A language model by counting: n-grams with Witten-Bell smoothing, what a network must beat.

Source: Witten and Bell 1991, The zero-frequency problem (method C), interpolated as in Chen and
        Goodman 1998, section 2.5: with `c` counts and `t` different continuations of a context `h`,
        `p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h))`, `h'` being `h` without its first
        token, and `p(w) = 1 / V` below the empty context.
"""

import numpy as np

ORDER = 5


class NGram:
    """Counts of a stream of tokens.

    Args:
        tokens: int `(M,)`, below `vocab_size`.
        vocab_size: `V`.
        order: Tokens of the longest counted sequence.
    """

    def __init__(self, tokens, vocab_size: int, order: int = ORDER):
        self.vocab_size = vocab_size
        self.levels = []  # of each length: codes of the sequences, how often, and their contexts
        context = np.zeros(len(tokens), np.int64)
        for _ in range(order):
            tokens = tokens[-len(context) :] if len(context) else tokens[:0]
            codes, place, count = np.unique(
                context * vocab_size + tokens, return_inverse=True, return_counts=True
            )
            prefix = codes // vocab_size
            size = int(prefix[-1]) + 1 if len(codes) else 1
            total = np.bincount(prefix, count, size)
            kinds = np.bincount(prefix, minlength=size)
            self.levels.append((codes, count, total, kinds))
            context = place[:-1].astype(np.int64)  # of the token after it

    def probabilities(self, tokens) -> np.ndarray:
        """Of each token after all that stand before it, float64 `(M,)`."""
        tokens = np.asarray(tokens, np.int64)
        result = np.full(len(tokens), 1.0 / self.vocab_size)
        context = np.zeros(len(tokens), np.int64)  # -1 where training never saw it
        for length, (codes, count, total, kinds) in enumerate(self.levels):
            here, word = result[length:], tokens[length:]  # views
            if not len(here) or not len(codes):
                break
            code = context * self.vocab_size + word
            place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
            seen = (context >= 0) & (context < len(total))
            counted = seen & (codes[place] == code)
            c, t = total[context * seen], kinds[context * seen]
            mixed = (count[place] * counted + t * here) / np.maximum(c + t, 1)
            here[:] = np.where(seen & (c > 0), mixed, here)
            context = np.where(counted, place, -1)[:-1]
        return result


def most_frequent(train, test) -> dict:
    """How often the most frequent token of a training stream is right, wherever it is guessed.

    Args:
        train: Tokens of the training stream, int `(M,)`.
        test: Tokens of the test stream.

    Returns:
        `{"name": "the most frequent token", "accuracy": float}`.
    """
    token = np.bincount(train).argmax()
    return {"name": "the most frequent token", "accuracy": float(np.mean(test == token))}


def metrics(train, test, vocab_size: int, tokens_per_character: float = 1.0) -> dict:
    """Bits per character of a 5-gram on a test stream.

    Args:
        train: Tokens of the training stream, int `(M,)`.
        test: Tokens of the test stream; the first is only context.
        vocab_size: `V`.
        tokens_per_character: Of the test stream.

    Returns:
        `{"name": "5-gram, Witten-Bell", "bits_per_character": float}`.
    """
    result = NGram(np.asarray(train, np.int64), vocab_size).probabilities(test)[1:]
    bits = float(-np.log2(result).mean()) * tokens_per_character
    return {"name": f"{ORDER}-gram, Witten-Bell", "bits_per_character": bits}
