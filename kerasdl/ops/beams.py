"""Beam search: the likeliest sequences of tokens that a decoder writes, among those it looks at.

The loops call a model's `decode_step` as those of `kerasdl.ops.decoding` do.

Source: Wu et al. 2016, https://arxiv.org/abs/1609.08144 (length penalty, equation 14); the search
        that keeps ended sequences apart is that of Hugging Face transformers, in
        https://github.com/huggingface/transformers, `src/transformers/generation/utils.py`.
"""

from dataclasses import dataclass

from keras import ops

from kerasdl.ops.decoding import NEVER, column, suppress

NORMALIZATIONS = ("wu", "power")
EARLY = ("full", "likely", "never")


@dataclass(frozen=True)
class Beam:
    """How sequences are looked for.

    Attributes:
        width: `W`, of the beam; 1 is greedy.
        alpha: Exponent of the length penalty, by which log probabilities are divided.
        normalization: "wu", `((5 + L) / 6)^alpha`; or "power", `L^alpha`. `L` tokens have been
            written, the end among them.
        early_stopping: None: a sequence that has ended stays in the beam. Else up to `W` of them
            are kept apart, and the search is over once there are so many ("full"); or once the
            worst of them is no worse than the best of the beam will be if it ends as long as it is
            ("likely") or at the greatest length ("never").
        renormalize: Whether probabilities are of the tokens that may be written; else of all.
        forced_end: Whether the last token that has room is the end, the first of them.
    """

    width: int = 1
    alpha: float = 0.0
    normalization: str = "wu"
    early_stopping: str | None = None
    renormalize: bool = True
    forced_end: bool = False


def length_penalty(length, alpha, normalization="wu"):
    """What a log probability is divided by, see `Beam`; 1 at alpha 0."""
    length = ops.cast(length, "float32")
    return (length if normalization == "power" else (5.0 + length) / 6.0) ** alpha


def search(decode_step, state, batch, total, beam, specials):
    """The likeliest sequence, normalized by its length.

    Where ended sequences stay in the beam, a width of all sequences there are is exhaustive. A
    width of 1 is greedy in any case: the first sequence that ends is taken.

    Args:
        decode_step: Of the model; called with the beams side by side, `(B W, 1)`.
        state: Its state before the first token, of `B` examples.
        batch: `B`, an int or int scalar.
        total: int, tokens of the longest sequence, without the one that begins it, with its end.
        beam: A `Beam`.
        specials: A `Specials`; those of `never` are not written, but for the ends and the unknown
            token.

    Returns:
        int32 `(B, total)`, padding after the end; float32 `(B,)`, its log probability divided by
        the penalty of its length; one that is truncated at `total` has no end.
    """
    state = [ops.repeat(tensor, beam.width, axis=0) for tensor in state]
    apart = beam.early_stopping and beam.width > 1
    return (_apart if apart else _together)(decode_step, state, batch, total, beam, specials)


def _log_probabilities(logits, room, beam, specials, never):
    """float32 `(B W, V)` of logits, `never` where a token cannot follow.

    Args:
        logits: float `(B W, V)`.
        room: int scalar, how many tokens may follow.
        beam: The `Beam`.
        specials: The `Specials`.
        never: A number.
    """
    written = (*specials.end, specials.unknown)
    suppressed = tuple(i for i in specials.never if i not in written)
    logits = ops.cast(logits, "float32")
    if beam.renormalize:
        result = ops.log_softmax(suppress(logits, suppressed), axis=-1)
        result = result if never == NEVER else suppress(result, suppressed, never)
    else:
        result = suppress(ops.log_softmax(logits, axis=-1), suppressed, never)
    if beam.forced_end:
        end = ops.where(ops.arange(logits.shape[-1]) == specials.end[0], 0.0, never)
        result = ops.where(room == 1, end, result)
    return result


def _is_one(tokens, some):
    """Whether each of the tokens is one of some."""
    found = tokens == some[0]
    for other in some[1:]:
        found = found | (tokens == other)
    return found


def _start(width):
    """`(1, W)`, log probabilities of beams that are still equal: only the first may go on."""
    return ops.where(ops.arange(width) == 0, 0.0, NEVER)[None]


def _rows(beam, width):
    """`(B n,)`, places in what holds the beams side by side, of beams `(B, n)`."""
    row = ops.cast(ops.arange(ops.shape(beam)[0])[:, None], beam.dtype) * width + beam
    return ops.reshape(row, (-1,))


