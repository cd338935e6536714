"""What the recurrent language models promise: order, and decoding that equals reading at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.models.sequence import char_rnn as rows
from kerasdl.ops import decoding

NAMES = sorted(rows.TINY)
every_row = pytest.mark.parametrize("name", NAMES)


def tiny(name, **kwargs):
    """A row's tiny variant."""
    return getattr(rows, name)(**{**rows.TINY[name], **kwargs})


def tokens(rng, *shape):
    """Token ids of a tiny variant."""
    return rng.integers(0, 11, shape).astype("int32")


@every_row
@pytest.mark.parametrize("length", [9, 40])
def test_no_token_sees_a_later_one(name, length, rng):
    model = tiny(name, num_layers=2)
    one_hot = tf.one_hot(tokens(rng, 1, length), 11)

    def logits(x):
        y, _ = model.stack(x @ model.embedding.embeddings, training=True)
        return tf.reduce_sum(model.head(y), axis=-1)[0]  # (N,)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(one_hot)
        y = logits(one_hot)
    reach = np.abs(tape.jacobian(y, one_hot, experimental_use_pfor=False)[:, 0]).max(-1)
    assert (reach[np.triu_indices(length, 1)] == 0).all()
    assert (np.diag(reach) > 0).all()


@every_row
@pytest.mark.parametrize("parts", [(1,) * 12, (5, 1, 6), (12,), (0, 7, 5)])
def test_reading_in_parts_gives_the_logits_of_the_whole(name, parts, rng):
    model = tiny(name)
    ids = tokens(rng, 2, 12)
    decode_step = tf.function(
        lambda ids, state, position: model.decode_step(ids, state, position),
        input_signature=[
            tf.TensorSpec((None, None), tf.int32),
            [tf.TensorSpec((None, s.shape[1])) for s in model.init_cache(2)],
            tf.TensorSpec((), tf.int32),
        ],
    )
    whole = model(ids)
    for step in (decode_step, model.decode_step):
        if 0 in parts and step is not decode_step:
            continue  # nobody asks for nothing where the number is known
        state, position, result = model.init_cache(tf.constant(2), 12), 0, []
        for n in parts:
            logits, state = step(ids[:, position : position + n], state, tf.constant(position))
            assert logits.shape == (2, n, 11)
            result.append(logits)
            position += n
        np.testing.assert_allclose(np.concatenate(result, 1), whole, atol=1e-5)


@every_row
def test_a_whole_text_is_written_inside_a_graph(name, rng):
    model = tiny(name)
    prompt, length = tokens(rng, 3, 5), np.array([5, 2, 3], "int32")

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)])
    def generate(prompt):
        state = model.init_cache(ops.shape(prompt)[0], 10)
        limit = ops.zeros_like(length) + 10
        choose = lambda logits, position: decoding.greedy(logits)  # noqa: E731
        return decoding.generate(model.decode_step, state, prompt, length, 10, limit, choose)

    result = np.asarray(generate(prompt))
    for row, (text, n) in enumerate(zip(prompt, length, strict=True)):
        text = list(text[:n])
        while len(text) < 10:
            text.append(int(np.argmax(model(np.array([text], "int32"))[0, -1])))
        np.testing.assert_array_equal(result[row], text)


@every_row
def test_there_is_no_limit_of_context(name, rng):
    model = tiny(name)
    assert model.context is None
    assert model(tokens(rng, 1, 50)).shape == (1, 50, 11)
    assert [s.shape for s in model.init_cache(4, 10**9)] == [
        s.shape for s in model.init_cache(4, 1)
    ]


def test_parameters_are_those_of_the_layers():
    model = rows.char_lstm(20, 16, dim=5, units=7, num_layers=2)
    assert model.count_params() == 20 * 5 + 4 * 7 * (5 + 7 + 1) + 4 * 7 * (7 + 7 + 1) + 8 * 20


def test_dropout_acts_in_training_only(rng):
    model = tiny("char_gru", drop_rate=0.5)
    ids = tokens(rng, 2, 6)
    np.testing.assert_array_equal(model(ids), model(ids))
    assert np.abs(model(ids, training=True) - model(ids)).max() > 0


def test_logits_are_at_least_float32(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny("char_gru")
    assert model(tokens(rng, 2, 6)).dtype == "float32"
    assert {s.dtype for s in model.init_cache(2)} == {tf.bfloat16}


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="did you mean units"):
        rows.char_lstm(20, 16, unit=3)
    with pytest.raises(ValueError, match="num_layers 0"):
        rows.char_lstm(20, 16, num_layers=0)
