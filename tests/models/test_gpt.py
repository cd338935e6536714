"""What GPT promises, with every option."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.models.sequence.gpt import TINY, char_gpt, gpt2_small

OPTIONS = {
    "gpt2": {},
    "rotary": {"positions": "rotary"},
    "sinusoidal": {"positions": "sinusoidal"},
    "rms": {"norm": "rms"},
    "swiglu": {"mlp": "swiglu", "use_bias": False},
    "postnorm": {"prenorm": False},
    "grouped": {"num_kv_heads": 1},
    "experts": {"mlp": "swiglu", "num_experts": 3, "top_k": 2},
    "untied": {"tied": False},
    "all": TINY["char_gpt"],
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(options=None, **more):
    """A tiny model, its weights away from their start."""
    model = gpt2_small(**{**TINY["gpt2_small"], **(options or {}), **more})
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(weight.value + 0.2 * rng.normal(size=weight.shape))
    return model


@pytest.fixture
def ids(rng):
    return rng.integers(0, 13, (3, 9)).astype("int32")


def test_it_equals_the_gpt2_of_keras_hub(ids):
    import keras_hub

    ours = make({"dim": 16, "depth": 3, "prenorm": True})
    theirs = keras_hub.models.GPT2Backbone(13, 3, 4, 16, 24, dropout=0.0, max_sequence_length=12)
    by_path = {w.path.split("/", 1)[1]: np.asarray(w.value) for w in ours.weights}

    def split(name, i):
        """A third of the fused projection, apart in heads."""
        part = np.split(by_path[name], 3, axis=-1)[i]
        return part.reshape(*part.shape[:-1], 4, 4)

    theirs.token_embedding.set_weights([by_path["embedding/table"]])
    theirs.position_embedding.set_weights([by_path["positions/table"]])
    theirs.layer_norm.set_weights([by_path["norm/gamma"], by_path["norm/beta"]])
    for number, layer in enumerate(theirs.transformer_layers, 1):
        block = f"block{number}"
        values = []
        for i in range(3):
            values += [split(f"{block}/attention/qkv/{kind}", i) for kind in ("kernel", "bias")]
        kernel = by_path[f"{block}/attention/project/kernel"]
        values += [kernel.reshape(4, 4, 16), by_path[f"{block}/attention/project/bias"]]
        values += [by_path[f"{block}/norm1/{kind}"] for kind in ("gamma", "beta")]
        values += [by_path[f"{block}/mlp/dense1/{kind}"] for kind in ("kernel", "bias")]
        values += [by_path[f"{block}/mlp/dense2/{kind}"] for kind in ("kernel", "bias")]
        values += [by_path[f"{block}/norm2/{kind}"] for kind in ("gamma", "beta")]
        layer.set_weights(values)
    hidden = theirs({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    expected = theirs.token_embedding(hidden, reverse=True)
    np.testing.assert_allclose(ours(ids), expected, rtol=1e-4, atol=1e-5)


@every_option
def test_no_position_sees_a_later_one(options, ids, monkeypatch):
    model = make(options)
    vectors, embed = [], model.embedding.call
    monkeypatch.setattr(
        model.embedding, "call", lambda token_ids: vectors.append(embed(token_ids)) or vectors[-1]
    )
    with tf.GradientTape() as tape:
        scores = tf.reduce_sum(tf.sin(model(ids[:1])), axis=(0, 2))  # (N,)
    jacobian = np.abs(tape.jacobian(scores, vectors[0])).max((1, 3))  # answer, token
    later = np.triu(np.ones((9, 9), bool), 1)
    assert (jacobian[later] == 0).all()
    assert (jacobian[~later] > 0).all()


@every_option
def test_cached_decoding_gives_the_same_logits(options, ids):
    model = make(options)
    whole = np.asarray(model(ids))
    for prefill in (1, 4, 9):
        state = model.init_cache(3, 11)
        logits, state = model.decode_step(ids[:, :prefill], state, 0)
        np.testing.assert_allclose(logits, whole[:, :prefill], rtol=1e-5, atol=1e-5)
        for i in range(prefill, 9):
            logits, state = model.decode_step(ids[:, i : i + 1], state, tf.constant(i))
            np.testing.assert_allclose(logits[:, 0], whole[:, i], rtol=1e-5, atol=1e-5)


def greedy(model, token_ids, length):
    """Logits `(B, length, V)` of a greedy text that starts with `token_ids` `(B, 1)`."""
    batch = ops.shape(token_ids)[0]
    state = model.init_cache(batch, length)
    logits = ops.zeros((batch, length, 13))

    def step(i, token_ids, logits, *state):
        new, state = model.decode_step(token_ids, list(state), i)
        # not argmax, for which TFLite has no builtin as Keras makes it
        token_ids = ops.top_k(new[:, 0], 1)[1]
        return i + 1, token_ids, ops.slice_update(logits, (0, i, 0), new), *state

    init_cache = (ops.convert_to_tensor(0, "int32"), token_ids, logits, *state)
    return ops.while_loop(lambda i, *_: i < length, step, init_cache)[2]


@every_option
def test_a_loop_may_decode_any_number_of_texts(options, ids):
    model = make(options)
    function = tf.function(
        lambda x: greedy(model, x, 6), input_signature=[tf.TensorSpec((None, 1), tf.int32)]
    )
    for size in (1, 3):
        logits = np.asarray(function(ids[:size, :1]))
        written = np.concatenate([ids[:size, :1], logits.argmax(-1)[:, :-1]], axis=1)
        np.testing.assert_allclose(logits, model(written), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, TINY["char_gpt"]], ids=["gpt2", "all"])
def test_the_loop_has_builtins_for_tflite(options, ids, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = make(options)
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec((None, 1), tf.int32, name="token_ids")
    archive.add_endpoint("serve", lambda token_ids: {"logits": greedy(model, token_ids, 6)}, [spec])
    archive.write_out(str(tmp_path), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path), signature_keys=["serve"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    serve = Interpreter(model_content=converter.convert()).get_signature_runner("serve")
    for size in (1, 3):
        expected = greedy(model, tf.constant(ids[:size, :1]), 6)
        logits = serve(token_ids=ids[:size, :1])["logits"]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, TINY["char_gpt"]], ids=["gpt2", "all"])
def test_a_saved_model_is_the_same(options, ids, tmp_path):
    model = make(options)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(ids), model(ids))
    for ours, theirs in zip(
        keras.tree.flatten(model.decode_step(ids, model.init_cache(3, 9), 0)),
        keras.tree.flatten(again.decode_step(ids, again.init_cache(3, 9), 0)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_the_balance_of_experts_is_told_in_training_only(ids):
    model = make(OPTIONS["experts"], drop_rate=0.0)
    answer = model(ids, training=True)
    np.testing.assert_allclose(answer["logits"], model(ids), rtol=1e-5, atol=1e-5)
    losses, x = [], model.positions(model.embedding(ids))
    for block in model.blocks:
        x, _, balance = block(x)
        losses.append(balance)
    assert answer["balance_loss"].shape == (3,)
    np.testing.assert_allclose(answer["balance_loss"], np.mean(losses, axis=0), rtol=1e-6)
    assert make({})(ids, training=True).shape == (3, 9, 13)


def test_weights_start_as_those_of_gpt2():
    model = gpt2_small(vocab_size=50, max_length=40, dim=64, depth=8, num_heads=4, mlp_dim=256)
    for weight in model.trainable_variables:
        value = np.asarray(weight.value)
        if value.ndim > 1:
            added = "project" in weight.path or "dense2" in weight.path
            expected = 0.02 / 4 if added else 0.02  # sqrt(2 L) = 4
            np.testing.assert_allclose(value.std(), expected, rtol=0.1, err_msg=weight.path)
        else:
            assert np.ptp(value) == 0, weight.path


def test_it_starts_at_a_uniform_guess(rng):
    ids, following = rng.integers(0, 128, (2, 4, 64)).astype("int32")
    logits = char_gpt()(ids)
    loss = keras.losses.sparse_categorical_crossentropy(following, logits, from_logits=True)
    np.testing.assert_allclose(np.mean(loss), math.log(128), rtol=0.03)


def test_more_than_the_context_is_refused(ids):
    model = make({"positions": "rotary"})
    with pytest.raises(
        ValueError, match="13 tokens from position 0 on: there are only 12 positions"
    ):
        model(np.ones((1, 13), "int32"))
    for length in (13, tf.constant(13)):
        with pytest.raises(ValueError, match="there are only 12 positions"):
            model.init_cache(1, length)
    state = model.init_cache(3, 8)
    for position in (0, tf.constant(0)):
        with pytest.raises(ValueError, match="there are only 8 positions"):
            model.decode_step(ids, state, position)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads 3: must divide the 16 channels"),
        ({"num_kv_heads": 3}, "num_kv_heads 3: must divide num_heads 4"),
        ({"num_heads": 16, "positions": "rotary"}, "an even number of channels per head"),
        ({"positions": "rotary", "head_dim": 3}, "even number .* per head: head_dim is 3"),
        ({"head_dim": 0}, "head_dim 0: must be a whole number from 1 on"),
        ({"theta": 0.0}, "theta 0.0: must be above 0"),
        ({"activation": "gelu_new"}, "activation 'gelu_new': not one of relu"),
        ({"mlp": "swiglu", "activation": "prelu"}, "activation 'prelu': not one of relu"),
        ({"mlp": "swiglu", "num_experts": 2, "mlp_bias": True}, "experts have no biases"),
        ({"positions": "absolute"}, "positions 'absolute': not one of learned, rotary"),
        ({"norm": "batch"}, "norm 'batch': not one of layer, rms"),
        ({"mlp": "relu"}, "mlp 'relu': not one of gelu, swiglu"),
        ({"num_experts": 2}, "num_experts 2 needs mlp='swiglu'"),
        (
            {"num_experts": 2, "mlp": "swiglu", "top_k": 3},
            "top_k 3: must be at least 1 and at most num_experts",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gpt2_small(**{**TINY["gpt2_small"], **options})
