"""Proposals as a column: made once, moved with the image, the same after a restart."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import Column
from kerasdl.data import proposals, selective_search, sources
from kerasdl.data.augment import Augment
from kerasdl.data.pipeline import evaluation_batches, training_batches
from kerasdl.data.splits import ArraySplit, Source, Subset
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe
from kerasdl.tasks.detect import Detect
from kerasdl.tasks.detect_proposals import DetectProposals
from tests.data.test_columns import wants

SIZE, COUNT = (24, 32), 6


@pytest.fixture
def source(rng):
    """Two rectangles on each image of three parts."""
    splits = []
    for n in (8, 3, 2):
        image = np.zeros((n, *SIZE, 1), np.uint8)
        for one in image:
            for shade in (120, 240):
                y, x = rng.integers(0, (12, 18))
                one[y : y + rng.integers(4, 12), x : x + rng.integers(4, 14)] = shade
        splits.append(ArraySplit({"image": image, "valid": np.ones((n, COUNT), bool)}))
    columns = {"image": Column("image", (*SIZE, 1)), "valid": Column("valid", (COUNT,))}
    info = sources.open_source("digits").info
    return Source("made", replace(info, columns=columns), *splits)


def with_proposals(source, task=DetectProposals, **settings):
    return proposals.added(source, task, Recipe(task_kwargs={"max_proposals": COUNT, **settings}))


def test_a_source_gets_the_column_that_it_lacks(source, monkeypatch):
    calls = []
    original = selective_search.of_images
    monkeypatch.setattr(
        selective_search, "of_images", lambda *given: calls.append(1) or original(*given)
    )
    made = with_proposals(source)
    assert made.info.columns["proposals"] == Column("regions", (COUNT, 4))
    assert (
        list(made.info.columns) == ["image", "valid", "proposals"] and "6 regions" in made.notes[0]
    )
    assert made.train.digest() == source.train.digest() and not calls  # nothing is searched yet
    assert set(made.train.only(["image"]).columns()) == {"image"} and not calls
    batch = made.train.read([5, 2])
    expected = selective_search.proposals(source.train.arrays["image"][5], COUNT)
    np.testing.assert_array_equal(batch["proposals"][0], expected)
    np.testing.assert_array_equal(batch["image"][1], source.train.arrays["image"][2])
    assert set(Subset(made.train.only(["proposals", "valid"]), [1]).columns()) == {
        "proposals",
        "valid",
    }
    assert made.train.arrays["proposals"].shape == (8, COUNT, 4) and len(calls) == 1
    assert len(made.test) == 2 and made.validation.cropped(None) is None


def test_a_source_keeps_its_own(source):
    assert with_proposals(source, Detect) is source
    assert with_proposals(source, wants(valid="valid")) is source
    assert with_proposals(source, proposals="windows") is source
    own = replace(source.info, columns={**source.info.columns, "proposals": Column("regions")})
    own = replace(source, info=own)
    assert with_proposals(own) is own
    with pytest.raises(UserError, match="max_proposals=0: must be a whole number from 1 to 10,000"):
        with_proposals(source, max_proposals=0)


def test_other_processes_find_the_same(source, monkeypatch):
    alone = with_proposals(source).train.columns()["proposals"]
    monkeypatch.setattr(proposals, "CHUNK", 5 * SIZE[0] * SIZE[1])  # two processes
    np.testing.assert_array_equal(with_proposals(source).train.columns()["proposals"], alone)
    with pytest.raises(RuntimeError, match="selective search failed: "):
        proposals.searched(np.zeros((2, 3)), 4)


@pytest.mark.parametrize("names", [("flip",), ("shift", "vertical_flip"), ("crop",)])
def test_they_move_with_the_image(source, names):
    """What lies within a box is what lay within it before, whole pixels of it."""
    made = with_proposals(source)
    how = {"batch_size": 4, "seed": 1, "stop_step": 4}
    before = list(training_batches(made.train, made.info.columns, **how))
    after, again = (
        list(training_batches(made.train, made.info.columns, augment=Augment(names), **how))
        for _ in range(2)
    )
    resumed = training_batches(
        made.train, made.info.columns, augment=Augment(names), start_step=3, **how
    )
    tf.debugging.assert_equal(after[3]["proposals"], next(iter(resumed))["proposals"])
    changed = 0
    for a, b, c in zip(before, after, again, strict=True):
        tf.debugging.assert_equal(b["proposals"], c["proposals"])
        tf.debugging.assert_equal(b["valid"], tf.ones_like(b["valid"]))  # these are objects' rows
        changed += int(tf.reduce_any(a["proposals"] != b["proposals"]))
        if "crop" in names:
            continue
        for i in range(4):
            for old, new in zip(a["proposals"][i].numpy(), b["proposals"][i].numpy(), strict=True):
                y0, x0, y1, x1 = np.rint(old * np.tile(SIZE, 2)).astype(int)
                v0, u0, v1, u1 = np.rint(new * np.tile(SIZE, 2)).astype(int)
                assert v1 - v0 <= y1 - y0 and u1 - u0 <= x1 - x0
                if (v1 - v0, u1 - u0) == (y1 - y0, x1 - x0):
                    total = a["image"][i, y0:y1, x0:x1].numpy().sum()
                    np.testing.assert_allclose(b["image"][i, v0:v1, u0:u1].numpy().sum(), total)
    assert changed
    whole = list(evaluation_batches(made.test, made.info.columns, batch_size=3))
    np.testing.assert_array_equal(whole[0]["proposals"][:2], made.test.columns()["proposals"])


def test_a_run_of_scenes_has_them():
    recipe = Recipe(dataset="scenes", task_kwargs={"max_proposals": 3})
    made = sources.from_recipe(recipe, DetectProposals)
    assert made.info.columns["proposals"].shape == (3, 4) and made.info.first("boxes").shape == (
        5,
        4,
    )
    assert made.notes[-1].startswith("proposals: up to 3 regions of each image")
    windows = replace(recipe, task_kwargs={"proposals": "windows"})
    assert "proposals" not in sources.from_recipe(windows, DetectProposals).info.columns
    own = sources.from_recipe(replace(recipe, dataset="synthetic"), DetectProposals)
    assert own.info.columns["proposals"].shape == (16, 4)  # which it has itself
    objects, given = (own.test.arrays[k] for k in ("boxes", "proposals"))
    np.testing.assert_array_equal(given[:, : objects.shape[1]], objects.astype("float32"))
