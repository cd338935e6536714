"""Writing token by token: how the next one is chosen, and loops that go on until the end.

The loops call a model's `decode_step(token_ids (B, n), state, position)`, which returns
`(logits (B, n, V), state)`; the `state` is a flat list of tensors with the batch first.

Source: Fan et al. 2018, https://arxiv.org/abs/1805.04833 (top-k); Holtzman et al. 2019,
        https://arxiv.org/abs/1904.09751 (top-p). Beam search: `kerasdl.ops.beams`.
"""

from keras import ops

from kerasdl.ops import noise
from kerasdl.ops.text import PAD

NEVER = -1e9  # a logit, or a log probability, that is never chosen


def suppress(logits, ids, value=NEVER):
    """Logits `(..., V)` with those of the token ids in `ids`, a tuple of ints, made `value`."""
    if not ids:
        return logits
    suppressed = ops.any(
        ops.arange(logits.shape[-1])[:, None] == ops.convert_to_tensor(ids), axis=-1
    )
    return ops.where(suppressed, ops.cast(value, logits.dtype), logits)


def greedy(logits):
    """The likeliest token or class: int32 `(...)` of logits `(..., V)`; of equal ones the first."""
    # Keras' argmax of floats uses an operation that TFLite does not have, and neither that of
    # TensorFlow nor `top_k` stays on whole numbers in files of 8 bits.
    count = logits.shape[-1]
    largest = ops.equal(logits, ops.max(logits, axis=-1, keepdims=True))
    first = ops.min(ops.where(largest, ops.arange(count, dtype="int32"), count), axis=-1)
    return ops.minimum(first, count - 1)  # of no numbers the last


def filter_logits(logits, top_k=None, top_p=None):
    """Keep the likeliest tokens; the others' logits become `NEVER`.

    Args:
        logits: float `(B, V)`.
        top_k: int `(B,)`, how many of the likeliest; 0 is all.
        top_p: float `(B,)` in (0, 1], the smallest set of likeliest tokens with this probability.

    Returns:
        float `(B, V)`.
    """
    count = logits.shape[-1]
    ordered = ops.flip(ops.sort(logits, axis=-1), axis=-1)  # (B, V), the likeliest first
    minimum = ordered[:, -1]
    if top_k is not None:
        last = ops.where((top_k > 0) & (top_k < count), top_k, count) - 1
        minimum = ops.take_along_axis(ordered, ops.cast(last, "int32")[:, None], axis=-1)[:, 0]
    if top_p is not None:
        p = ops.softmax(ordered, axis=-1)
        before = ops.cumsum(p, axis=-1) - p  # of the tokens that are likelier
        inside = ops.where(before < ops.cast(top_p, p.dtype)[:, None], ordered, -NEVER)
        minimum = ops.maximum(minimum, ops.min(inside, axis=-1))
    return ops.where(logits < minimum[:, None], ops.cast(NEVER, logits.dtype), logits)


def sample(logits, key, position, temperature, top_k=None, top_p=None):
    """Sample a token of `softmax(logits / temperature)`, by Gumbel noise that the key decides.

    Args:
        logits: float `(B, V)`.
        key: uint32 `(B, 2)`.
        position: int scalar; another position of a key has other noise.
        temperature: float `(B,)`; 0 takes the likeliest.
        top_k, top_p: See `filter_logits`; the temperature is applied first.

    Returns:
        int32 `(B,)`.
    """
    logits = ops.cast(logits, "float32")
    hot = ops.maximum(temperature, 1e-6)[:, None]
    scaled = filter_logits(logits / hot, top_k, top_p)
    uniform = noise.uniform(key, (logits.shape[-1],), stream=position, dtype="float32")
    gumbel = -ops.log(-ops.log(ops.maximum(uniform, 1e-12)))
    return ops.where(temperature > 0, greedy(scaled + gumbel), greedy(logits))


def generate(
    decode_step, state, prompt, length, total, limit, choose, prefill=True, end=(), pad=PAD
):
    """Continue prompts until each has its length, or has ended.

    Args:
        decode_step: Of the model.
        state: Its state before the first token.
        prompt: int32 `(B, N)`.
        length: int32 `(B,)`, tokens of each prompt, at least 1; what follows them is ignored.
        total: int, or int scalar: length of the longest result; at least `N`.
        limit: int32 `(B,)`, tokens of each result; `pad` follows.
        choose: `(logits (B, V), position) -> int32 (B,)`.
        prefill: Whether the tokens that all prompts have go through the model at once.
        end: Ids of which each, once written, ends a text; `pad` follows it.
        pad: Id that fills up.

    Returns:
        int32 `(B, total)`: the prompts and what follows.
    """
    batch, width = ops.shape(prompt)[0], ops.shape(prompt)[1]
    own = ops.arange(width, dtype="int32")[None] < length[:, None]
    tokens = ops.concatenate(
        [ops.where(own, prompt, pad), ops.full((batch, total - width), pad, "int32")], axis=1
    )
    position = ops.convert_to_tensor(0, "int32")
    if prefill:
        first, position = position, ops.min(length) - 1  # the last token's logits are needed
        _, state = decode_step(tokens[:, :position], list(state), first)
    last = ops.minimum(ops.max(limit), total) - 1
    ended = [ops.zeros((batch,), "bool")] if end else []

    def more(position, tokens, *rest):
        goes_on = position < last
        return goes_on & ~ops.all(rest[0]) if end else goes_on

    def step(position, tokens, *rest):
        ended, state = list(rest[: len(end) > 0]), list(rest[len(end) > 0 :])
        logits, state = decode_step(column(tokens, position), state, position)
        position = position + 1
        new = ops.where(position < limit, choose(logits[:, 0], position), pad)
        if end:
            new = ops.where(ended[0], pad, new)
            ends = ops.any(new[:, None] == ops.convert_to_tensor(end, "int32"), axis=-1)
            ended = [ended[0] | (ends & (position >= length))]
        new = ops.where(position < length, column(tokens, position)[:, 0], new)
        tokens = ops.slice_update(tokens, (0, position), new[:, None])
        return (position, tokens, *ended, *state)

    return ops.while_loop(more, step, (position, tokens, *ended, *state))[1]


def column(tokens, position):
    """int32 `(B, 1)`, the column `position` (an int scalar) of tokens `(B, N)`."""
    return ops.slice(tokens, (0, position), (ops.shape(tokens)[0], 1))
