"""What the recurrent layers promise: Keras' numbers and gradients, states, truncation, TFLite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kerasdl.layers.recurrent import GRU, LSTM, Bidirectional, RecurrentStack, SimpleRNN

KINDS = {
    "rnn": (SimpleRNN, keras.layers.SimpleRNN, {}),
    "lstm": (LSTM, keras.layers.LSTM, {}),
    "gru": (GRU, keras.layers.GRU, {}),
    "classic_gru": (GRU, keras.layers.GRU, {"reset_after": False}),
}
COUNTS = {"rnn": 24_704, "lstm": 98_816, "gru": 74_496, "classic_gru": 74_112}
SHORT, LONG = 5, 35  # without a loop and with one
every_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind, rng, units=6, dim=4, **kwargs):
    """Our layer and Keras', with the same weights, none of them at its start."""
    ours, theirs, more = KINDS[kind]
    ours = ours(units, reverse=kwargs.get("go_backwards", False), **more)
    theirs = theirs(units, return_sequences=True, return_state=True, **more, **kwargs)
    ours.build((None, None, dim))
    theirs.build((None, None, dim))
    ours.set_weights([0.4 * rng.normal(size=w.shape) for w in ours.weights])
    theirs.set_weights(ours.get_weights())
    return ours, theirs


def noise(rng, *shape):
    """Normal numbers as a tensor."""
    return tf.constant(rng.normal(size=shape), "float32")


def answers(function, sources, rng):
    """Outputs, final states and the gradients of their weighted sum."""
    with tf.GradientTape() as tape:
        tape.watch([s for s in sources if not isinstance(s, tf.Variable)])
        outputs, states = function()
        parts = [outputs, *states]
        total = sum(tf.reduce_sum(p * noise(rng, *p.shape)) for p in parts)
    return [*parts, *tape.gradient(total, sources)]


@every_kind
@pytest.mark.parametrize(
    ("length", "reverse", "masked", "training"),
    [
        (SHORT, False, False, True),
        (SHORT, True, True, True),
        (SHORT, False, True, False),
        (LONG, False, True, True),
        (LONG, True, False, True),
        (LONG, True, True, False),
    ],
)
def test_numbers_and_every_gradient_are_those_of_keras(
    kind, length, reverse, masked, training, rng
):
    ours, theirs = pair(kind, rng, go_backwards=reverse)
    x = noise(rng, 3, length, 4)
    state = [noise(rng, 3, 6) for _ in range(ours.states)]
    mask = rng.random((3, length)) < 0.6 if masked else None
    if masked:  # at both ends, and a whole sequence
        mask[0, :2], mask[1, -2:], mask[2] = False, False, True
        mask = tf.constant(mask)

    @tf.function
    def keras_answers():
        outputs, *states = theirs(
            x, initial_state=state if len(state) > 1 else state[0], mask=mask, training=training
        )
        return (tf.reverse(outputs, [1]) if reverse else outputs), states

    @tf.function
    def our_answers():
        return ours(x, initial_state=state, mask=mask, training=training)

    result = answers(our_answers, [x, *state, *(w.value for w in ours.weights)], rng_of(1))
    expected = answers(keras_answers, [x, *state, *(w.value for w in theirs.weights)], rng_of(1))
    assert len(result) == len(expected) == 1 + ours.states + 1 + ours.states + 3
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(b).max()), rtol=0)


def rng_of(seed):
    """A generator of its own."""
    return np.random.default_rng(seed)


def sigmoid(x):
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


def by_hand(kind, x, weights, states, mask, reverse):
    """The gate equations, step by step."""
    kernel, recurrent, bias = weights
    u = recurrent.shape[0]
    h, outputs = states[0], np.zeros((*x.shape[:2], u))
    c, last = states[-1], np.zeros((len(x), u))
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        zx = x[:, t] @ kernel
        if kind == "rnn":
            new = np.tanh(zx + h @ recurrent + bias)
        elif kind == "lstm":
            i, f, g, o = np.split(zx + h @ recurrent + bias, 4, -1)
            new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new = sigmoid(o) * np.tanh(new_c)
            c = np.where(mask[:, t, None], new_c, c)
        elif kind == "gru":
            xz, xr, xg = np.split(zx + bias[0], 3, -1)
            hz, hr, hg = np.split(h @ recurrent + bias[1], 3, -1)
            z = sigmoid(xz + hz)
            new = z * h + (1 - z) * np.tanh(xg + sigmoid(xr + hr) * hg)
        else:
            xz, xr, xg = np.split(zx + bias, 3, -1)
            uz, ur, ug = np.split(recurrent, 3, -1)
            z, r = sigmoid(xz + h @ uz), sigmoid(xr + h @ ur)
            new = z * h + (1 - z) * np.tanh(xg + (r * h) @ ug)
        h = np.where(mask[:, t, None], new, h)
        last = outputs[:, t] = np.where(mask[:, t, None], new, last)
    return [outputs, h, c] if kind == "lstm" else [outputs, h]


