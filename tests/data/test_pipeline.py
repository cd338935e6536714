"""Order, resume and repeatability of the batches."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from kerasdl.columns import DataInfo
from kerasdl.data.augment import Augment
from kerasdl.data.images import STEP, decode
from kerasdl.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from kerasdl.data.splits import ArraySplit, FileSplit
from kerasdl.ops import noise
from kerasdl.recipe import AUGMENTATIONS

ALL = Augment(tuple(name for name in AUGMENTATIONS if name != "mosaic"), reprob=0.5)
MIXED = Augment(("shift",), mixup=0.2, cutmix=1.0)


def make_split(n=50, shape=(9, 11, 3)):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    return ArraySplit({"image": image, "label": np.arange(n, dtype=np.int32) % 10})


def columns_of(split):
    return DataInfo.of_images(split.read([0])["image"].shape[1:], "0123456789").columns


def batches(split, stop=12, batch_size=8, **kwargs):
    kwargs = {"seed": 3, "augment": None, "batch_size": batch_size, **kwargs}
    data = training_batches(split, columns_of(split), stop_step=stop, **kwargs)
    return list(data.as_numpy_iterator())


def by_example(result, steps):
    """`{(epoch, index): image}`."""
    return {
        (step // steps, int(i)): image
        for step, batch in enumerate(result)
        for i, image in zip(batch["index"], batch["image"], strict=True)
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], name)


def test_an_epoch_holds_each_example_once_in_an_order_of_seed_and_epoch():
    split = make_split(48)
    result = batches(split, 12)
    orders = [np.concatenate([b["index"] for b in result[e : e + 6]]) for e in (0, 6)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(48))
    other = np.concatenate([b["index"] for b in batches(split, 6, seed=4)])
    assert orders[0].tolist() != orders[1].tolist() and orders[0].tolist() != other.tolist()


def test_the_order_is_uniform():
    split = make_split(10, (1, 1, 1))
    result = batches(split, 3000, 10)
    order = np.stack([b["index"] for b in result])
    expected = len(order) / 10
    for place in range(10):
        counts = np.bincount(order[:, place], minlength=10)
        assert ((counts - expected) ** 2 / expected).sum() < 34  # chi2(9), p = 1e-4
    following = np.bincount((order[:, 1] - order[:, 0]) % 10, minlength=10)[1:]
    assert ((following - len(order) / 9) ** 2 / (len(order) / 9)).sum() < 32


def test_columns_and_dtypes():
    split = make_split()
    batch = batches(split, 1)[0]
    result = {name: (value.dtype.name, value.shape) for name, value in batch.items()}
    assert result == {
        "image": ("float32", (8, 9, 11, 3)),
        "label": ("int32", (8,)),
        "index": ("int64", (8,)),
        "key": ("uint32", (8, 2)),
        "weight": ("float32", (8,)),
    }
    expected = split.read(batch["index"])
    np.testing.assert_array_equal(batch["image"], expected["image"].astype(np.float32) * STEP)
    np.testing.assert_array_equal(batch["label"], expected["label"])
    assert batch["weight"].tolist() == [1] * 8
    spec = training_batches(
        split, columns_of(split), batch_size=8, seed=0, stop_step=1
    ).element_spec
    assert spec["image"].shape == (8, 9, 11, 3)
    mixed = batches(split, 1, augment=MIXED)[0]
    assert mixed["label"].dtype == np.float32 and mixed["label"].shape == (8, 10)
    np.testing.assert_allclose(mixed["label"].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("augment,starts", [(None, (1, 6, 11)), (ALL, (7,)), (MIXED, (7,))])
def test_a_later_start_goes_on_bit_for_bit(augment, starts):
    split = make_split()
    whole = batches(split, 14, augment=augment)
    assert len(whole) == 14
    for start in starts:
        rest = batches(split, 14, augment=augment, start_step=start)
        for a, b in zip(whole[start:], rest, strict=True):
            assert_same(a, b)


def test_a_shortened_epoch_starts_the_next_one_early():
    split = make_split(48)
    a = batches(split, 7, steps=2)
    assert_same(batches(split, 7, steps=2, start_step=3)[0], a[3])
    whole = batches(split, 12)
    assert_same(a[1], whole[1])
    assert_same(a[2], whole[6])  # the first of epoch 1
    assert len(batches(split, 7, steps=99)) == 7


def test_nothing_is_left_where_start_is_stop():
    assert batches(make_split(), 6, start_step=6) == []


def test_the_number_of_batches_is_known():
    split = make_split()
    columns = columns_of(split)
    data = training_batches(split, columns, batch_size=8, seed=0, start_step=3, stop_step=20)
    assert data.cardinality().numpy() == 17
    assert evaluation_batches(split, columns, batch_size=8).cardinality().numpy() == 7


def test_an_example_is_augmented_alike_in_any_batch():
    split = make_split(48)
    a = by_example(batches(split, 12, 8, augment=ALL), 6)
    b = by_example(batches(split, 96, 1, augment=ALL), 48)
    assert a.keys() == b.keys() and len(a) == 96
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert all((a[0, i] != a[1, i]).any() for i in range(48))  # another picture each epoch


DUMP = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_pipeline
print(json.dumps(test_pipeline.digests(5)))
"""


def digests(start):
    """One hash per batch, of all its columns."""
    result = [batches(make_split(), 9, augment=a, start_step=start) for a in (ALL, MIXED)]
    return [
        [hashlib.sha256(b"".join(b[k].tobytes() for k in sorted(b))).hexdigest() for b in run]
        for run in result
    ]


