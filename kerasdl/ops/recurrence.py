"""Recurrence in time: the cells of recurrent layers, their gradients and the loop over steps.

In training the gradient is our own: its loop computes only what one step hands to the step before
it, and all else, such as the gradient of the recurrent kernel, is computed for all steps at once.

Source: the papers named in `kerasdl/layers/recurrent.py`.
"""

import keras
from keras import ops

UNROLL = 32  # a sequence no longer than this needs no loop
PARALLEL = 16  # steps of a loop that may overlap

# A cell is one step and its gradient, without weights of its own. `z` is what the input adds to the
# gates, `state` a list of `(B, U)` with the output first. What a step keeps for its gradient is
# computed at once, while its numbers are still in the cache.


class SimpleCell:
    """`h = tanh(z + h' U)`, or `relu` in its place.

    Args:
        activation: One of `activations`.
    """

    activations = ("tanh", "relu")
    looped = kept = (1,)  # widths, in units, of what `step` keeps for `back`; and of all it keeps
    back_kept = (1,)  # widths of what `back` keeps

    def __init__(self, activation="tanh"):
        self.activation = activation

    def step(self, z, state, weights, keep):
        """The new state; and a list of what is kept, of the widths `kept`, if `keep`."""
        x = z + ops.matmul(state[0], weights[0])
        if self.activation == "relu":
            h = ops.relu(x)
            return [h], [ops.cast(h > 0, h.dtype)] if keep else []
        h = ops.tanh(x)
        return [h], [1.0 - ops.square(h)] if keep else []

    def back(self, d_state, slopes, turned):
        """The gradient of the state before a step, and a list of what is kept.

        Args:
            d_state: The gradient of the state after it.
            slopes: What the step kept.
            turned: The transposed weights.
        """
        d_z = d_state[0] * slopes[0]
        return [ops.matmul(d_z, turned[0])], [d_z]

    def gradients(self, back_kept, later, before):
        """The gradients of `z` and of each weight, all steps at once; time is the first axis.

        Args:
            back_kept: What `back` kept.
            later: What `step` kept besides what is `looped`.
            before: The output before each step.
        """
        (d_z,) = back_kept
        return d_z, [_outer(before, d_z)]


class LSTMCell:
    """`c = f c' + i g`, `h = o tanh(c)`; `z` and `U` of the candidate `g` come doubled.

    One sigmoid then serves all four: `tanh(x) = 2 sigmoid(2 x) - 1`.
    """

    looped = kept = (4, 1, 1)
    back_kept = (4,)

    def step(self, z, state, weights, keep):
        gates = ops.sigmoid(z + ops.matmul(state[0], weights[0]))
        i, f, g, o = ops.split(gates, 4, axis=-1)
        g = 2.0 * g - 1.0
        c = f * state[1] + i * g
        tanh_c = ops.tanh(c)
        h = o * tanh_c
        if not keep:
            return [h, c], []
        by = ops.concatenate([g, state[1], i + i, tanh_c], axis=-1)
        return [h, c], [gates * (1.0 - gates) * by, o - h * tanh_c, f]

    def back(self, d_state, slopes, turned):
        d_h, d_c = d_state
        d_c = d_c + d_h * slopes[1]
        d_z = ops.concatenate([d_c, d_c, d_c, d_h], axis=-1) * slopes[0]
        return [ops.matmul(d_z, turned[0]), d_c * slopes[2]], [d_z]

    def gradients(self, back_kept, later, before):
        (d_z,) = back_kept
        return d_z, [_outer(before, d_z)]


class GRUCell:
    """`h = z h' + (1 - z) g`, `g = tanh(x + r (h' U + b))`: the reset gate after the product."""

    looped = kept = (2, 1, 1, 1)
    back_kept = (3, 3)

    def step(self, z, state, weights, keep):
        (h,) = state
        u = 2 * h.shape[-1]
        recurrent = ops.matmul(h, weights[0])
        gates = ops.sigmoid(z[:, :u] + recurrent[:, :u])
        update, reset = ops.split(gates, 2, axis=-1)
        inner = recurrent[:, u:] + weights[1]
        g = ops.tanh(z[:, u:] + reset * inner)
        change = h - g
        new = g + update * change
        if not keep:
            return [new], []
        d_g = (1.0 - update) * (1.0 - ops.square(g))
        by = ops.concatenate([change, d_g * inner], axis=-1)
        return [new], [gates * (1.0 - gates) * by, d_g, reset, update]

    def back(self, d_state, slopes, turned):
        (d_h,) = d_state
        d_gates = ops.concatenate([d_h, d_h], axis=-1) * slopes[0]
        d_g = d_h * slopes[1]
        d_recurrent = ops.concatenate([d_gates, d_g * slopes[2]], axis=-1)
        d_z = ops.concatenate([d_gates, d_g], axis=-1)
        return [ops.matmul(d_recurrent, turned[0]) + d_h * slopes[3]], [d_z, d_recurrent]

    def gradients(self, back_kept, later, before):
        d_z, d_recurrent = back_kept
        d_bias = ops.sum(d_recurrent[..., 2 * before.shape[-1] :], axis=(0, 1))
        return d_z, [_outer(before, d_recurrent), d_bias]


