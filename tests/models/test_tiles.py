"""What the papers on tiles of an image promise: context prediction and puzzles."""

import numpy as np
import pytest

from kerasdl.models.selfsupervised.jigsaw import jigsaw_small
from kerasdl.models.selfsupervised.relative_patches import relative_patches_small

SIZES = {"depths": (1, 1), "filters": 4, "tile_dim": 5, "hidden_dim": 7}
MAKE = {"relative_patches_small": relative_patches_small, "jigsaw_small": jigsaw_small}


@pytest.fixture(scope="module", params=MAKE)
def model(request):
    return MAKE[request.param]((32, 28, 1), **SIZES)


def test_one_tower_for_all_tiles(model, rng):
    """Figure 3 of both papers: tiles are seen apart, and meet behind their dense layers."""
    x = rng.random((3, model.tiles, *model.tile_shape), np.float32)
    seen = np.stack([np.asarray(model.look(x[:, i])) for i in range(model.tiles)], 1)
    kernel, bias = (np.asarray(w) for w in model.tile.weights)
    each = np.maximum(seen @ kernel + bias, 0).reshape(3, -1)
    assert each.shape == (3, 5 * model.tiles)
    kernel, bias = (np.asarray(w) for w in model.hidden.weights)
    hidden = np.maximum(each @ kernel + bias, 0)
    kernel, bias = (np.asarray(w) for w in model.head.weights)
    np.testing.assert_allclose(model(x), hidden @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_features_are_the_mean_over_tiles_from_edge_to_edge(model, rng):
    x = rng.random((2, 32, 28, 1), np.float32)
    h, w, _ = model.tile_shape
    tops, lefts = ((0, round((n - t) / 2), n - t) for n, t in ((32, h), (28, w)))
    seen = [model.look(x[:, y : y + h, z : z + w]) for y in tops for z in lefts]
    assert model.features(x).shape == (2, 8)
    np.testing.assert_allclose(model.features(x), np.mean(seen, axis=0), rtol=1e-4, atol=1e-6)


def test_a_puzzle_is_not_solved_by_brightness(rng):
    model = jigsaw_small((32, 32, 3), **SIZES)
    x = rng.random((2, 9, 8, 8, 3), np.float32)
    factor = rng.uniform(0.5, 1, (2, 9, 1, 1, 3)).astype("float32")
    np.testing.assert_allclose(model(factor * x + 1), model(x), rtol=1e-2, atol=1e-3)
    flat = np.zeros_like(x)
    assert np.isfinite(model(flat)).all()


def test_classes_and_backbones():
    pair, puzzle = (make((32, 32, 3), **SIZES) for make in MAKE.values())
    assert (pair.head.units, puzzle.head.units) == (8, 64)
    assert (pair.tile_shape, puzzle.tile_shape) == ((12, 12, 3), (8, 8, 3))
    model = jigsaw_small((24, 24, 1), backbone="vit_digits", depth=1, tile_dim=3)
    assert model.features(np.zeros((2, 24, 24, 1), "float32")).shape[0] == 2
