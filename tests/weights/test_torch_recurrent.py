"""PyTorch's recurrent layers: answers, states, and weights there and back."""

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.layers import recurrent
from kerasdl.layers.recurrent import GRU, LSTM, Bidirectional, RecurrentStack, SimpleRNN
from kerasdl.weights.families.torch_recurrent import FAMILIES
from kerasdl.weights.rename import by_path, fraction, to_ours, to_theirs
from tests import goldens

(FAMILY,) = FAMILIES
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def fill(layer, weights):
    """Give a layer PyTorch's weights."""
    renamed = to_ours(FAMILY, layer, weights)
    assert renamed.left_over == renamed.missing == ()
    for path, weight in by_path(layer).items():
        weight.assign(renamed.arrays[path])
    return layer


def made_up(kind, rng, dim=3, units=4, layers=1, directions=1, bias=True):
    """Weights of PyTorch's names and shapes."""
    result, width = {}, GATES[kind] * units
    for i in range(layers):
        for end in ("", "_reverse")[:directions]:
            columns = directions * units if i else dim
            shapes = {"weight_ih": (width, columns), "weight_hh": (width, units)}
            shapes |= {"bias_ih": (width,), "bias_hh": (width,)} if bias else {}
            for name, shape in shapes.items():
                result[f"{name}_l{i}{end}"] = rng.normal(size=shape).astype("float32")
    return result


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("biases", [2, None])
@pytest.mark.parametrize("kind", GATES)
def test_outputs_and_states_are_pytorchs(kind, biases):
    golden = goldens.read(kind)
    stack = RecurrentStack(kind, 7, 2, bidirectional=True, biases=biases)
    stack.build((None, None, 5))
    fill(stack, golden.weights)
    size = stack.rnns[0].forward.states  # 2 of an LSTM
    x = golden.inputs["x"]
    begin = [golden.inputs[name] for name in ("h0", "c0")[:size]]
    begin = [part[i] for i in range(4) for part in begin]
    for end, state in (("", None), ("_from_state", begin)):
        y, final = stack(x, initial_state=state)
        answers = {"y": y, "h": np.stack(final[::size]), "c": np.stack(final[1::size])}
        for name in ("y", "h", "c")[: 1 + size]:
            assert goldens.deviation(answers[name], golden.outputs[f"{name}{end}"]) < 1e-5
    if biases == 2 or kind == "gru":
        assert_same(to_theirs(FAMILY, stack), golden.weights)


@pytest.mark.parametrize("kind", GATES)
def test_a_single_bias_is_the_sum_and_comes_back_bit_by_bit(kind, rng):
    stack = RecurrentStack(kind, 4, 3)
    stack.build((None, None, 3))
    for weight in stack.weights:
        weight.assign(rng.normal(size=weight.shape))
    theirs = to_theirs(FAMILY, stack)
    assert sorted(theirs) == sorted(made_up(kind, rng, layers=3))
    if kind != "gru":
        assert not theirs["bias_hh_l2"].any()
    again = to_ours(FAMILY, stack, theirs)
    assert_same(again.arrays, {k: np.asarray(v) for k, v in by_path(stack).items()})


@pytest.mark.parametrize(
    ("kind", "layer", "directions"),
    [
        ("lstm", lambda: LSTM(4, biases=2), 1),
        ("gru", lambda: GRU(4), 1),
        ("rnn", lambda: SimpleRNN(4, biases=2, activation="relu"), 1),
        ("lstm", lambda: Bidirectional("lstm", 4, biases=2), 2),
        ("gru", lambda: Bidirectional("gru", 4), 2),
        ("rnn", lambda: RecurrentStack("rnn", 4, biases=2), 1),
    ],
)
def test_one_layer_alone_and_a_cell(kind, layer, directions, rng):
    weights, layer = made_up(kind, rng, directions=directions), layer()
    layer.build((None, None, 3))
    fill(layer, weights)
    assert_same(to_theirs(FAMILY, layer), weights)
    if directions == 1:  # `nn.LSTMCell` has no numbers
        cell = {name.removesuffix("_l0"): value for name, value in weights.items()}
        layer_alone = getattr(layer, "rnns", [layer])[0]
        renamed = to_ours(FAMILY, layer_alone, cell)
        assert renamed.missing == renamed.left_over == ()