class ClassicGRUCell:
    """`h = z h' + (1 - z) g`, `g = tanh(x + (r h') U)`: the reset gate before the product."""

    looped, kept = (2, 1, 1, 1), (2, 1, 1, 1, 1)
    back_kept = (3,)

    def step(self, z, state, weights, keep):
        (h,) = state
        u = 2 * h.shape[-1]
        gates = ops.sigmoid(z[:, :u] + ops.matmul(h, weights[0]))
        update, reset = ops.split(gates, 2, axis=-1)
        inner = reset * h
        g = ops.tanh(z[:, u:] + ops.matmul(inner, weights[1]))
        change = h - g
        new = g + update * change
        if not keep:
            return [new], []
        by = ops.concatenate([change, h], axis=-1)
        d_g = (1.0 - update) * (1.0 - ops.square(g))
        return [new], [gates * (1.0 - gates) * by, d_g, reset, update, inner]

    def back(self, d_state, slopes, turned):
        (d_h,) = d_state
        d_g = d_h * slopes[1]
        d_inner = ops.matmul(d_g, turned[1])
        d_gates = ops.concatenate([d_h, d_inner], axis=-1) * slopes[0]
        d_before = ops.matmul(d_gates, turned[0]) + d_inner * slopes[2] + d_h * slopes[3]
        return [d_before], [ops.concatenate([d_gates, d_g], axis=-1)]

    def gradients(self, back_kept, later, before):
        (d_z,) = back_kept
        u = 2 * before.shape[-1]
        return d_z, [_outer(before, d_z[..., :u]), _outer(later[0], d_z[..., u:])]


def project(x, kernel):
    """The product of `x` `(T, B, D)` and `kernel` `(D, E)`, `(T, B, E)`.

    `ops.matmul` computes its shape while it runs, and LiteRT 2.3 now and then takes tensors of such
    shapes for those of the batch before, where the batch size changes.
    """
    lead = list(x.shape[:-1])
    if lead.count(None) < 2:
        lead = [-1 if n is None else n for n in lead]
    else:
        lead = ops.shape(x)[:-1]
    rows = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), kernel)
    return ops.reshape(rows, (*lead, kernel.shape[-1]))


def _outer(a, b):
    """The sum over time and batch of the outer products of `(T, B, D)` and `(T, B, E)`."""
    a, b = (ops.reshape(part, (-1, part.shape[-1])) for part in (a, b))
    return ops.matmul(ops.transpose(a), b)


def _scan(step, carry, xs, reverse, extra=()):
    """`carry, kept = step(carry, x)` for each `x` along the first axis of all `xs`.

    Args:
        step: What `kept` it returns has the shapes of `carry`, then those of `extra`.
        carry: Tensors `(B, U)`.
        xs: Tensors `(T, B, D)` of one type.
        reverse: Whether to begin at the end.
        extra: Widths of what else is kept, `(B, width)`.

    Returns:
        The last carry; what was kept, `(T, B, ...)`, in the order of `xs`.
    """
    length = xs[0].shape[0]
    if length is not None and length <= UNROLL:
        kept = [None] * length
        for t in reversed(range(length)) if reverse else range(length):
            carry, kept[t] = step(carry, [x[t] for x in xs])
        return carry, [ops.stack(sequence) for sequence in zip(*kept, strict=True)]
    count, rows = len(carry), ops.shape(carry[0])[0]
    ends = [sum(x.shape[-1] for x in xs[: i + 1]) for i in range(len(xs) - 1)]
    if length is None and ends:  # Keras 3.15 scans several only where the length is given
        xs = [ops.concatenate(xs, axis=-1)]

    def body(carry, x):  # a scan keeps what its carry looks like, and no more
        if length is None and ends:
            x = ops.split(x[0], ends, axis=-1)
        new, kept = step(carry[:count], x)
        return [*new, *carry[count:]], kept

    blank = [ops.zeros((rows, width), carry[0].dtype) for width in extra]
    carry, kept = ops.scan(body, [*carry, *blank], xs, length, reverse, unroll=PARALLEL)
    return carry[:count], kept


