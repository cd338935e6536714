"""Pretext tasks: what is made of an image, and what its class is."""

import math

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.ops import noise, tiles
from kerasdl.recipe import Recipe
from kerasdl.tasks.jigsaw import Jigsaw
from kerasdl.tasks.place_tiles import PlaceTiles
from kerasdl.tasks.rotate import Rotate

RECIPES = {Rotate: "rotnet", PlaceTiles: "relative_patches_small", Jigsaw: "jigsaw"}


def task_of(kind, shape, **task_kwargs):
    info = DataInfo.of_images(shape, ("a", "b", "c"), (0.25,) * shape[-1])
    return kind(info, Recipe(model=RECIPES[kind], task_kwargs=task_kwargs))


def batch_of(n, shape):
    """Images whose pixels say where they are: `row + column / 1000`, plus 10 per channel."""
    y, x, c = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    image = np.broadcast_to(y + x / 1000 + 10.0 * c, (n, *shape)).astype("float32")
    return {"image": image, "key": np.asarray(noise.keys(3, 0, np.arange(n)))}


def corners(pieces):
    """Row and column of the first pixel of each tile `(B, N, h, w, C)`; none may be mixed up."""
    pieces = np.asarray(pieces)
    first = pieces[:, :, :1, :1, :1]
    h, w = pieces.shape[2:4]
    inside = np.arange(h)[:, None] + np.arange(w) / 1000
    np.testing.assert_allclose(pieces[..., 0], (first[..., 0] + inside), atol=1e-3)
    place = first[:, :, 0, 0, 0]
    top = np.floor(place + 1e-4).astype(int)
    return top, np.round(1000 * (place - top)).astype(int)


def test_four_rotations_of_each_image(rng):
    image = rng.random((3, 4, 4, 2), np.float32)
    logits = {}

    def model(x, training):
        """Each image's logits are made up, and looked up by its pixels."""
        rows = [logits.setdefault(a.tobytes(), rng.normal(size=4)) for a in np.asarray(x)]
        return np.stack(rows).astype("float32")

    loss, metrics = task_of(Rotate, (4, 4, 2)).losses(model, {"image": image})
    expected, right = np.zeros((3, 4)), np.zeros((3, 4))
    for i, picture in enumerate(image):
        for k in range(4):
            z = logits[np.ascontiguousarray(np.rot90(picture, k)).tobytes()]
            expected[i, k] = np.log(np.exp(z).sum()) - z[k]
            right[i, k] = z.argmax() == k
    assert len(logits) == 12
    np.testing.assert_allclose(loss, expected.mean(1), rtol=1e-5)
    np.testing.assert_array_equal(metrics["rotation_top1"], right.mean(1))
    chance, _ = task_of(Rotate, (4, 4, 2)).losses(
        lambda x, training: np.zeros((len(x), 4)), {"image": image}
    )
    np.testing.assert_allclose(chance, math.log(4), atol=1e-12)
    with pytest.raises(ValueError, match="images of 4x6 pixels: rotated ones must be square"):
        task_of(Rotate, (4, 6, 1))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 50)])
def test_pairs_of_neighbors(height, width):
    made = task_of(PlaceTiles, (height, width, 1)).prepare(batch_of(600, (height, width, 1)))
    place = np.asarray(made["place"])
    assert np.bincount(place, minlength=8).min() > 40
    for axis, (side, at) in enumerate(zip((height, width), corners(made["tiles"]), strict=True)):
        tile, gap, jitter = tiles.pair_sides(side)
        assert made["tiles"].shape[2 + axis] == tile and jitter >= 1
        step = (at[:, 1] - at[:, 0]) - np.array(tiles.DIRECTIONS)[place, axis] * (tile + gap)
        assert step.min() == -2 * jitter and step.max() == 2 * jitter
        assert at.min() == 0 and at.max() == side - tile  # anywhere, but never outside


def test_the_papers_sizes():
    assert tiles.pair_sides(254) == (96, 48, 7)
    assert tiles.cell_sides(225) == (75, 64)
    for side in range(12, 300):
        tile, gap, jitter = tiles.pair_sides(side)
        assert 2 * tile + gap + 2 * jitter <= side and jitter >= 0


def test_one_channel_of_each_tile_stays():
    batch = batch_of(300, (32, 32, 3))
    kept = task_of(PlaceTiles, (32, 32, 3), color="keep").prepare(batch)
    made = task_of(PlaceTiles, (32, 32, 3)).prepare(batch)
    a, b = np.asarray(kept["tiles"]), np.asarray(made["tiles"])
    same = (a == b).all((2, 3))  # (B, 2, C)
    assert (same.sum(-1) == 1).all()
    assert (same.mean((0, 1)) > 0.25).all() and (same[:, 0] != same[:, 1]).any()
    other = b.transpose(0, 1, 4, 2, 3)[~same]
    std = a[..., 0].std((2, 3)).mean()
    np.testing.assert_allclose(other.mean(), 0.25, atol=0.01)
    np.testing.assert_allclose(other.std(), 0.01 * std, rtol=0.05)


def test_nine_tiles_in_an_order():
    made = task_of(Jigsaw, (66, 70, 1)).prepare(batch_of(800, (66, 70, 1)))
    order = np.asarray(made["order"])
    assert set(order) == set(range(64))
    top, left = corners(made["tiles"])
    (cell_h, h), (cell_w, w) = tiles.cell_sides(66), tiles.cell_sides(70)
    np.testing.assert_array_equal(
        3 * (top // cell_h) + left // cell_w, tiles.distant_permutations()[order]
    )
    for at, cell, tile in ((top, cell_h, h), (left, cell_w, w)):
        assert set(np.unique(at % cell)) == set(range(cell - tile + 1))


def test_permutations_are_far_apart():
    for count in (64, 72):
        orders = tiles.distant_permutations(count)
        assert len(orders) == count and (np.sort(orders) == np.arange(9)).all()
        apart = (orders[:, None] != orders).sum(-1)
        assert apart[~np.eye(count, dtype=bool)].min() == 8
    np.testing.assert_array_equal(orders[0], np.arange(9))


@pytest.mark.parametrize("kind", [PlaceTiles, Jigsaw])
def test_loss_and_answers(kind):
    task = task_of(kind, (32, 32, 1))
    batch = task.prepare(batch_of(5, (32, 32, 1)))
    assert task.prepare(batch) is batch
    classes = {PlaceTiles: 8, Jigsaw: 64}[kind]
    loss, metrics = task.losses(lambda x, training: np.zeros((len(x), classes)), batch)
    np.testing.assert_allclose(loss, math.log(classes), atol=1e-6)
    label = np.asarray(batch[task.pretext])
    np.testing.assert_array_equal(metrics["pretext_top1"], label == 0)