def formula(kind, weights, x, activation=np.tanh):
    """The last output of one layer of PyTorch without biases, by its documentation."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    h = c = np.zeros((len(x), 4))
    for t in range(x.shape[1]):
        a, b = x[:, t] @ weights["weight_ih_l0"].T, h @ weights["weight_hh_l0"].T
        if kind == "rnn":
            h = activation(a + b)
        elif kind == "lstm":
            i, f, g, o = np.split(a + b, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (ar, az, an), (br, bz, bn) = np.split(a, 3, -1), np.split(b, 3, -1)
            z = sigmoid(az + bz)
            h = (1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * h
    return h


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("kind", "activation"), [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]
)
def test_without_biases_and_with_relu(kind, activation, training, rng):
    weights = {k: 0.5 * v for k, v in made_up(kind, rng, bias=False).items()}
    stack = RecurrentStack(kind, 4, biases=0, activation=activation)
    stack.build((None, None, 3))
    fill(stack, weights)
    assert_same(to_theirs(FAMILY, stack), weights)
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    y, _ = stack(x, training=training)
    relu = {"activation": lambda v: np.maximum(v, 0)} if activation == "relu" else {}
    np.testing.assert_allclose(y[:, -1], formula(kind, weights, x, **relu), atol=1e-5)


def test_the_gradient_through_relu_is_that_of_automatic_differentiation(rng):
    import tensorflow as tf

    layer = SimpleRNN(4, activation="relu", biases=2)
    layer.build((None, None, 3))
    layer.set_weights([0.5 * rng.normal(size=w.shape) for w in layer.weights])
    x, gradients = tf.constant(rng.normal(size=(2, 6, 3)), "float32"), []
    for training in (True, False):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x, training=training)[0] ** 2)
        gradients.append(tape.gradient(total, layer.trainable_variables))
    for own, automatic in zip(*gradients, strict=True):
        np.testing.assert_allclose(own, automatic, rtol=1e-4, atol=1e-5)


def test_a_stack_within_a_model(rng):
    from kerasdl import create_model

    model = create_model("char_gru", vocab_size=11, dim=3, units=4, num_layers=2)
    weights = made_up("gru", rng, layers=2)
    fill(model.stack, weights)
    assert_same(to_theirs(FAMILY, model.stack), weights)


def test_what_is_refused(rng):
    assert fraction(FAMILY, None, goldens.read("lstm").weights) == 1
    classic = GRU(4, reset_after=False)
    classic.build((None, None, 3))
    assert not FAMILY.accepts(classic)
    assert FAMILY.accepts(RecurrentStack("gru", 4))
    stack = RecurrentStack("lstm", 4, biases=2)
    stack.build((None, None, 3))
    more = made_up("lstm", rng, layers=2) | {"weight_hr_l0": np.zeros((2, 4), "float32")}
    assert "weight_hr_l0" in to_ours(FAMILY, stack, more).left_over  # a projection
    assert to_ours(FAMILY, stack, made_up("lstm", rng, bias=False)).missing == ("layer1/bias",)
    for make, message in [
        (lambda: LSTM(3, biases=3), "biases 3: not one of 0, 1, 2"),
        (lambda: GRU(3, biases=1), "biases 1: not one of 0, 2"),
        (lambda: SimpleRNN(3, activation="gelu"), "activation 'gelu': not one of tanh, relu"),
        (lambda: recurrent.make_recurrent("lstm", 3, "relu"), "activation 'relu': lstm has tanh"),
    ]:
        with pytest.raises(UserError, match=message):
            make()


def test_a_config_from_before_still_makes_the_same_layer():
    config = {"kind": "lstm", "units": 3, "num_layers": 2, "name": "stack"}
    stack = RecurrentStack.from_config(config)
    stack.build((None, None, 2))
    assert [tuple(w.shape) for w in stack.weights] == [(2, 12), (3, 12), (12,)] + [
        (3, 12),
        (3, 12),
        (12,),
    ]
    assert isinstance(stack, keras.layers.Layer)
