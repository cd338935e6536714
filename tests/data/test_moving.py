"""Augmentation of every kind of column: one draw per example moves all of them alike."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import ABSENT, VOID, Column, Spec
from kerasdl.data import augment, moving, warps
from kerasdl.data.augment import Augment
from kerasdl.data.pipeline import evaluation_batches, training_batches
from kerasdl.data.sources import open_source
from kerasdl.data.splits import ArraySplit
from kerasdl.errors import UserError
from kerasdl.ops import noise
from kerasdl.recipe import AUGMENTATIONS, Recipe
from kerasdl.tasks.task import Task

N, H, W, M = 24, 24, 32, 4
GEOMETRIC = ("resized_crop", "rotate", "shift", "flip", "crop", "vertical_flip")
COLUMNS = {
    "image": Column("image", (H, W, 3)),
    "video": Column("video", (5, H, W, 3)),
    "mask": Column("mask", (H, W), tuple("0123456789")),
    "instances": Column("instances", (M, H, W)),
    "boxes": Column("boxes", (M, 4)),
    "valid": Column("valid", (M,)),
    "labels": Column("label", (M,), tuple("0123456789")),
    "class": Column("label", (), tuple("0123456789")),
    "caption": Column("text"),
}


class Everything:
    inputs = {
        "image": Spec(("H", "W", "C"), "float32", "image"),
        "video": Spec((5, "H", "W", "C"), "float32", "video"),
    }
    targets = {
        "mask": Spec(("H", "W"), "int32", "mask"),
        "instances": Spec(("M", "H", "W"), "uint8", "instances"),
        "boxes": Spec(("M", 4), "float32", "boxes"),
        "valid": Spec(("M",), "bool", "valid"),
        "labels": Spec(("M",), "int32", "label"),
        "class": Spec((), "int32", "label"),
        "caption": Spec((), "string", "text"),
    }


@pytest.fixture(scope="module")
def batch():
    """Rectangles of a class each, in every column."""
    source = open_source("synthetic", task=Everything, image_size=(H, W))
    columns = source.train.read(range(N))
    assert {n: c.kind for n, c in source.info.columns.items()} == {
        n: c.kind for n, c in COLUMNS.items()
    }
    columns = {name: tf.constant(value) for name, value in columns.items()}
    for name in ("image", "video"):
        columns[name] = tf.cast(columns[name], tf.float32) / 255
    return {**columns, "key": noise.keys(0, 0, tf.range(N))}


def augmented(batch, *names, **settings):
    out = Augment(names, **settings)(batch, COLUMNS)
    return {name: value.numpy() for name, value in out.items()}


def tight(instances):
    """Boxes of rows, columns in pixels `ymin xmin ymax xmax` around what is there."""
    ys, xs = np.flatnonzero(instances.any(1)), np.flatnonzero(instances.any(0))
    return np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1])


def test_a_shift_and_a_flip_move_everything_alike(batch):
    before = {name: value.numpy() for name, value in batch.items()}
    after = augmented(batch, "shift", "flip")
    slots = noise.uniform(batch["key"], (augment.COUNT,), augment.SCALARS, "float32")
    transforms = warps.shift_flip((H, W), slots[:, 0:], slots[:, 2:]).numpy()
    vanished = 0
    for i, (scale, _, dx, _, _, dy, _, _) in enumerate(transforms.astype(int)):
        y, x = np.mgrid[:H, :W]
        y, x = y + dy, scale * x + dx
        inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
        y, x = np.clip(y, 0, H - 1), np.clip(x, 0, W - 1)
        expected = np.where(inside[..., None], before["image"][i][y, x], 0)
        np.testing.assert_array_equal(after["image"][i], expected)
        for frame, old in zip(after["video"][i], before["video"][i], strict=True):
            np.testing.assert_array_equal(frame, np.where(inside[..., None], old[y, x], 0))
        mask = np.where(inside, before["mask"][i][y, x], VOID)
        np.testing.assert_array_equal(after["mask"][i], mask)
        for m in range(M):
            seen = np.where(inside, before["instances"][i, m][y, x], 0)
            present, box = after["valid"][i, m], before["boxes"][i, m] * [H, W, H, W]
            left = seen.sum() / max(np.prod(box[2:] - box[:2]), 1)
            if abs(left - moving.KEPT) < 0.03:
                continue  # about as much as is needed
            if left < moving.KEPT:
                assert not after["instances"][i, m].any()
                assert not present and after["labels"][i, m] == ABSENT
                assert (after["boxes"][i, m] == 0).all()
                vanished += bool(before["valid"][i, m])
                continue
            np.testing.assert_array_equal(after["instances"][i, m], seen)
            assert present and after["labels"][i, m] == before["labels"][i, m] >= 0
            # Rectangles: the box is around the pixels, up to the fraction that rounding takes.
            box = after["boxes"][i, m] * [H, W, H, W]
            assert np.abs(box - tight(seen)).max() <= 0.5 + 1e-4
    assert (after["class"] == before["class"]).all()
    assert (after["caption"] == before["caption"]).all()
    assert len({tuple(t) for t in transforms}) > 10


def test_boxes_of_whole_pixels_are_those_of_the_moved_instances():
    boxes = np.array([[3, 4, 12, 20], [0, 0, 5, 32], [23, 31, 24, 32], [0, 0, 0, 0]], np.float32)
    instances = np.zeros((1, M, H, W), np.uint8)
    for row, (a, b, c, d) in zip(instances[0], boxes.astype(int), strict=True):
        row[a:c, b:d] = 1
    rows = {
        "image": tf.zeros((64, H, W, 3)),
        "instances": tf.repeat(tf.constant(instances), 64, 0),
        "boxes": tf.repeat(tf.constant(boxes / [H, W, H, W], tf.float32)[None], 64, 0),
        "valid": tf.constant([[True, True, True, False]] * 64),
        "labels": tf.constant([[1, 2, 3, ABSENT]] * 64),
        "key": noise.keys(5, 0, tf.range(64)),
    }
    columns = {name: COLUMNS[name] for name in rows if name != "key"}
    after = Augment(("shift", "flip"))(rows, columns)
    gone = 0
    for i in range(64):
        for m in range(M):
            seen = after["instances"][i, m].numpy()
            there = bool(seen.any())
            assert bool(after["valid"][i, m]) == there
            assert int(after["labels"][i, m]) == (m + 1 if there else ABSENT)
            box = after["boxes"][i, m].numpy() * [H, W, H, W]
            np.testing.assert_allclose(box, tight(seen) if there else np.zeros(4), atol=1e-4)
            gone += m < 3 and not there
    assert gone > 10  # the pixel in the corner leaves the picture


ROUNDED = 1.5  # pixels: half a pixel of the first picture, enlarged, and half of the second


@pytest.mark.parametrize("name", ["resized_crop", "rotate", "randaugment"])
def test_other_moves_keep_columns_together(batch, name):
    after = augmented(batch, name)
    moved = 0
    for i in range(N):
        for m in range(M):
            seen, there = after["instances"][i, m], after["valid"][i, m]
            assert there == (after["labels"][i, m] >= 0) == (after["boxes"][i, m] > 0).any()
            if not there:
                assert not seen.any()
            elif seen.any():
                box, around = after["boxes"][i, m] * [H, W, H, W], tight(seen)
                assert (box[:2] <= around[:2] + ROUNDED).all() and (
                    box[2:] >= around[2:] - ROUNDED
                ).all()
                if name == "resized_crop":  # stays a rectangle: the box is around it
                    assert np.abs(box - around).max() <= ROUNDED
                moved += np.abs(after["boxes"][i, m] - batch["boxes"][i, m].numpy()).max() > 0.01
        # Where one object alone is, the mask shows its class.
        alone = (after["instances"][i].sum(0) == 1) & (after["mask"][i] != VOID)
        owner = after["instances"][i].argmax(0)
        right = after["labels"][i][owner][alone] == after["mask"][i][alone]
        assert right.size == 0 or right.mean() > 0.9
    assert moved > 10
    assert set(np.unique(after["mask"])) <= {*range(10), VOID}
    assert set(np.unique(after["instances"])) <= {0, 1}


def test_colors_noise_and_holes_leave_all_but_pixels_alone(batch):
    after = augmented(batch, "color", "noise", "cutout", reprob=0.5)
    for name, value in batch.items():
        same = (after[name] == value.numpy()).all()
        assert same == (name not in ("image", "video")), name


def test_all_frames_of_a_video_are_changed_alike(batch):
    still = {**batch, "video": tf.repeat(batch["image"][:, None], 5, axis=1)}
    for names in (GEOMETRIC, ("color",), ("cutout",), ("randaugment",)):
        out = augmented(still, *names)
        for t in range(5):
            np.testing.assert_array_equal(out["video"][:, t], out["image"])
    out = augmented(still, reprob=0.5)
    holes = (out["video"] != still["video"].numpy()).any(-1)
    assert (holes == holes[:, :1]).all() and 0 < holes.mean() < 0.5
    noisy = augmented(still, "noise")["video"]
    assert (noisy[:, 0] != noisy[:, 1]).mean() > 0.5


def test_columns_of_another_size_are_moved_as_far(batch):
    half = {**COLUMNS, "mask": Column("mask", (H // 2, W // 2), tuple("0123456789"))}
    small = {**batch, "mask": batch["mask"][:, ::2, ::2]}
    u = tf.constant([[0.9, 0.5, 0.3, 0.2]] * N)
    transforms = warps.resized_crop((H, W), u, (0.25, 0.3))
    whole = moving.move(batch, COLUMNS, transforms, "BILINEAR", edge="NEAREST")["mask"][:, ::2, ::2]
    apart = moving.move(small, half, transforms, "BILINEAR", edge="NEAREST")["mask"]
    assert np.mean(whole.numpy() == apart.numpy()) > 0.85
    assert moving.rescaled(transforms, (H, W), (H, W)) is transforms


def split_of(batch):
    arrays = {name: value.numpy() for name, value in batch.items() if name != "key"}
    return ArraySplit(arrays)


class Views(Task):
    views = {"view1": {}, "view2": {}, "small": {"augment": (), "reprob": 1.0}}


def views_of(recipe):
    return augment.from_recipe(recipe, Views, COLUMNS)


def test_views_are_drawn_apart_and_do_not_depend_on_the_batch(batch):
    recipe = Recipe(augment=("resized_crop", "rotate", "color", "noise", "flip"))
    settings = {"seed": 4, "augment": views_of(recipe)}

    def examples(batch_size):
        data = training_batches(
            split_of(batch), COLUMNS, batch_size=batch_size, stop_step=N // batch_size, **settings
        )
        rows = [
            {k: v[i] for k, v in b.items()}
            for b in data.as_numpy_iterator()
            for i in range(batch_size)
        ]
        return {int(row["index"]): row for row in rows}

    whole, again, single = examples(8), examples(8), examples(1)
    names = [f"{name}_{view}" for name in ("image", "mask", "boxes") for view in Views.views]
    for i, row in whole.items():
        np.testing.assert_array_equal(row["image"], batch["image"][i])  # the column itself stays
        np.testing.assert_array_equal(row["mask"], batch["mask"][i])
        for name in names:
            np.testing.assert_array_equal(row[name], again[i][name])
            np.testing.assert_array_equal(row[name], single[i][name], name)
        assert (row["image_view1"] != row["image_view2"]).any()
        assert (row["image_view1"] != row["image"]).any()
        assert (row["boxes_view1"] != row["boxes_view2"]).any()
        # The settings of the view, not those of the run: nothing moved, something erased.
        np.testing.assert_array_equal(row["mask_small"], row["mask"])
        assert (row["image_small"] != row["image"]).any()
    assert "class_view1" not in whole[0] and "caption_view1" not in whole[0]


def test_evaluation_has_views_of_each_example_too(batch):
    recipe = Recipe(augment=("shift", "noise"))
    views = augment.views(recipe, Views)
    split = split_of(batch)

    def read(size):
        data = evaluation_batches(split, COLUMNS, batch_size=size, views=views)
        parts = [b["image_view1"] for b in data.as_numpy_iterator()]
        return np.concatenate(parts)[:N]

    np.testing.assert_array_equal(read(8), read(5))
    assert augment.views(recipe, Task) is None


def test_a_run_without_views_augments_the_columns_themselves(batch):
    made = augment.from_recipe(Recipe(augment=("flip",)), Task, COLUMNS)
    assert made == Augment(("flip",)) and "image_view1" not in made(batch, COLUMNS)


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
def test_mixing_needs_one_label_and_nothing_else(setting):
    recipe = Recipe(**{setting: 0.2})

    def refused(match, *names, task=Task):
        columns = {name: COLUMNS[name] for name in names}
        with pytest.raises(UserError, match=match) as caught:
            augment.from_recipe(recipe, task, columns)
        assert "\n" not in str(caught.value)

    refused(
        f"--{setting} can be used only .* uses: class \\(label\\), mask$", "image", "class", "mask"
    )
    refused("one class label each.* uses: boxes, labels \\(label\\)$", "image", "boxes", "labels")
    refused(" uses: none$", "image")
    refused(
        f"--{setting} cannot be used here: the model's task compares views",
        "image",
        "class",
        task=Views,
    )
    refused("apply to image data only", "caption")
    columns = {name: COLUMNS[name] for name in ("image", "video", "class")}
    assert augment.from_recipe(recipe, Task, columns).mixes


def test_videos_are_mixed_with_their_label(batch):
    columns = {name: COLUMNS[name] for name in ("image", "video", "class")}
    split = split_of({name: batch[name] for name in columns})
    for made in (Augment(mixup=0.5), Augment(cutmix=0.5)):
        (mixed,) = training_batches(
            split, columns, batch_size=8, seed=0, augment=made, stop_step=1
        ).as_numpy_iterator()
        np.testing.assert_allclose(mixed["class"].sum(1), 1, rtol=1e-6)
        partner = mixed["index"][::-1]
        weight = mixed["class"][np.arange(8), batch["class"].numpy()[mixed["index"]]]
        if made.mixup:
            for name in ("image", "video"):
                value = batch[name].numpy()
                rank = (-1, *[1] * (value.ndim - 1))
                lam = weight.reshape(rank)
                apart = batch["class"].numpy()[partner] != batch["class"].numpy()[mixed["index"]]
                expected = lam * value[mixed["index"]] + (1 - lam) * value[partner]
                np.testing.assert_allclose(mixed[name][apart], expected[apart], atol=1e-5)
        else:
            for value in (mixed["video"],):
                own = batch["video"].numpy()[mixed["index"]]
                pasted = (value != own).any(-1)
                assert (pasted == pasted[:, :1]).mean() > 0.99  # one box for all frames


def test_every_augmentation_accepts_every_kind(batch):
    out = augmented(batch, *AUGMENTATIONS, reprob=0.5)
    for name, value in batch.items():
        assert out[name].shape == value.shape and out[name].dtype == value.numpy().dtype
    for name in ("image", "video"):
        assert out[name].min() >= 0 and out[name].max() <= 1
    assert out["boxes"].min() >= 0 and out["boxes"].max() <= 1


def shapes(count, seed=0):
    """Ellipses, triangles and rectangles, an object each, in every column."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W] + 0.5
    instances = np.zeros((count, M, H, W), np.uint8)
    for row in instances.reshape(-1, H, W):
        cy, cx, h, w = rng.uniform((2, 2, 3, 3), (H - 2, W - 2, H / 2, W / 2))
        dy, dx = np.abs(y - cy) / h, np.abs(x - cx) / w
        kinds = dy**2 + dx**2 < 0.25, (dx < 0.5) & (dy < 0.5), (dx < (y - cy) / h) & (y < cy + h)
        row[:] = kinds[rng.integers(3)]
    boxes = np.zeros((count, M, 4), np.float32)
    for i in range(count):
        for m in range(M):
            if instances[i, m].sum() < 9 or rng.random() < 0.1:
                instances[i, m] = 0
            else:
                boxes[i, m] = tight(instances[i, m]) / [H, W, H, W]
    valid = instances.any((2, 3))
    crowd = valid & (rng.random((count, M)) < 0.2)
    labels = np.where(valid, rng.integers(0, 10, (count, M)), ABSENT)
    top = instances * np.arange(1, M + 1)[:, None, None]
    owner = np.take_along_axis(labels, np.maximum(top.max(1).reshape(count, -1) - 1, 0), 1)
    mask = np.where(top.any(1), owner.reshape(count, H, W), 0)
    return {
        "image": tf.constant(np.repeat(top.max(1)[..., None], 3, -1), tf.float32) / M,
        "mask": tf.constant(mask, tf.int32),
        "instances": tf.constant(instances),
        "boxes": tf.constant(boxes),
        "valid": tf.constant(valid & ~crowd),
        "crowd": tf.constant(crowd),
        "labels": tf.constant(labels, tf.int32),
    }