def test_another_process_sees_the_same_bits(request):
    command = [sys.executable, "-c", DUMP, str(request.path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rest = json.loads(done.stdout.splitlines()[-1])
    assert [run[5:] for run in digests(0)] == rest and len(rest[0]) == 4


def test_evaluation_reads_all_in_order_and_fills_up_with_weight_zero():
    split = make_split(21)
    result = list(evaluation_batches(split, columns_of(split), batch_size=8).as_numpy_iterator())
    index = np.concatenate([b["index"] for b in result])
    weight = np.concatenate([b["weight"] for b in result])
    assert len(result) == 3 and result[-1]["image"].shape[0] == 8
    assert index[weight > 0].tolist() == list(range(21)) and weight.sum() == 21
    assert result[0].keys() == batches(split, 1)[0].keys()
    np.testing.assert_array_equal(result[2]["label"][:5], split.arrays["label"][16:])
    assert (
        len(list(evaluation_batches(split, columns_of(split), batch_size=8, limit_batches=2))) == 2
    )


def test_a_batch_larger_than_the_split_is_refused():
    split = make_split(7)
    assert steps_per_epoch(split, 3) == 2
    with pytest.raises(ValueError, match="--batch-size 8: must be at most the 7 examples"):
        steps_per_epoch(split, 8)
    with pytest.raises(ValueError, match="at most the 7"):
        training_batches(split, columns_of(split), batch_size=8, seed=0, stop_step=1)


def test_files_and_arrays_give_the_same_batches(tmp_path):
    arrays = make_split(20)
    paths = []
    for i, image in enumerate(arrays.arrays["image"]):
        paths.append(str(tmp_path / f"{i}.png"))
        tf.io.write_file(paths[-1], tf.io.encode_png(image))
    files = FileSplit(paths, arrays.arrays["label"], (9, 11, 3))
    for augment in (None, Augment(("shift", "noise"))):
        for a, b in zip(
            batches(arrays, 7, 6, augment=augment),
            batches(files, 7, 6, augment=augment),
            strict=True,
        ):
            assert_same(a, b)
    for a, b in zip(
        evaluation_batches(arrays, columns_of(arrays), batch_size=8).as_numpy_iterator(),
        evaluation_batches(files, columns_of(files), batch_size=8).as_numpy_iterator(),
        strict=True,
    ):
        assert_same(a, b)
    read = files.read([3, 1])
    np.testing.assert_array_equal(read["image"], arrays.arrays["image"][[3, 1]])
    assert read["label"].tolist() == [3, 1] and read["label"].dtype == np.int32


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEG files of two sizes, some of them turned by EXIF."""
    folder, paths = tmp_path_factory.mktemp("photographs"), []
    for number in range(10):
        image = load_sample_images().images[number % 2][: 120 + 30 * (number % 3), :160]
        tags = Image.Exif()
        tags[0x0112] = 1 + number % 8
        paths.append(str(folder / f"{number}.jpg"))
        Image.fromarray(image).save(paths[-1], quality=95, exif=tags)
    return paths


def test_a_crop_is_of_the_file_and_the_same_in_any_batch(photographs):
    split = FileSplit(photographs, np.arange(10, dtype=np.int32), (24, 32, 3))
    augment = Augment(("crop", "flip"), crop_scale=(0.1, 0.4))
    a = by_example(batches(split, 4, 5, augment=augment), 2)
    b = by_example(batches(split, 20, 1, augment=augment), 10)
    assert a.keys() == b.keys() and len(a) == 20
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    assert all((a[0, i] != a[1, i]).any() for i in range(10))
    for x, y in zip(
        batches(split, 4, 5, augment=augment)[3:],
        batches(split, 4, 5, augment=augment, start_step=3),
        strict=True,
    ):
        assert_same(x, y)
    # Evaluation sees the whole.
    whole = next(iter(evaluation_batches(split, columns_of(split), batch_size=10)))["image"]
    np.testing.assert_array_equal(whole, split.read(range(10))["image"].astype(np.float32) * STEP)


def test_a_crop_shows_its_box_of_the_upright_picture(photographs):
    split = FileSplit(photographs, None, (24, 32, 3))
    augment = Augment(("crop",), crop_scale=(0.1, 0.9), crop_ratio=(0.5, 2.0))
    cropped, left = augment.on_files(split)
    arrays = make_split()
    assert left.names == () and augment.on_files(arrays) == (arrays, augment)
    for number, path in enumerate(photographs):
        keys = noise.keys(3, 0, tf.constant([number]))
        row = {"path": tf.constant([path]), "number": tf.constant([number]), "key": keys}
        key, result = keys[0], cropped.load(row)["image"][0].numpy()
        whole = decode(tf.io.read_file(path), 3)
        size = tf.cast(tf.shape(whole)[:2], tf.float32)
        corner, sides = (v.numpy() for v in augment.crop(key, size))
        assert (corner >= 0).all() and (corner + sides <= size.numpy() + 1e-3).all()
        assert 0.05 < sides.prod() / size.numpy().prod() < 0.91
        expected = tf.image.crop_and_resize(
            whole[None],
            [np.concatenate([corner, corner + sides]) / np.tile(size, 2)],
            [0],
            (24, 32),
        )[0]
        assert np.abs(result / 255 - expected).mean() < 0.04