def recur(cell, z, weights, state, mask=None, reverse=False, keep=False):
    """Run a cell over all steps.

    Args:
        cell: The cell.
        z: `(T, B, G U)`.
        weights: Of the cell.
        state: At the begin, `(B, U)` each.
        mask: float `(T, B, 1)`, or None; a step where it is 0 changes nothing.
        reverse: Whether to begin at the end.
        keep: Whether what the gradient needs is wanted.

    Returns:
        The states after each step, `(T, B, U)` each; those after the last, `(B, U)` each; and what
        the cell keeps.
    """

    def step(state, x):
        new, kept = cell.step(x[0], state, weights, keep)
        if mask is not None:
            new = [ops.where(x[1] > 0, n, s) for n, s in zip(new, state, strict=True)]
        return new, [*new, *kept]

    extra = [width * state[0].shape[-1] for width in cell.kept if keep]
    xs = [z] if mask is None else [z, mask]
    final, kept = _scan(step, state, xs, reverse, extra)
    return kept[: len(state)], final, kept[len(state) :]


def recur_for_training(cell, z, weights, state, mask=None, reverse=False, truncate=None):
    """As `recur`, with a gradient of our own.

    Args:
        cell, z, weights, state, mask, reverse: As of `recur`.
        truncate: No gradient flows to before every `truncate`-th step but the first; or None.

    Returns:
        The outputs `(T, B, U)`; and each state after the last step, `(B, U)`.
    """
    count = len(state)

    @ops.custom_gradient
    def run(z, *rest):
        weights, state = list(rest[:-count]), list(rest[-count:])
        after, final, kept = recur(cell, z, weights, state, mask, reverse, keep=True)

        def gradient(*upstream):
            d_outputs, *d_final = keras.tree.flatten(upstream)
            slopes, later = kept[: len(cell.looped)], kept[len(cell.looped) :]
            turned = [ops.transpose(w) for w in weights]
            xs = [d_outputs, *slopes]
            if mask is not None:
                xs.append(mask)
            if truncate:
                xs.append(_open(z, truncate, reverse))

            def step(d_state, x):
                d_state = [d_state[0] + x[0], *d_state[1:]]
                new, back_kept = cell.back(d_state, x[1 : 1 + len(slopes)], turned)
                if mask is not None:
                    counts = x[1 + len(slopes)] > 0
                    new = [ops.where(counts, n, d) for n, d in zip(new, d_state, strict=True)]
                if truncate:
                    new = [n * x[-1] for n in new]
                return new, [*new, *back_kept]

            extra = [width * state[0].shape[-1] for width in cell.back_kept]
            d_state, back_kept = _scan(step, d_final, xs, not reverse, extra)
            back_kept = back_kept[count:]
            if mask is not None:
                back_kept = [k * mask for k in back_kept]
            before = _shift(state[0], after[0], reverse)
            d_z, d_weights = cell.gradients(back_kept, later, before)
            return (d_z, *d_weights, *d_state)

        return (after[0], *final), gradient

    outputs, *final = run(z, *weights, *state)
    return outputs, final


def _shift(first, states, reverse):
    """What stands before each step: `first`, and the states after all steps but the last."""
    if reverse:
        return ops.concatenate([states[1:], first[None]], axis=0)
    return ops.concatenate([first[None], states[:-1]], axis=0)


def _open(z, truncate, reverse):
    """`(T, B, 1)`: 0 where no gradient flows to the step before."""
    t = ops.arange(ops.shape(z)[0])
    t = ops.flip(t) if reverse else t
    open_ = ops.cast((t % truncate != 0) | (t == 0), z.dtype)
    return ops.zeros_like(z[..., :1]) + open_[:, None, None]


def resuming(mask, reverse):
    """Whether any step so far counts, `(T, B, 1)`."""
    count = ops.cast(mask, "int32")  # 1 where a step counts
    count = ops.flip(ops.cumsum(ops.flip(count, 0), 0), 0) if reverse else ops.cumsum(count, 0)
    return count > 0