@pytest.mark.parametrize("names", [(name,) for name in GEOMETRIC] + [GEOMETRIC, ("randaugment",)])
def test_boxes_stay_tight_on_any_shape(names):
    count, kept, lost = 96, 0, 0
    columns = {name: COLUMNS[name] for name in ("image", "mask", "instances", "boxes", "labels")}
    columns |= {"valid": COLUMNS["valid"], "crowd": COLUMNS["valid"]}
    rows = shapes(count)
    made = Augment(names, crop_scale=(0.2, 1.0))
    after = made({**rows, "key": noise.keys(3, 0, tf.range(count))}, columns)
    after = {name: value.numpy() for name, value in after.items()}
    before = {name: value.numpy() for name, value in rows.items()}
    for i in range(count):
        for m in range(M):
            box, seen = after["boxes"][i, m] * [H, W, H, W], after["instances"][i, m]
            there = after["labels"][i, m] != ABSENT
            assert there == (after["valid"][i, m] | after["crowd"][i, m])
            if not there:
                assert not box.any() and not seen.any()
                lost += before["labels"][i, m] != ABSENT
                continue
            assert after["crowd"][i, m] == before["crowd"][i, m]
            assert after["labels"][i, m] == before["labels"][i, m]
            assert (box[2:] - box[:2] > 0.25).all() and (box >= 0).all()
            assert (box[2:] <= [H, W]).all()
            assert seen.any() and np.abs(box - tight(seen)).max() <= ROUNDED, (box, tight(seen))
            kept += 1
    assert kept > 100 and (lost > 3 or not {*names} & {"crop", "resized_crop", "randaugment"})


def test_objects_that_lose_too_much_are_absent():
    """A row of boxes at the left edge, of which a shift leaves some fraction."""
    left = tf.constant([[0.0, 5 / 100, 9 / 100, 11 / 100, 50 / 100]])
    columns = {"image": Column("image", (100, 100, 1)), "boxes": Column("boxes", (5, 4))}
    columns |= {"valid": Column("valid", (5,)), "crowd": Column("valid", (5,))}
    zero, one = tf.zeros_like(left), tf.ones_like(left)
    boxes = tf.stack([zero, 0.5 - one + left, one * 0.5, 0.5 + left], axis=-1)
    rows = {"image": tf.zeros((1, 100, 100, 1)), "boxes": boxes}
    rows |= {"valid": tf.constant([[True] * 5]), "crowd": tf.constant([[True] * 5])}
    transforms = tf.constant([[1.0, 0.0, 50.0, 0.0, 1.0, 0.0, 0.0, 0.0]])  # 50 pixels to the left
    after = moving.move(rows, columns, transforms, "NEAREST")
    there = [False, False, False, True, True]
    assert after["valid"].numpy().tolist() == [there] == after["crowd"].numpy().tolist()
    assert ((after["boxes"].numpy() > 0).any(-1) == [there]).all()
