"""What the feed-forward parts promise: mixtures of experts, SwiGLU, and RMSNorm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.mlp import SwiGLU
from kerasdl.layers.moe import MixtureOfExperts
from kerasdl.layers.norm import RMSNorm


def parameters(layer, dim):
    """Trainable parameters of a layer on `dim` channels, which get no memory."""
    with keras.StatelessScope(initialize_variables=False):
        layer.build((None, None, dim))
    count = sum(int(np.prod(w.shape)) for w in layer.trainable_variables)
    keras.backend.clear_session()  # forgets the variables that wait for their values
    return count


def test_parameters():
    assert parameters(RMSNorm(), 64) == 64
    assert parameters(SwiGLU(11008), 4096) == 135_266_304
    assert parameters(MixtureOfExperts(8, 14336), 4096) == 1_409_318_912


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def settled(layer, rng):
    """The layer and its input `(2, 5, 6)`; weights in which experts differ much."""
    x = rng.normal(size=(2, 5, 6)).astype("float32")
    layer(x)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, x


def experts_of(layer, x):
    """The answer of every expert, `(E, B, N, D)`, each computed by a `SwiGLU` of its own."""
    _, gate, up, down = layer.get_weights()
    answers = []
    for e in range(layer.num_experts):
        units = slice(e * layer.hidden_dim, (e + 1) * layer.hidden_dim)
        expert = SwiGLU(layer.hidden_dim)
        expert.build(x.shape)
        expert.set_weights([gate[:, units], up[:, units], down[units]])
        answers.append(np.asarray(expert(x)))
    return np.stack(answers)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_chosen_experts_are_weighed(top_k, rng):
    layer, x = settled(MixtureOfExperts(4, 7, top_k), rng)
    scores = x @ layer.get_weights()[0]
    minimum = np.sort(scores, -1)[..., -top_k, None]
    weights = softmax(np.where(scores >= minimum, scores, -np.inf))  # (B, N, E)
    expected = np.einsum("bne,ebnd->bnd", weights, experts_of(layer, x))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_all_experts_chosen_are_the_softmax_mixture(rng):
    layer, x = settled(MixtureOfExperts(3, 7, 3), rng)
    weights = softmax(x @ layer.get_weights()[0])
    expected = np.einsum("bne,ebnd->bnd", weights, experts_of(layer, x))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_balance_is_one_where_routing_is_uniform_and_e_where_it_collapses():
    layer = MixtureOfExperts(4, 7, 1)
    x = np.eye(4, dtype="float32")[None]  # token i has channel i
    layer(x)
    _, *others = layer.get_weights()
    layer.set_weights([np.eye(4) * 1e-6, *others])  # token i prefers expert i, if hardly
    np.testing.assert_allclose(layer(x, return_balance=True)[1], [1], rtol=1e-5)
    layer.set_weights([np.eye(4) * 50, *others])  # by far, but still evenly
    np.testing.assert_allclose(layer(x, return_balance=True)[1], [1], rtol=1e-5)
    layer.set_weights([np.tile([50.0, 0, 0, 0], (4, 1)), *others])  # all prefer expert 0
    np.testing.assert_allclose(layer(x, return_balance=True)[1], [4], rtol=1e-5)


def test_balance_counts_every_choice(rng):
    layer, x = settled(MixtureOfExperts(4, 7, 2), rng)
    scores = x @ layer.get_weights()[0]
    chosen = scores >= np.sort(scores, -1)[..., -2, None]
    expected = 4 * (chosen.mean(1) / 2 * softmax(scores).mean(1)).sum(-1)
    np.testing.assert_allclose(layer(x, return_balance=True)[1], expected, rtol=1e-5)


def test_an_example_does_not_see_the_others(rng):
    layer, x = settled(MixtureOfExperts(4, 7), rng)
    for together, alone in zip(
        layer(x, return_balance=True), layer(x[1:], return_balance=True), strict=True
    ):
        np.testing.assert_allclose(together[1:], alone, rtol=1e-5, atol=1e-5)


def test_experts_that_are_not_chosen_learn_nothing(rng):
    layer = MixtureOfExperts(2, 3, 1)
    x = np.abs(rng.normal(size=(1, 5, 6))).astype("float32")
    layer(x)
    router, *others = layer.get_weights()
    layer.set_weights([np.tile([1.0, -1.0], (6, 1)), *others])
    with tf.GradientTape() as tape:
        y, balance = layer(x, return_balance=True)
        total = tf.reduce_sum(y**2) + tf.reduce_sum(balance)
    router, gate, *_ = tape.gradient(total, [w.value for w in layer.trainable_weights])
    assert np.abs(router).max() > 0  # through the balance alone
    assert np.abs(gate[:, :3]).min() > 0
    assert np.abs(gate[:, 3:]).max() == 0


@pytest.mark.parametrize("top_k", [0, 4])
def test_a_number_of_choices_that_cannot_be_is_refused(top_k):
    with pytest.raises(
        ValueError, match=f"top_k {top_k}: must be at least 1 and at most num_experts=3"
    ):
        MixtureOfExperts(3, 7, top_k)


def test_rms_norm_is_layer_norm_without_its_mean(rng):
    x = rng.normal(1.0, 3.0, (2, 5, 8)).astype("float32")
    norm = RMSNorm(epsilon=1e-6)
    y = np.asarray(norm(x))
    np.testing.assert_allclose((y**2).mean(-1), 1, atol=1e-6)
    np.testing.assert_allclose(norm(7 * x), y, atol=1e-6)
    layer_norm = keras.layers.LayerNormalization(epsilon=1e-6)
    np.testing.assert_allclose(norm(x - x.mean(-1, keepdims=True)), layer_norm(x), atol=1e-6)


def test_rms_norm_does_not_overflow_in_float16(rng):
    x = np.full((1, 4), 6e4, "float16")
    np.testing.assert_allclose(RMSNorm(dtype="mixed_float16")(x), 1, rtol=1e-3)
