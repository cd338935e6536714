"""What the encoder-decoder Transformer promises, and the blocks that it is made of."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.transformer import DecoderBlock, EncoderBlock, TokenEmbedding
from kerasdl.models.sequence.transformer import TINY, transformer_base, transformer_small

both_norms = pytest.mark.parametrize("name", ["transformer_base", "transformer_small"])


def make(name="transformer_base", **more):
    """A tiny model, its weights away from their start."""
    builder = {"transformer_base": transformer_base, "transformer_small": transformer_small}[name]
    model = builder(**{**TINY[name], **more})
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(weight.value + 0.1 * rng.normal(size=weight.shape))
    return model


@pytest.fixture
def x(rng):
    """A whole source, a padded one, and one of padding alone."""
    source = rng.integers(1, 13, (3, 7)).astype("int32")
    source[1, 4:] = source[2] = 0
    return {"source_ids": source, "target_ids": rng.integers(1, 13, (3, 9)).astype("int32")}


def count(make_weights):
    """Trainable parameters of a layer, made without memory."""
    with keras.StatelessScope(initialize_variables=False):
        layer = make_weights()
    total = sum(math.prod(w.shape) for w in layer.trainable_variables)
    keras.backend.clear_session()  # forgets the variables that wait for their values
    return total


def built(layer, *shapes):
    layer.build(*shapes)
    return layer


def test_parameters_of_the_blocks():
    tokens = (None, None, 512)
    assert count(lambda: built(EncoderBlock(8, 2048), tokens)) == 3_152_384
    assert count(lambda: built(DecoderBlock(8, 2048), tokens, tokens)) == 4_204_032


@pytest.mark.parametrize("prenorm", [True, False])
def test_blocks_add_and_norm_in_their_order(prenorm, rng):
    x, memory = rng.normal(size=(2, 2, 5, 8)).astype("float32")
    mask = rng.random((2, 1, 5, 5)) < 0.7
    encoder = EncoderBlock(2, 16, prenorm=prenorm)
    decoder = DecoderBlock(2, 16, prenorm=prenorm)
    y, z = encoder(x, attention_mask=mask), decoder(x, memory, memory_mask=mask)

    def residual(x, norm, part):
        return x + part(norm(x)) if prenorm else norm(x + part(x))

    expected = residual(x, encoder.norm1, lambda x: encoder.attention(x, attention_mask=mask))
    expected = residual(expected, encoder.norm2, encoder.mlp)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    expected = residual(x, decoder.norm1, decoder.attention)
    expected = residual(
        expected, decoder.norm2, lambda x: decoder.cross(x, memory, attention_mask=mask)
    )
    expected = residual(expected, decoder.norm3, decoder.mlp)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)
    if not prenorm:
        np.testing.assert_allclose(np.mean(z, axis=-1), 0, atol=1e-5)
        np.testing.assert_allclose(np.var(z, axis=-1), 1, rtol=1e-3)


def test_blocks_drop_in_training_only(rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    for layer, inputs in ((EncoderBlock(2, 16, 0.5), (x,)), (DecoderBlock(2, 16, 0.5), (x, x))):
        np.testing.assert_array_equal(layer(*inputs), layer(*inputs))
        assert np.abs(layer(*inputs, training=True) - layer(*inputs)).max() > 0.1


def test_logits_are_products_with_the_embedding(rng):
    embedding = TokenEmbedding(7, 4)
    vectors = np.asarray(embedding(np.arange(7)[None]))[0]
    x = rng.normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(embedding.logits(x), x @ vectors.T, rtol=1e-5, atol=1e-6)


@both_norms
def test_no_target_position_sees_a_later_one(name, x, monkeypatch):
    model = make(name)
    vectors, embed = [], model.embedding.call
    monkeypatch.setattr(
        model.embedding, "call", lambda token_ids: vectors.append(embed(token_ids)) or vectors[-1]
    )
    with tf.GradientTape() as tape:
        scores = tf.reduce_sum(tf.sin(model({k: v[1:2] for k, v in x.items()})), axis=(0, 2))
    source, target = tape.jacobian(scores, vectors)
    jacobian = np.abs(target).max((1, 3))  # answer, token
    later = np.triu(np.ones((9, 9), bool), 1)
    assert (jacobian[later] == 0).all()
    assert (jacobian[~later] > 0).all()
    source = np.abs(source).max((1, 3))
    assert (source[:, :4] > 0).all()
    assert (source[:, 4:] == 0).all()  # padding


@both_norms
def test_padding_changes_nothing(name, x):
    model = make(name)
    logits = np.asarray(model(x))
    assert np.isfinite(logits).all()
    short = {"source_ids": x["source_ids"][1:2, :4], "target_ids": x["target_ids"][1:2]}
    np.testing.assert_allclose(model(short), logits[1:2], rtol=1e-5, atol=1e-5)
    x["target_ids"][:, 6:] = 0
    np.testing.assert_array_equal(model(x)[:, :6], logits[:, :6])


def test_a_source_of_padding_has_finite_gradients(x):
    model = make()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model({k: v[2:] for k, v in x.items()}, training=True) ** 2)
    for gradient in tape.gradient(loss, [w.value for w in model.trainable_variables]):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


@both_norms
def test_cached_decoding_gives_the_same_logits(name, x):
    model = make(name)
    whole = np.asarray(model(x))
    for prefill in (1, 4, 9):
        state = model.init_cache(x["source_ids"], 11)
        shapes = [tuple(part.shape) for part in state]
        logits, state = model.decode_step(x["target_ids"][:, :prefill], state, 0)
        np.testing.assert_allclose(logits, whole[:, :prefill], rtol=1e-5, atol=1e-5)
        for i in range(prefill, 9):
            token = x["target_ids"][:, i : i + 1]
            logits, state = model.decode_step(token, state, tf.constant(i))
            np.testing.assert_allclose(logits[:, 0], whole[:, i], rtol=1e-5, atol=1e-5)
        assert [tuple(part.shape) for part in state] == shapes
        assert {shape[0] for shape in shapes} == {3}


@both_norms
def test_attention_maps_are_those_that_the_logits_come_from(name, x):
    model = make(name)
    maps = np.asarray(model.attention_maps(x))
    blocks, heads = len(model.decoder), model.num_heads
    shape = (3, blocks, heads, x["target_ids"].shape[1], x["source_ids"].shape[1])
    assert maps.shape == shape
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert not maps[1, ..., 4:].any() and maps[1, ..., :4].all()  # the rest is padding
    cross = model.decoder[-1].cross
    seen = []
    usual, cross.call = cross.call, lambda y, *a, **k: seen.append((y, a, k)) or usual(y, *a, **k)
    model(x)
    ((y, (memory,), given),) = seen
    _, weights = usual(y, memory, **{**given, "return_weights": True})
    np.testing.assert_allclose(maps[:, -1], weights, rtol=1e-5, atol=1e-6)


@both_norms
def test_a_saved_model_is_the_same(name, x, tmp_path):
    model = make(name)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    state, twin = (m.init_cache(x["source_ids"], 9) for m in (model, again))
    for ours, theirs in zip(
        keras.tree.flatten(model.decode_step(x["target_ids"], state, 0)),
        keras.tree.flatten(again.decode_step(x["target_ids"], twin, 0)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_is_refused(x):
    with pytest.raises(ValueError, match="num_heads 3: must divide the 16 channels"):
        make(num_heads=3)
    model = make()
    with pytest.raises(
        ValueError, match="13 tokens from position 0 on: there are only 12 positions"
    ):
        model.init_cache(x["source_ids"], 13)
    with pytest.raises(ValueError, match="9 tokens from position 0 on: there are only 8 positions"):
        model.decode_step(x["target_ids"], model.init_cache(x["source_ids"], 8), 0)