@every_kind
@pytest.mark.parametrize("reverse", [False, True])
def test_numbers_are_those_of_the_gate_equations(kind, reverse, rng):
    layer, _ = pair(kind, rng, go_backwards=reverse)
    x, mask = rng.normal(size=(3, LONG, 4)), rng.random((3, LONG)) < 0.6
    state = [rng.normal(size=(3, 6)) for _ in range(layer.states)]
    weights = [np.asarray(w, "float64") for w in layer.get_weights()]
    expected = by_hand(kind, x, weights, state, mask, reverse)
    outputs, final = layer(
        tf.constant(x, "float32"),
        initial_state=[tf.constant(s, "float32") for s in state],
        mask=mask,
    )
    for a, b in zip([outputs, *final], expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@every_kind
def test_parameters_are_those_of_the_facts(kind):
    layer, _, more = KINDS[kind]
    layer = layer(128, **more)
    layer.build((None, None, 64))
    assert layer.count_params() == COUNTS[kind]


def test_biases_start_at_0_and_that_of_the_forget_gate_at_1():
    lstm, gru = LSTM(3), GRU(3)
    lstm.build((None, None, 2)), gru.build((None, None, 2))
    np.testing.assert_array_equal(lstm.bias, [0] * 3 + [1] * 3 + [0] * 6)
    np.testing.assert_array_equal(gru.bias, np.zeros((2, 9)))
    u = np.asarray(lstm.recurrent_kernel)
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-6)  # rows of an orthogonal matrix


@every_kind
def test_a_stateful_layer_goes_on_as_that_of_keras(kind, rng):
    make, theirs, more = KINDS[kind]
    x = noise(rng, 3, 12, 4)
    ours = make(6, stateful=True, **more)
    theirs = theirs(6, stateful=True, return_sequences=True, **more)
    whole = make(6, **more)
    ours(x[:, :4]), whole(x)
    theirs.build((3, 4, 4))
    weights = ours.get_weights()[:3]
    assert len(ours.trainable_weights) == 3
    for layer in (theirs, whole):
        for weight, value in zip(layer.trainable_weights, weights, strict=True):
            weight.assign(value)
    ours.reset_state()
    expected = np.asarray(whole(x)[0])
    for begin in (0, 4, 8):
        part = x[:, begin : begin + 4]
        outputs, _ = ours(part, training=True)
        np.testing.assert_allclose(outputs, theirs(part), atol=1e-5)
        np.testing.assert_allclose(outputs, expected[:, begin : begin + 4], atol=1e-5)
    again, _ = ours(x[:, :4])
    assert np.abs(again - expected[:, :4]).max() > 1e-3
    ours.reset_state()
    np.testing.assert_allclose(ours(x[:, :4])[0], expected[:, :4], atol=1e-5)


def test_a_stateful_layer_refuses_an_unknown_batch_size():
    with pytest.raises(ValueError, match="batch size must be static"):
        LSTM(3, stateful=True).build((None, 4, 2))


@every_kind
@pytest.mark.parametrize(("length", "reverse"), [(9, False), (9, True), (LONG, False)])
def test_truncation_cuts_the_gradient_and_nothing_else(kind, length, reverse, rng):
    make, _, more = KINDS[kind]
    whole, cut = make(5, reverse=reverse, **more), make(5, reverse=reverse, truncate=4, **more)
    x, state = noise(rng, 2, length, 3), [noise(rng, 2, 5) for _ in range(whole.states)]
    whole(x), cut(x)
    cut.set_weights(whole.get_weights())
    np.testing.assert_array_equal(
        cut(x, initial_state=state, training=True)[0], whole(x, initial_state=state)[0]
    )
    ordered = (lambda a: np.asarray(a)[:, ::-1]) if reverse else np.asarray
    for training in (False, True):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, *state])
            outputs, _ = cut(x, initial_state=state, training=training)
            steps = tf.unstack(outputs, axis=1)
            steps = steps[::-1] if reverse else steps
            sixth, third = tf.reduce_sum(steps[6]), tf.reduce_sum(steps[3])
        reach = np.abs(ordered(tape.gradient(sixth, x))).max(axis=(0, 2))
        assert (reach[4:7] > 0).all()
        assert reach[:4].max() == reach[7:].max() == 0
        assert np.abs(tape.gradient(sixth, state[0])).max() == 0
        assert np.abs(tape.gradient(third, state[0])).max() > 0


