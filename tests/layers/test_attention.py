"""What attention promises: identities, masks, and the same answers as Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    causal_mask,
    merge_heads,
    split_heads,
)
from kerasdl.layers.transformer import padding_mask

IDS = np.array([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])


def settle(layer, rng):
    """Every weight away from its start."""
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 5, 8)).astype("float32")


def test_rows_sum_to_one_and_equal_keys_give_the_mean(rng):
    query, value = rng.normal(size=(2, 2, 3, 5, 4))  # float64
    key = np.broadcast_to(rng.normal(size=(2, 3, 1, 4)), (2, 3, 5, 4))
    y, weights = attend(*map(tf.constant, (query, value, value)))
    np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, rtol=1e-12)
    y, weights = attend(*map(tf.constant, (query, key, value)))
    mean = np.broadcast_to(value.mean(2, keepdims=True), y.shape)
    np.testing.assert_allclose(y, mean, atol=1e-9)


def test_heads_split_and_merge(x):
    heads = split_heads(tf.constant(x), 2)
    assert tuple(heads.shape) == (2, 2, 5, 4)
    np.testing.assert_array_equal(heads[:, 1], x[..., 4:])
    np.testing.assert_array_equal(merge_heads(heads), x)


def test_a_causal_mask_knows_where_its_queries_stand():
    mask = causal_mask(tf.constant([2, 3]), tf.range(5))
    expected = [[True, True, True, False, False], [True, True, True, True, False]]
    np.testing.assert_array_equal(mask, expected)


def test_without_positions_a_permutation_of_tokens_permutes_the_answer(x, rng):
    layer = SelfAttention(2)
    order = rng.permutation(5)
    np.testing.assert_allclose(layer(x[:, order]), np.asarray(layer(x))[:, order], atol=1e-6)


def test_it_looks_only_where_the_mask_is_true(x):
    layer = SelfAttention(num_heads=2)
    mask = np.tril(np.ones((5, 5), bool))
    y, weights = layer(x, attention_mask=mask, return_weights=True)
    assert np.abs(np.asarray(weights)[:, :, ~mask]).max() == 0
    np.testing.assert_allclose(np.asarray(weights).sum(-1), 1, rtol=1e-6)
    x[:, 3:] += 1
    changed = layer(x, attention_mask=mask)
    np.testing.assert_array_equal(changed[:, :3], y[:, :3])


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_row_without_anything_to_look_at_is_finite(x, dtype):
    nowhere = np.zeros((1, 1, 1, 5), bool)
    for layer, inputs in (
        (SelfAttention(2, dtype=dtype), (x,)),
        (CrossAttention(2, dtype=dtype), (x, x)),
    ):
        y, weights = layer(*inputs, attention_mask=nowhere, return_weights=True)
        assert np.isfinite(np.asarray(y, "float32")).all()
        np.testing.assert_allclose(np.asarray(weights, "float32").sum(-1), 1, rtol=0.01)


MASKS = {
    "none": (None, {}),
    "causal": (None, {"use_causal_mask": True}),
    "padding": (padding_mask, {}),
    "both": (padding_mask, {"use_causal_mask": True}),
}


@pytest.mark.parametrize("kind", MASKS)
def test_self_attention_equals_that_of_keras(kind, x, rng):
    """Keras keeps the three projections apart; ours stand side by side in one kernel."""
    padding, theirs_causal = MASKS[kind]
    ours = SelfAttention(num_heads=2, causal=bool(theirs_causal))
    theirs = keras.layers.MultiHeadAttention(2, 4)
    ours(x), theirs(x, x)
    settle(ours, rng)
    qkv, bias, out, out_bias = ours.get_weights()
    parts = []
    for kernel, b in zip(np.split(qkv, 3, -1), np.split(bias, 3), strict=True):
        parts += [kernel.reshape(8, 2, 4), b.reshape(2, 4)]
    theirs.set_weights([*parts, out.reshape(2, 4, 8), out_bias])
    mask = None if padding is None else np.asarray(padding(IDS))
    y, weights = ours(x, attention_mask=mask, return_weights=True)
    mask = None if mask is None else mask[:, 0]
    expected, scores = theirs(
        x, x, attention_mask=mask, return_attention_scores=True, **theirs_causal
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(weights, scores, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_equals_that_of_keras(masked, x, rng):
    memory = rng.normal(size=(2, 5, 6)).astype("float32")[:, : IDS.shape[1]]
    ours, theirs = CrossAttention(num_heads=2), keras.layers.MultiHeadAttention(2, 4)
    ours(x[:, :3], memory), theirs(x[:, :3], memory)
    settle(ours, rng)
    parts = {w.path.split("/", 1)[1]: np.asarray(w.value) for w in ours.weights}
    theirs.set_weights(
        [
            *(
                parts[f"{name}/{kind}"].reshape(-1, 2, 4)[slice(None) if kind == "kernel" else 0]
                for name in ("query", "key", "value")
                for kind in ("kernel", "bias")
            ),
            parts["project/kernel"].reshape(2, 4, 8),
            parts["project/bias"],
        ]
    )
    mask = np.asarray(padding_mask(IDS)) if masked else None
    y, weights = ours(x[:, :3], memory, attention_mask=mask, return_weights=True)
    expected, scores = theirs(
        x[:, :3],
        memory,
        attention_mask=None if mask is None else mask[:, 0],
        return_attention_scores=True,
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(weights, scores, atol=1e-5)
    again = ours(x[:, :3], ours.remember(memory), attention_mask=mask)
    np.testing.assert_array_equal(again, y)


def test_grouped_heads_equal_repeated_ones(x, rng):
    grouped, full = SelfAttention(4, num_kv_heads=2, rotary=True), SelfAttention(4, rotary=True)
    grouped(x), full(x)
    settle(grouped, rng)
    qkv, bias, *project = grouped.get_weights()

    def repeat(columns):
        query, key, value = np.split(columns.reshape(-1, 8, 2), [4, 6], axis=1)
        key, value = key.repeat(2, axis=1), value.repeat(2, axis=1)
        return np.concatenate([query, key, value], 1).reshape(*columns.shape[:-1], 24)

    full.set_weights([repeat(qkv), repeat(bias), *project])
    mask = np.asarray(padding_mask(IDS))
    for ours, theirs in zip(
        grouped(x, attention_mask=mask, return_weights=True),
        full(x, attention_mask=mask, return_weights=True),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"rotary": True, "num_kv_heads": 2}])
def test_causal_attention_has_no_gradient_from_later_tokens(options, x):
    layer = SelfAttention(4, causal=True, **options)
    with tf.GradientTape() as tape:
        z = tf.constant(x)
        tape.watch(z)
        y = tf.reduce_sum(layer(z), axis=(0, 2))  # (N,)
    jacobian = np.abs(tape.jacobian(y, z)).max((1, 3))  # answer, token
    later = np.triu(np.ones((5, 5), bool), 1)
    assert (jacobian[later] == 0).all()
    assert (jacobian[~later] > 0).all()


def test_positions_are_added_for_the_keys_alone(x, rng):
    layer, positions = CrossAttention(2), rng.normal(size=(5, 8)).astype("float32")
    layer(x, x)
    there, nowhere = layer.remember(x, positions), layer.remember(x)
    np.testing.assert_array_equal(there[1], nowhere[1])
    moved = layer.remember(x + positions)
    np.testing.assert_array_equal(there[0], moved[0])
    assert np.abs(there[0] - nowhere[0]).max() > 0.01 < np.abs(there[1] - moved[1]).max()


@pytest.mark.parametrize("options", [{}, {"rotary": True, "num_kv_heads": 2}])
def test_a_cache_gives_the_same_answers(options, x):
    layer = SelfAttention(4, causal=True, **options)
    whole, weights = layer(x, return_weights=True)
    cache = [np.full((2, options.get("num_kv_heads", 4), 7, 2), 9.0, "float32")] * 2  # is hidden
    y, cache = layer(x[:, :2], cache=cache, position=0)
    parts = [y]
    for i in range(2, 5):
        y, w, cache = layer(
            x[:, i : i + 1], cache=cache, position=tf.constant(i), return_weights=True
        )
        np.testing.assert_allclose(w[:, :, 0, :5], weights[:, :, i], atol=1e-6)
        assert np.abs(w[..., i + 1 :]).max() == 0
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-6)


def test_a_cache_that_is_too_short_is_refused(x):
    layer = SelfAttention(2, causal=True)
    cache = [np.zeros((2, 2, 6, 4), "float32")] * 2
    for position in (2, tf.constant(2)):
        with pytest.raises(
            ValueError, match="5 tokens from position 2 on: there are only 6 positions"
        ):
            layer(x, cache=cache, position=position)
    with pytest.raises(ValueError, match="causal"):
        SelfAttention(2)(x, cache=cache)


def test_heads_that_do_not_divide_are_refused(x):
    for layer, inputs in ((SelfAttention(3), (x,)), (CrossAttention(3), (x, x))):
        with pytest.raises(ValueError, match="num_heads 3: must divide the 8 channels"):
            layer(*inputs)
    with pytest.raises(ValueError, match="num_kv_heads 3: must divide num_heads 4"):
        SelfAttention(4, num_kv_heads=3)(x)
    with pytest.raises(
        ValueError, match="an even number of channels per head: 8 channels in 8 heads are 1 each"
    ):
        SelfAttention(8, rotary=True)(x)
