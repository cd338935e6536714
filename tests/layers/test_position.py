"""What positions promise."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.position import (
    LearnedPosition,
    SinusoidalPosition,
    grid_sinusoids,
    rotate,
    sinusoids,
)


def test_sinusoids_are_those_of_the_paper():
    table = np.asarray(sinusoids(tf.range(50), 512, "float64"))
    np.testing.assert_allclose(table[1, :2], [0.8414709848078965, 0.5403023058681398], atol=1e-9)
    np.testing.assert_array_equal(table[0], np.tile([0.0, 1.0], 256))
    np.testing.assert_allclose(table[7, 100], np.sin(7 / 10000 ** (100 / 512)), atol=1e-12)
    np.testing.assert_allclose(table[7, 101], np.cos(7 / 10000 ** (100 / 512)), atol=1e-12)


def test_sinusoids_have_the_squared_norm_of_half_the_channels():
    table = np.asarray(sinusoids(tf.range(50), 16, "float64"))
    np.testing.assert_allclose((table**2).sum(-1), 8, atol=1e-9)


def test_the_sinusoids_of_a_grid_are_those_of_the_row_and_of_the_column():
    table = np.asarray(grid_sinusoids([0.5, 3], [2, 0.25], 8, "float64"))
    rows, columns = (np.asarray(sinusoids(v, 4, "float64")) for v in ([0.5, 3], [2, 0.25]))
    np.testing.assert_array_equal(table, np.concatenate([rows, columns], -1))
    np.testing.assert_allclose(table[0, :2], [np.sin(0.5), np.cos(0.5)], atol=1e-12)


def test_rotations_keep_norms_and_know_only_distances(rng):
    query, key = rng.normal(size=(2, 1, 1, 1, 8))  # float64
    at = np.arange(40)
    everywhere = [np.broadcast_to(v, (1, 1, 40, 8)) for v in (query, key)]
    q, k = (np.asarray(rotate(tf.constant(v), at))[0, 0] for v in everywhere)  # (40, 8)
    np.testing.assert_allclose((q**2).sum(-1), (query**2).sum(), atol=1e-12)
    products = q @ k.T
    for distance in range(-39, 40):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-12)
    assert np.abs(products[0, 1] - products[1, 0]) > 1e-3


def test_rotations_turn_pairs_of_neighbors(rng):
    x = rng.normal(size=(1, 1, 1, 4))
    a, b, c, d = x.ravel()
    s, t = 3.0, 3.0 / 100  # 10000^(-2i/4)
    expected = [
        a * np.cos(s) - b * np.sin(s),
        a * np.sin(s) + b * np.cos(s),
        c * np.cos(t) - d * np.sin(t),
        c * np.sin(t) + d * np.cos(t),
    ]
    np.testing.assert_allclose(np.ravel(rotate(tf.constant(x), [3])), expected, atol=1e-12)


@pytest.mark.parametrize("layer", [SinusoidalPosition(), LearnedPosition(9)])
@pytest.mark.parametrize("position", [5, tf.constant(5)])
def test_later_tokens_may_come_alone(layer, position, rng):
    x = rng.normal(size=(2, 9, 6)).astype("float32")
    whole = layer(x)
    assert np.abs(whole - x).max() > 0.01
    np.testing.assert_array_equal(layer(x[:, 5:8], position=position), whole[:, 5:8])


def test_what_has_no_position_is_refused(rng):
    x = rng.normal(size=(2, 9, 5)).astype("float32")
    with pytest.raises(ValueError, match="9 tokens from position 0 on: there are only 8 positions"):
        LearnedPosition(8)(x)
    for position in (8, -1, tf.constant(8)):
        with pytest.raises(ValueError, match=f"1 tokens from position {position}"):
            LearnedPosition(8)(x[:, :1], position=position)
    with pytest.raises(ValueError, match="need an even number of channels, got 5"):
        SinusoidalPosition()(x)