def test_truncation_is_back_propagation_in_pieces(rng):
    layer, pieces = LSTM(5, truncate=4), LSTM(5)
    x, by = noise(rng, 2, 12, 3), noise(rng, 2, 12, 5)
    layer(x), pieces(x)
    pieces.set_weights(layer.get_weights())
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(by * layer(x, training=True)[0])
    result = tape.gradient(total, [w.value for w in layer.weights])
    with tf.GradientTape() as tape:
        total, state = 0.0, None
        for begin in (0, 4, 8):
            y, state = pieces(x[:, begin : begin + 4], initial_state=state, training=True)
            total += tf.reduce_sum(by[:, begin : begin + 4] * y)
            state = [tf.stop_gradient(s) for s in state]
    for a, b in zip(result, tape.gradient(total, [w.value for w in pieces.weights]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@every_kind
def test_one_step_at_a_time_is_the_whole(kind, rng):
    layer, _ = pair(kind, rng)
    x = noise(rng, 2, LONG, 4)
    whole, final = layer(x)
    state, steps = None, []
    for t in range(LONG):
        y, state = layer(x[:, t : t + 1], initial_state=state)
        steps.append(y)
    np.testing.assert_allclose(tf.concat(steps, 1), whole, atol=1e-5)
    for a, b in zip(state, final, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@every_kind
@pytest.mark.parametrize("jit", [False, True])
def test_unknown_batch_and_time_and_compilation_change_nothing(kind, jit, rng):
    layer, _ = pair(kind, rng)
    x = noise(rng, 3, LONG, 4)

    def both(x):
        outputs, final = layer(x, training=True)
        return outputs, final, tf.gradients(tf.reduce_sum(outputs**2), [x])

    free = tf.function(both, jit_compile=jit, input_signature=[tf.TensorSpec((None, None, 4))])
    fixed = tf.function(both)(x)
    assert layer(keras.Input((None, 4)))[0].shape == (None, None, 6)
    for a, b in zip(tf.nest.flatten(free(x)), tf.nest.flatten(fixed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@every_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("bfloat16", 0.1)])
def test_it_computes_in_other_precisions(kind, dtype, tolerance, rng):
    make, _, more = KINDS[kind]
    x, state = (
        rng.normal(size=(2, LONG, 3)),
        [rng.normal(size=(2, 4))] * (2 if kind == "lstm" else 1),
    )
    layer = make(4, dtype="float64" if dtype == "float64" else "mixed_bfloat16", **more)
    mask = np.ones((2, LONG), bool)
    with tf.GradientTape() as tape:
        outputs, final = layer(x, initial_state=state, mask=mask, training=True)
        total = tf.reduce_sum(outputs)
    assert {outputs.dtype.name, *(s.dtype.name for s in final)} == {dtype}
    for gradient in tape.gradient(total, [w.value for w in layer.weights]):
        assert gradient.dtype.name == layer.kernel.dtype
        assert np.isfinite(gradient).all()
    weights = [np.asarray(w, "float64") for w in layer.get_weights()]
    expected = by_hand(kind, x, weights, state, mask, False)[0]
    np.testing.assert_allclose(tf.cast(outputs, "float64"), expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_both_directions_are_those_of_keras(kind, rng):
    ours = Bidirectional(kind, 5)
    inner = KINDS[kind][1](5, return_sequences=True, return_state=True)
    theirs = keras.layers.Bidirectional(inner)
    x, mask = noise(rng, 2, 7, 3), tf.constant(rng.random((2, 7)) < 0.7)
    ours(x), theirs(x)
    ours.set_weights([0.5 * rng.normal(size=w.shape) for w in ours.weights])
    theirs.set_weights(ours.get_weights())
    state = [noise(rng, 2, 5) for _ in range(ours.states)]
    outputs, final = ours(x, initial_state=state, mask=mask)
    for a, b in zip([outputs, *final], theirs(x, initial_state=state, mask=mask), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_mask_goes_on_to_the_next_layer():
    inputs = keras.Input((None,))
    x = keras.layers.Embedding(5, 3, mask_zero=True)(inputs)
    y, _ = LSTM(4)(x)
    model = keras.Model(inputs, [y, keras.layers.GlobalAveragePooling1D()(y)])
    sequence, mean = model(np.array([[1, 2, 3, 0, 0]]))
    np.testing.assert_array_equal(sequence[0, 3:], np.asarray(sequence)[0, [2, 2]])
    np.testing.assert_allclose(mean[0], np.mean(sequence[0, :3], axis=0), atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_is_its_layers(bidirectional, rng):
    stack = RecurrentStack("lstm", 5, 3, 0.4, bidirectional)
    x = noise(rng, 2, 7, 3)
    y, final = stack(x)
    assert y.shape == (2, 7, stack.width)
    assert len(final) == len(stack.zero_state(2)) == (12 if bidirectional else 6)
    by_layer, states = x, []
    for layer in stack.rnns:
        by_layer, state = layer(by_layer)
        states += state
    for a, b in zip([y, *final], [by_layer, *states], strict=True):
        np.testing.assert_array_equal(a, b)
    if not bidirectional:
        _, state = stack(x[:, :4])
        rest, state = stack(x[:, 4:], initial_state=state)
        for a, b in zip([rest, *state], [y[:, 4:], *final], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(stack(x, training=True)[0] - y).max() > 1e-3


def test_the_first_layer_sees_all_its_input_in_training(rng):
    single = RecurrentStack("gru", 5, 1, 0.9)
    x = noise(rng, 2, 7, 3)
    np.testing.assert_array_equal(single(x, training=True)[0], single(x)[0])


def test_the_final_outputs_are_those_of_the_last_step_of_each_direction(rng):
    x = noise(rng, 2, 7, 3)
    for kind in ("gru", "lstm"):
        stack, both = RecurrentStack(kind, 5, 2), RecurrentStack(kind, 5, 2, bidirectional=True)
        y, state = stack(x)
        np.testing.assert_array_equal(stack.final_outputs(state), y[:, -1])
        y, state = both(x)
        expected = tf.concat([y[:, -1, :5], y[:, 0, 5:]], axis=-1)
        np.testing.assert_array_equal(both.final_outputs(state), expected)


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_a_saved_model_answers_alike(length, tmp_path, rng):
    inputs = keras.Input((length, 3))
    y, state = RecurrentStack("gru", 5, 2, 0.1, True)(inputs)
    y, more = GRU(4, reset_after=False, truncate=3)(y)
    y, last = LSTM(4, reverse=True)(y)
    model = keras.Model(inputs, [y, *state, *more, *last])
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = noise(rng, 2, length, 3)
    for a, b in zip(model(x), again(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("length", "made_for", "batches"),
    [(8, None, (1, 3)), (None, 1, (1,))],
    ids=["short, any batch", "any time, batch 1"],
)
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_it_converts_to_builtin_operations(kind, length, made_for, batches, tmp_path, rng):
    model = RecurrentStack(kind, 5, 2, bidirectional=True)
    model.build((made_for, length, 3))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda x: dict(zip("abc", [model(x)[0], *model(x)[1][:2]], strict=True)),
        input_signature=[tf.TensorSpec((made_for, length, 3), name="x")],
    )
    archive.write_out(str(tmp_path), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path), signature_keys=["serve"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = Interpreter(model_content=converter.convert())
    if length:  # then no tensor's size waits for what is computed, but for the input's
        used = {operation["op_name"] for operation in interpreter._get_ops_details()}
        assert not used & {"SHAPE", "FILL", "GATHER"}
    runner = interpreter.get_signature_runner("serve")
    for batch in batches:
        for time in (length,) if length else (1, LONG):
            x = noise(rng, batch, time, 3)
            result = runner(x=x.numpy())
            for a, b in zip("abc", [model(x)[0], *model(x)[1][:2]], strict=True):
                np.testing.assert_allclose(result[a], b, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(0), "units 0: must be at least 1"),
        (lambda: GRU(3, truncate=0), "truncate 0: must be at least 1"),
        (lambda: Bidirectional("lstmm", 3), "kind 'lstmm': not one of rnn, lstm, gru"),
        (lambda: RecurrentStack("gru", 3, 0), "num_layers 0: must be at least 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
