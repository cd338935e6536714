"""Recurrent layers from their gate equations.

The input projection of all time steps is one matrix product before the loop. In training the
gradient is our own: its loop computes only what one step hands to the step before it, and all else,
such as the gradient of the recurrent kernel, is computed for all steps at once. On a GPU these
layers are not compared with cuDNN's.

Source: Elman 1990, Finding Structure in Time (simple recurrence);
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory; Gers et al. 2000, Learning to
        Forget (the forget gate; its bias of 1 is Jozefowicz et al. 2015's);
        Cho et al. 2014, https://arxiv.org/abs/1406.1078, equations 5 to 8 (GRU);
        Schuster and Paliwal 1997, Bidirectional Recurrent Neural Networks;
        Williams and Peng 1990 (truncated back-propagation through time).
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import register
from kerasdl.layers.dropout import Dropout
from kerasdl.ops import recurrence


class _Recurrent(keras.layers.Layer):
    """Base of the three layers; each has a `cell` and says how it is laid out in Keras' weights.

    Axis letters: `U` units, `G` gates.
    """

    gates = states = 1

    def __init__(self, units, reverse=False, stateful=False, truncate=None, biases=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if biases not in (None, *self.allowed_biases()):
            allowed = ", ".join(map(str, self.allowed_biases()))
            raise UserError(f"biases {biases!r}: not one of {allowed}")
        for name, value in (("units", units), ("truncate", 1 if truncate is None else truncate)):
            if value < 1:
                raise UserError(f"{name} {value}: must be at least 1")
        self.units = units
        self.reverse = reverse
        self.stateful = stateful
        self.truncate = truncate
        self.biases = biases

    def build(self, input_shape):
        width = self.gates * self.units
        self.kernel = self.add_weight(shape=(input_shape[-1], width), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width), initializer="orthogonal", name="recurrent_kernel"
        )
        count = self.default_biases() if self.biases is None else self.biases
        self.bias = None
        if count:
            shape = (width,) if count == 1 else (count, width)
            self.bias = self.add_weight(shape=shape, initializer=self._first_bias, name="bias")
        if self.stateful and input_shape[0] is None:
            raise UserError(f"{self.name} is stateful, so its batch size must be static")
        self.memory = [
            self.add_weight(
                shape=(input_shape[0], self.units),
                initializer="zeros",
                trainable=False,
                name=f"state{i + 1}",
            )
            for i in range(self.states if self.stateful else 0)
        ]

    def reset_state(self):
        """Forget what a stateful layer has seen."""
        for memory in self.memory:
            memory.assign(ops.zeros_like(memory))

    def final_outputs(self, state):
        """`(B, U)`: what was put out at the last step, from the final state."""
        return state[0]

    def zero_state(self, batch_size):
        """The state before a sequence: a list of zeros `(B, U)`; `batch_size` may be a tensor."""
        return [ops.zeros((batch_size, self.units), self.compute_dtype)] * self.states

    def call(self, x, initial_state=None, mask=None, training=False):
        z, weights = self._project(ops.transpose(x, (1, 0, 2)))  # (T, B, G U)
        if initial_state is not None:
            state = list(initial_state)
        elif self.stateful:
            state = [ops.cast(memory, self.compute_dtype) for memory in self.memory]
        else:  # of the size of a tensor, which LiteRT knows before it runs
            state = [ops.zeros_like(z[0, :, : self.units])] * self.states
        if mask is not None:
            mask = ops.transpose(ops.cast(mask, self.compute_dtype))[..., None]  # (T, B, 1)
        if training or self.truncate:
            outputs, state = recurrence.recur_for_training(
                self.cell, z, weights, state, mask, self.reverse, self.truncate
            )
        else:  # without what the gradient needs; Keras differentiates it too
            sequences, state, _ = recurrence.recur(self.cell, z, weights, state, mask, self.reverse)
            outputs = sequences[0]
        for memory, value in zip(self.memory, state, strict=False):
            memory.assign(ops.cast(ops.stop_gradient(value), memory.dtype))
        if mask is not None:  # before the first step that counts there is nothing to repeat
            outputs = ops.where(
                recurrence.resuming(mask, self.reverse), outputs, ops.zeros_like(outputs)
            )
        return ops.transpose(outputs, (1, 0, 2)), state

    def allowed_biases(self):
        """What `biases` may be."""
        return (0, 1, 2)

    def default_biases(self):
        """What `biases` are if None."""
        return 1

    def _first_bias(self, shape, dtype=None):
        return ops.zeros(shape, dtype)

    def _whole_bias(self):
        """`(G U,)`: what all biases add to a gate."""
        if self.bias is None:
            return 0.0
        return self.bias if len(self.bias.shape) == 1 else self.bias[0] + self.bias[1]

    def _project(self, x):
        """`z` of all steps, and the weights of the cell."""
        z = recurrence.project(x, self.kernel) + self._whole_bias()
        return z, [ops.copy(self.recurrent_kernel)]


@register
class SimpleRNN(_Recurrent):
    """`h_t = tanh(x_t W + h_{t-1} U + b)`. Weights are laid out as those of Keras' layer.

    Args:
        units: `U`.
        activation: "tanh", or "relu" in its place.
        reverse: Read from the end; the outputs stay in the order of the inputs.
        stateful: Start each call from the state at the end of the call before, through which no
            gradient flows. The batch size is then fixed.
        truncate: No gradient flows from the step `k truncate` to the one before it, for any `k`, in
            the order of reading; None for no limit. The initial state keeps its gradient.
        biases: How many biases: 0, 1, or 2, one of each product, which are added, as in PyTorch.

    Call arguments:
        x: float `(B, T, D)`.
        initial_state: List of `(B, U)`; zeros if None, or the kept state of a stateful layer.
        mask: bool `(B, T)` or None. Where it is False the state stays and the output repeats the
            last one, or is 0 where there was none.
        training: Changes no number: whether the gradient is ready, which costs memory.

    Returns:
        Outputs `(B, T, U)` and the final state, a list of one `(B, U)`.

    Raises:
        UserError: A stateful layer with a dynamic batch size; `units` or `truncate` below 1; an
            unknown activation.
    """

    def __init__(
        self,
        units,
        reverse=False,
        stateful=False,
        truncate=None,
        biases=None,
        activation="tanh",
        **kwargs,
    ):
        super().__init__(units, reverse, stateful, truncate, biases, **kwargs)
        if activation not in recurrence.SimpleCell.activations:
            known = ", ".join(recurrence.SimpleCell.activations)
            raise UserError(f"activation {activation!r}: not one of {known}")
        self.activation = activation
        self.cell = recurrence.SimpleCell(activation)


@register
class LSTM(_Recurrent):
    """Long short-term memory with forget gates.

    `i, f, o = sigmoid(x_t W + h_{t-1} U + b)` and `g = tanh(...)` likewise, of separate columns;
    `c_t = f c_{t-1} + i g` and `h_t = o tanh(c_t)`. The columns stand in the order i, f, g, o, as
    in Keras' layer. The bias of `f` starts at 1.

    Args:
        units, reverse, stateful, truncate, biases: As of `SimpleRNN`.

    Call arguments:
        x, initial_state, mask, training: As of `SimpleRNN`.

    Returns:
        Outputs `(B, T, U)` and the final state, the list of `h` and `c`, each `(B, U)`.
    """

    gates, states, cell = 4, 2, recurrence.LSTMCell()

    def _first_bias(self, shape, dtype=None):
        first = ops.repeat(ops.convert_to_tensor([0, 1, 0, 0], dtype), self.units)
        return first if len(shape) == 1 else ops.stack([first, ops.zeros_like(first)])

    def _project(self, x):
        twice = ops.repeat(ops.convert_to_tensor([1, 1, 2, 1], x.dtype), self.units)
        kernel, recurrent = self.kernel * twice, self.recurrent_kernel * twice
        return recurrence.project(x, kernel) + self._whole_bias() * twice, [recurrent]


@register
class GRU(_Recurrent):
    """Gated recurrent unit.

    With update gate `z` and reset gate `r`, `h_t = z h_{t-1} + (1 - z) g`, where
    `g = tanh(x_t W + b + r (h_{t-1} U + b'))`, or, as in the paper,
    `g = tanh(x_t W + (r h_{t-1}) U + b)`. The columns stand in the order z, r, g, as in Keras'
    layer.

    Args:
        units, reverse, stateful, truncate: As of `SimpleRNN`.
        reset_after: Whether `r` comes after the product, which makes one product per step of two,
            and gives the bias the shape `(2, 3 U)`.
        biases: As of `SimpleRNN`, but of `reset_after` 0 or 2.

    Call arguments:
        x, initial_state, mask, training: As of `SimpleRNN`.

    Returns:
        Outputs `(B, T, U)` and the final state, a list of one `(B, U)`.
    """

    gates = 3

    def __init__(
        self,
        units,
        reset_after=True,
        reverse=False,
        stateful=False,
        truncate=None,
        biases=None,
        **kwargs,
    ):
        self.reset_after = reset_after
        super().__init__(units, reverse, stateful, truncate, biases, **kwargs)
        self.cell = recurrence.GRUCell() if reset_after else recurrence.ClassicGRUCell()

    def allowed_biases(self):
        return (0, 2) if self.reset_after else (0, 1, 2)

    def default_biases(self):
        return 2 if self.reset_after else 1

    def _project(self, x):
        z, (recurrent,) = recurrence.project(x, self.kernel), [ops.copy(self.recurrent_kernel)]
        u = 2 * self.units
        if not self.reset_after:
            return z + self._whole_bias(), [recurrent[:, :u], recurrent[:, u:]]
        if self.bias is None:
            return z, [recurrent, ops.zeros_like(recurrent[0, u:])]
        outer, inner = (ops.cast(self.bias[i], x.dtype) for i in range(2))
        # What the recurrent bias adds to the gates does not depend on the step.
        bias = outer + ops.concatenate([inner[:u], ops.zeros_like(inner[u:])])
        return z + bias, [recurrent, inner[u:]]


KINDS = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def make_recurrent(kind, units, activation="tanh", **kwargs):
    """The layer of a name in `KINDS`.

    Raises:
        ValueError: An unknown name, or another activation of gated units.
    """
    if kind not in KINDS:
        raise UserError(f"kind {kind!r}: not one of {', '.join(KINDS)}")
    if kind == "rnn":
        kwargs["activation"] = activation
    elif activation != "tanh":
        raise UserError(f"activation {activation!r}: {kind} has tanh; rnn has others")
    return KINDS[kind](units, **kwargs)


@register
class Bidirectional(keras.layers.Layer):
    """Two layers, one reading from each end; their outputs stand side by side.

    Args:
        kind: `rnn`, `lstm` or `gru`.
        units: `U`, of each direction.
        biases, activation: Of the layers, as of `SimpleRNN`.

    Call arguments:
        x: float `(B, T, D)`.
        initial_state: List of `(B, U)`, the forward layer's first; zeros if None.
        mask: bool `(B, T)` or None. Where it is False the states stay and the outputs are 0, as
            in Keras' layer.
        training: Whether the gradient is ready.

    Returns:
        Outputs `(B, T, 2 U)` and the final states, the forward layer's first.
    """

    def __init__(self, kind, units, biases=None, activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        options = {"biases": biases, "activation": activation}
        self.forward = make_recurrent(kind, units, name="forward", **options)
        self.backward = make_recurrent(kind, units, reverse=True, name="backward", **options)

    def build(self, input_shape):
        self.forward.build(input_shape)
        self.backward.build(input_shape)

    def final_outputs(self, state):
        """`(B, 2 U)`: what each direction put out at its last step, from its final states."""
        return ops.concatenate([state[0], state[self.forward.states]], axis=-1)

    @property
    def states(self):
        """How many tensors the state has."""
        return 2 * self.forward.states

    def zero_state(self, batch_size):
        """The state before a sequence: a list of zeros `(B, U)`."""
        return self.forward.zero_state(batch_size) + self.backward.zero_state(batch_size)

    def call(self, x, initial_state=None, mask=None, training=False):
        outputs, final = [], []
        for i, layer in enumerate((self.forward, self.backward)):
            state = initial_state and initial_state[i * layer.states : (i + 1) * layer.states]
            y, state = layer(x, initial_state=state, mask=mask, training=training)
            outputs.append(y)
            final += state
        y = ops.concatenate(outputs, axis=-1)
        if mask is not None:
            y = ops.where(ops.cast(mask, "bool")[..., None], y, ops.zeros_like(y))
        return y, final


@register
class RecurrentStack(keras.layers.Layer):
    """Recurrent layers on each other, with dropout between them.

    Args:
        kind: `rnn`, `lstm` or `gru`.
        units: `U`, of each layer and direction.
        num_layers: Layers.
        drop_rate: Dropout between layers.
        bidirectional: Whether each reads from both ends.
        biases: Of each layer, as of `SimpleRNN`. With 2 it is PyTorch's stack, weight by weight.
        activation: Of `rnn`, as of `SimpleRNN`.

    Call arguments:
        x: float `(B, T, D)`.
        initial_state: List of `(B, U)`, the first layer's first; zeros if None.
        mask: bool `(B, T)` or None, as of the layers.
        training: Whether to drop, and the gradient is ready.

    Returns:
        Outputs `(B, T, U)`, or `(B, T, 2 U)` of both directions, and the final states: of each
        layer, and in it of each direction, `h`, which `c` follows in an LSTM. Stacked, every second
        of an LSTM's are PyTorch's `h` and `c`, and all of the others its `h`.
    """

    def __init__(
        self,
        kind,
        units,
        num_layers=1,
        drop_rate=0.0,
        bidirectional=False,
        biases=None,
        activation="tanh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if num_layers < 1:
            raise UserError(f"num_layers {num_layers}: must be at least 1")
        make = Bidirectional if bidirectional else make_recurrent
        options = {"biases": biases, "activation": activation}
        self.rnns = [make(kind, units, name=f"layer{i + 1}", **options) for i in range(num_layers)]
        self.drops = [Dropout(drop_rate, name=f"drop{i + 1}") for i in range(num_layers - 1)]
        self.width = units * (2 if bidirectional else 1)

    def final_outputs(self, state):
        """What the last layer put out at its last step, `(B, U)` or `(B, 2 U)`."""
        return self.rnns[-1].final_outputs(state[-self.rnns[-1].states :])

    def build(self, input_shape):
        for i, layer in enumerate(self.rnns):
            layer.build((*input_shape[:-1], self.width) if i else input_shape)
            if i:
                self.drops[i - 1].build((*input_shape[:-1], self.width))

    def zero_state(self, batch_size):
        """The state before a sequence: a list of zeros `(B, U)`."""
        return [zero for layer in self.rnns for zero in layer.zero_state(batch_size)]

    def call(self, x, initial_state=None, mask=None, training=False):
        final, begin = [], 0
        for i, layer in enumerate(self.rnns):
            if i:
                x = self.drops[i - 1](x, training=training)
            state = initial_state and initial_state[begin : begin + layer.states]
            begin += layer.states
            x, state = layer(x, initial_state=state, mask=mask, training=training)
            final += state
        return x, final
