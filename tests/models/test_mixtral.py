"""What the paper on Mixtral promises."""

import numpy as np

from kerasdl.models.sequence.mixtral import mixtral_small


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