def _together(decode_step, state, batch, total, beam, specials):
    """Of sequences that stay in the beam with their score when they have ended."""
    width = beam.width
    tokens = ops.concatenate(
        [
            ops.full((batch * width, 1), specials.begin, "int32"),
            ops.full((batch * width, total), specials.pad, "int32"),
        ],
        axis=1,
    )
    score = _start(width) + ops.zeros((batch, width), "float32")  # log probabilities
    length = ops.zeros((batch, width), "int32")
    done = ops.zeros((batch, width), "bool")

    def penalty(length):
        return length_penalty(length, beam.alpha, beam.normalization)

    def more(position, tokens, score, length, done, *state):
        return (position < total) & ~ops.all(done)

    def step(position, tokens, score, length, done, *state):
        logits, state = decode_step(column(tokens, position), list(state), position)
        count = logits.shape[-1]
        following = _log_probabilities(logits[:, 0], total - position, beam, specials, NEVER)
        following = ops.reshape(following, (-1, width, count))
        # What has ended goes on with padding alone, at no cost.
        rest = ops.where(ops.arange(count) == specials.pad, 0.0, NEVER)
        following = ops.where(done[..., None], rest, following)
        total_score = score[..., None] + following  # (B, W, V)
        grown = length + ops.cast(~done, "int32")
        ranked = total_score / penalty(grown)[..., None]
        _, best = ops.top_k(ops.reshape(ranked, (-1, width * count)), width)  # (B, W)
        source, token = best // count, ops.cast(best % count, "int32")
        score = ops.take_along_axis(ops.reshape(total_score, (-1, width * count)), best, axis=1)
        length = ops.take_along_axis(grown, source, axis=1)
        done = ops.take_along_axis(done, source, axis=1) | _is_one(token, specials.end)
        row = _rows(source, width)
        state = [ops.take(tensor, row, axis=0) for tensor in state]
        tokens = ops.take(tokens, row, axis=0)
        tokens = ops.slice_update(tokens, (0, position + 1), ops.reshape(token, (-1, 1)))
        return (position + 1, tokens, score, length, done, *state)

    first = (ops.convert_to_tensor(0, "int32"), tokens, score, length, done)
    _, tokens, score, length, *_ = ops.while_loop(more, step, (*first, *state))
    ranked = score / penalty(length)
    best = ops.top_k(ranked, 1)[1]  # (B, 1)
    tokens = ops.reshape(tokens[:, 1:], (-1, width, total))
    tokens = ops.take_along_axis(tokens, best[..., None], axis=1)[:, 0]
    return tokens, ops.take_along_axis(ranked, best, axis=1)[:, 0]


def _apart(decode_step, state, batch, total, beam, specials):
    """Of sequences that leave the beam when they end, the best of which are kept."""
    width = beam.width
    many = max(2, 1 + len(specials.end)) * width  # of these enough go on, whichever end
    tokens = ops.concatenate(
        [
            ops.full((batch, width, 1), specials.begin, "int32"),
            ops.full((batch, width, total), specials.pad, "int32"),
        ],
        axis=2,
    )
    score = _start(width) + ops.zeros((batch, width), "float32")  # log probabilities
    kept = (  # sequences that have ended, what they are ranked by, and whether there is one
        tokens,
        ops.full((batch, width), NEVER, "float32"),
        ops.zeros((batch, width), "bool"),
    )
    goes_on = ops.ones((batch, 1), "bool")

    def penalty(length):
        return length_penalty(length, beam.alpha, beam.normalization)

    def more(position, goes_on, *rest):
        return (position < total) & ops.any(goes_on)

    def step(position, goes_on, tokens, score, kept_tokens, kept_score, ended, *state):
        last = ops.reshape(ops.slice(tokens, (0, 0, position), (batch, width, 1)), (-1, 1))
        logits, state = decode_step(last, list(state), position)
        count, never = logits.shape[-1], float("-inf")
        following = _log_probabilities(logits[:, 0], total - position, beam, specials, never)
        position = position + 1
        following = ops.reshape(following, (-1, width, count)) + score[..., None]
        likely, best = ops.top_k(
            ops.reshape(following, (-1, width * count)), min(many, width * count)
        )  # (B, n)
        source, token = best // count, ops.cast(best % count, "int32")
        longer = ops.take_along_axis(tokens, source[..., None], axis=1)  # (B, n, total + 1)
        longer = ops.slice_update(longer, (0, 0, position), token[..., None])
        ends = _is_one(token, specials.end) | (position == total)
        # The others that are likeliest go on.
        score, chosen = ops.top_k(ops.where(ends, likely + NEVER, likely), width)
        tokens = ops.take_along_axis(longer, chosen[..., None], axis=1)
        row = _rows(ops.take_along_axis(source, chosen, axis=1), width)
        state = [ops.take(tensor, row, axis=0) for tensor in state]
        # Those that end are kept if they are among the likeliest, and better than what is there.
        ends = ends & (ops.arange(ops.shape(ends)[1]) < width)[None]
        ranked = ops.where(ends & goes_on, 0.0, NEVER) + likely / penalty(position)
        kept_score, chosen = ops.top_k(ops.concatenate([kept_score, ranked], axis=1), width)
        kept_tokens = ops.take_along_axis(
            ops.concatenate([kept_tokens, longer], axis=1), chosen[..., None], axis=1
        )
        ended = ops.take_along_axis(ops.concatenate([ended, ends], axis=1), chosen, axis=1)
        length = total if beam.early_stopping == "never" else position
        worst = ops.where(ended, ops.min(kept_score, axis=1, keepdims=True), NEVER)
        better = ops.any(score[:, :1] / penalty(length) > worst, axis=1, keepdims=True)
        if beam.early_stopping == "full":
            better = better & ~ops.all(ended, axis=1, keepdims=True)
        return (position, goes_on & better, tokens, score, kept_tokens, kept_score, ended, *state)

    first = (ops.convert_to_tensor(0, "int32"), goes_on, tokens, score, *kept)
    _, _, _, _, tokens, score, *_ = ops.while_loop(more, step, (*first, *state))
    return tokens[:, 0, 1:], score[:, 0]  # the best comes first
