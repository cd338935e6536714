"""Four examples in one picture: every column of theirs, the same in any part of a batch."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import ABSENT, Column
from kerasdl.data import augment, mosaic
from kerasdl.data.augment import Augment
from kerasdl.data.pipeline import training_batches
from kerasdl.data.splits import ArraySplit
from kerasdl.errors import UserError
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.task import Task
from tests.data.test_moving import COLUMNS, H, M, W, shapes, tight

NAMES = ("image", "mask", "instances", "boxes", "labels", "valid")
OF = {name: COLUMNS[name] for name in NAMES} | {"crowd": COLUMNS["valid"]}


def test_quarters_are_of_four_examples():
    count = 16
    rows = shapes(count)
    u = noise.uniform(noise.keys(3, 0, tf.range(count)), (2,), 0, "float32")
    after = {name: value.numpy() for name, value in mosaic.mosaic(rows, OF, u).items()}
    before = {name: value.numpy() for name, value in rows.items()}
    centers = np.floor((0.25 + 0.5 * u.numpy()) * np.float32([H, W])).astype(int)
    assert len({tuple(c) for c in centers.tolist()}) > 8
    kept = 0
    for i, (cy, cx) in enumerate(centers):
        four = [(i + k) % count for k in range(4)]
        areas = (slice(0, cy), slice(0, cx)), (slice(0, cy), slice(cx, W))
        areas += (slice(cy, H), slice(0, cx)), (slice(cy, H), slice(cx, W))
        parts = (slice(H - cy, H), slice(W - cx, W)), (slice(H - cy, H), slice(0, W - cx))
        parts += (slice(0, H - cy), slice(W - cx, W)), (slice(0, H - cy), slice(0, W - cx))
        for source, area, part in zip(four, areas, parts, strict=True):
            for name in ("image", "mask"):
                np.testing.assert_array_equal(after[name][i][area], before[name][source][part])
        sizes = []
        for m in range(M):
            label, box = after["labels"][i, m], after["boxes"][i, m] * [H, W, H, W]
            there = after["valid"][i, m] | after["crowd"][i, m]
            assert there == (label != ABSENT)
            if not there:
                assert not box.any() and not after["instances"][i, m].any()
                continue
            seen = after["instances"][i, m]
            assert np.abs(box - tight(seen)).max() <= 1.001
            (quarter,) = [k for k, area in enumerate(areas) if seen[area].any()]  # of one alone
            same = [
                before["labels"][four[quarter], n]
                for n in range(M)
                if np.array_equal(
                    before["instances"][four[quarter], n][parts[quarter]], seen[areas[quarter]]
                )
            ]
            assert label in same
            sizes.append(np.prod(box[2:] - box[:2]))
            kept += 1
        assert (np.diff(sizes) < 1e-3).all()  # the largest first
    assert kept > 40


def test_the_largest_objects_are_kept():
    boxes = np.zeros((4, 2, 4), np.float32)
    boxes[:, 0] = [0.4, 0.4, 0.6, 0.6]  # a quarter of it is seen of each
    boxes[0, 1] = boxes[3, 1] = [0, 0, 1, 1]
    columns = {"image": Column("image", (8, 8, 1)), "boxes": Column("boxes", (2, 4))}
    batch = {"image": tf.zeros((4, 8, 8, 1)), "boxes": tf.constant(boxes)}
    after = mosaic.mosaic(batch, columns, tf.fill((4, 2), 0.5))["boxes"].numpy()
    for i in range(4):
        expected = [k for k in range(4) if (i + k) % 4 in (0, 3)]
        quarters = [[[0, 0], [0, 0.5], [0.5, 0], [0.5, 0.5]][k] for k in expected]
        assert after[i, :, :2].tolist() == quarters
        np.testing.assert_allclose(after[i, :, 2:] - after[i, :, :2], 0.5)


def batches(steps, start=0, shard=(0, 1)):
    rows = {name: value.numpy() for name, value in shapes(24).items()}
    made = Augment(("mosaic", "flip", "color"))
    data = training_batches(
        ArraySplit(rows),
        OF,
        batch_size=8,
        seed=4,
        augment=made,
        start_step=start,
        stop_step=steps,
        shard=shard,
    )
    return list(data.as_numpy_iterator())


def test_it_repeats_from_any_step_and_in_any_part_of_a_batch():
    whole, again, later = batches(5), batches(5), batches(5, 3)
    halves = [batches(5, 0, (i, 2)) for i in range(2)]
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            np.testing.assert_array_equal(value, again[step][name])
            both = np.concatenate([half[step][name] for half in halves])
            np.testing.assert_array_equal(value, both)
            if step >= 3:
                np.testing.assert_array_equal(value, later[step - 3][name])
    assert (whole[0]["index"] != whole[3]["index"]).any()


def test_what_it_is_not_for():
    recipe = Recipe(augment=("mosaic",))
    assert augment.from_recipe(recipe, Task, OF).couples
    assert not augment.from_recipe(recipe, Task, OF).mixes
    for name in ("class", "caption"):
        with pytest.raises(UserError, match=f"--augment mosaic .*the model's task uses {name}$"):
            augment.from_recipe(recipe, Task, OF | {name: COLUMNS[name]})
