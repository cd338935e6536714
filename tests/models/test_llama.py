"""What the papers on Llama and Mixtral promise."""

import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models.sequence.llama import llama_small, mixtral_small
from tests.variants import tiny

SIZES = {"vocab_size": 11, "max_length": 9, "dim": 12, "depth": 2, "num_heads": 6, "mlp_dim": 20}


def make(rng, **options):
    model = llama_small(**SIZES | options)
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


def test_tiny_ones_are_char_gpts():
    """So that what is tested of it need not be again."""
    names = ("char_gpt", "llama_small", "mixtral_small")
    configs = [catalog.build(name, **tiny(name)).get_config() for name in names]
    assert [config.pop("name") for config in configs] == list(names)
    assert configs[0] == configs[1] == configs[2]


@pytest.fixture
def ids(rng):
    return rng.integers(0, 11, (3, 9)).astype("int32")


def test_there_are_no_biases_and_norms_only_scale():
    paths = [w.path for w in llama_small(**SIZES, num_kv_heads=2).weights]
    assert {path.rpartition("/")[2] for path in paths} == {"kernel", "scale", "table"}
    assert len(paths) == 2 + 2 * 7 + 1


def test_grouped_heads_are_equal_heads(rng, ids):
    """Llama 2, section 2.2: key and value of a group stand for those of each of its heads."""
    grouped = make(rng, num_kv_heads=2, head_dim=4, use_bias=True)
    whole = make(rng, num_kv_heads=6, head_dim=4, use_bias=True)
    for ours, theirs in zip(whole.weights, grouped.weights, strict=True):
        value = np.asarray(theirs)
        if "qkv" in theirs.path:
            query, key, value = np.split(value, [24, 32], axis=-1)
            key, value = (np.split(part, 2, axis=-1) for part in (key, value))
            heads = [part[i // 3] for part in (key, value) for i in range(6)]
            value = np.concatenate([query, *heads], axis=-1)
        ours.assign(value)
    np.testing.assert_allclose(whole(ids), grouped(ids), rtol=1e-5, atol=1e-5)


def test_a_larger_base_turns_more_slowly(rng, ids):
    """With an endless one, all pairs but the first of each head stand still."""
    model = make(rng, num_kv_heads=2, head_dim=2, theta=7.0)
    other = llama_small(**SIZES, num_kv_heads=2, head_dim=2, theta=1e9)
    other.set_weights(model.get_weights())
    np.testing.assert_allclose(model(ids), other(ids), rtol=1e-6)  # a pair alone turns by 1
    model, other = (make(rng, num_kv_heads=2, head_dim=4, theta=t) for t in (7.0, 1e9))
    other.set_weights(model.get_weights())
    assert np.abs(model(ids) - other(ids)).max() > 1e-2


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_the_weights_of_experts_are_their_share_of_the_chosen_ones(rng):
    """Section 2.1: the softmax of the largest scores, which is that of all over their sum."""
    model = mixtral_small(
        vocab_size=11, dim=12, depth=1, num_heads=2, num_kv_heads=1, mlp_dim=5, num_experts=4
    )
    layer = model.blocks[0].mlp
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.normal(size=(2, 3, 12)).astype("float32")
    router, gate, up, down = (np.asarray(w, "float64") for w in layer.weights)
    gate, up, down = np.split(gate, 4, 1), np.split(up, 4, 1), np.split(down, 4)
    expected = np.zeros((6, 12))
    for token, y in zip(x.reshape(6, 12), expected, strict=True):
        share = softmax(token @ router)
        chosen = np.argsort(-share)[:2]
        for e in chosen:
            z = token @ gate[e]
            y += share[e] / share[chosen].sum() * (z / (1 + np.exp(-z)) * (token @ up[e])) @ down[e]
    np.testing.assert_allclose(layer(x), expected.reshape(2, 3, 12), rtol=1e-4, atol=1e-5)
