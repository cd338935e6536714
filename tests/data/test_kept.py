"""Pixels that are kept once they are decoded."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import kept, pipeline
from kerasdl.data.splits import FileSplit
from kerasdl.errors import UserError
from kerasdl.system import memory

SHAPE = (6, 5, 3)
BYTES = 6 * 5 * 3


@pytest.fixture
def paths(tmp_path, rng):
    paths = [tmp_path / f"{n}.png" for n in range(7)]
    for path in paths:
        path.write_bytes(tf.io.encode_png(rng.integers(0, 256, (9, 8, 3), np.uint8)).numpy())
    return paths


def epochs(split, count):
    columns = DataInfo.of_images(SHAPE, "0").columns
    batches = pipeline.training_batches(split, columns, batch_size=7, seed=0, stop_step=count)
    return [{k: v.numpy() for k, v in batch.items()} for batch in batches]


def test_pixels_are_those_of_the_files_in_every_epoch(paths):
    split = FileSplit(paths, np.zeros(7, np.int32), SHAPE)
    expected = np.concatenate([FileSplit([p], None, SHAPE).read([0])["image"] for p in paths])
    for batch in epochs(split, 3):
        np.testing.assert_array_equal(np.round(batch["image"] * 255), expected[batch["index"]])


def test_a_file_is_read_once(paths):
    split = FileSplit(paths, None, SHAPE)
    first = split.read([4, 2, 4])["image"]
    for path in paths:
        path.unlink()
    np.testing.assert_array_equal(split.read([2, 4])["image"], first[[1, 0]])
    with pytest.raises(UserError, match="0.png"):
        split.read([2, 0])
    split.kept.clear()
    with pytest.raises(UserError, match="png cannot be read"):
        split.read([2])


@pytest.mark.parametrize("count", [0, 3])
def test_what_does_not_fit_is_read_again(paths, count):
    keeping = kept.Kept(7, SHAPE, limit=count * BYTES + BYTES - 1)
    split = FileSplit(paths, None, SHAPE, kept=keeping)
    first = split.read(range(7))["image"]
    other = tf.io.encode_png(np.zeros((9, 8, 3), np.uint8)).numpy()
    for path in paths:
        path.write_bytes(other)
    again = split.read(range(7))["image"]
    np.testing.assert_array_equal(again[:count], first[:count])
    assert not again[count:].any() and first[count:].any()


def test_what_stands_for_a_damaged_file_is_kept(paths):
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    split = FileSplit(paths, np.zeros(7, np.int32), SHAPE, skip_bad=True)
    first = split.read([3, 4])["image"]
    np.testing.assert_array_equal(first[0], first[1])
    paths[4].unlink()
    np.testing.assert_array_equal(split.read([3])["image"], first[:1])


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("3000\n"), used.write_text("1000\n")
    monkeypatch.setattr(memory, "LIMITS", ((str(limit), str(used)),))
    assert memory.available() == 2000
    limit.write_text("max\n")
    assert memory.available() is None or memory.available() > 2000
