"""Every source: its parts, its classes, its notes, and one clear line for what is wrong."""

import gzip
import time

import numpy as np
import pytest
from PIL import Image

from kerasdl.columns import DataInfo, Spec
from kerasdl.data import splits
from kerasdl.data.pipeline import training_batches
from kerasdl.data.sources import folder, input_statistics, open_source
from tests.data.shared import lengths


def refused(match, *args, **kwargs):
    """The source is refused with one line that says `match`."""
    with pytest.raises(ValueError, match=match) as caught:
        open_source(*args, **kwargs)
    assert "\n" not in str(caught.value)


def write_idx(path, array):
    code = {"uint8": 8, "int32": 12}[array.dtype.name]
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return data


def mnist(path, prefixes=("train", "t10k"), n=50, ending=""):
    rng = np.random.default_rng(0)
    for prefix in prefixes:
        images = rng.integers(0, 256, (n, 6, 5)).astype(np.uint8)
        write_idx(path / f"{prefix}-images-idx3-ubyte{ending}", images)
        labels = (np.arange(n) % 10).astype(np.uint8)
        write_idx(path / f"{prefix}-labels-idx1-ubyte{ending}", labels)
    return f"idx:{path}"


def save_npz(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return f"npz:{path / 'data.npz'}"


def xy(n=40, shape=(6, 5, 3), classes=4):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, *shape)).astype(np.uint8), np.arange(n) % classes


def save_images(path, classes=("cat", "dog"), n=10, size=(6, 5), mode="RGB"):
    rng = np.random.default_rng(2)
    for name in classes:
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            image = Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8))
            image.convert(mode).save(path / name / f"{i:03}.png")
    return f"folder:{path}"


def test_digits():
    source = open_source("digits")
    assert lengths(source) == (1257, 180, 360)
    assert source.info.image_shape == (8, 8, 1)
    assert source.info.class_names == tuple("0123456789")
    from sklearn.datasets import load_digits

    data = load_digits()
    last = source.test.read([358, 359])
    np.testing.assert_array_equal(last["image"][..., 0], data.images[-2:].astype(np.float32) / 16)
    assert last["label"].tolist() == data.target[-2:].tolist()
    assert last["image"].dtype == np.float32 and last["label"].dtype == np.int32
    assert source.train.arrays["image"].max() == 1


def test_digit_rows_are_the_digits():
    rows, digits = open_source("digit_rows"), open_source("digits")
    assert rows.info == digits.info and rows.name == "digit_rows"
    for part in ("train", "validation", "test"):
        for name, array in getattr(digits, part).arrays.items():
            np.testing.assert_array_equal(array, getattr(rows, part).arrays[name])
    refused("digit_rows takes no argument; write digit_rows", "digit_rows:x")


def test_image_size_resizes_once_when_read():
    assert open_source("digits", image_size=(16,)).info.image_shape == (16, 16, 1)
    source = open_source("synthetic", image_size=(8, 12))
    assert source.info.image_shape == (8, 12, 3)
    refused("--image-size", "digits", image_size=(1, 2, 3))
    refused("--image-size", "digits", image_size=(0,))


def test_input_statistics():
    source = open_source("synthetic")
    mean, std = input_statistics(source.train, source.info.columns)
    image = source.train.arrays["image"] / 255.0
    np.testing.assert_allclose(mean, image.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, image.std((0, 1, 2)), rtol=1e-6)
    flat = splits.ArraySplit({"image": np.full((4, 2, 2, 1), 7, np.uint8)})
    assert input_statistics(flat, DataInfo.of_images((2, 2, 1)).columns)[1] == (1.0,)
    assert all(type(v) is float for v in mean + std)


def test_synthetic_is_seeded_and_learnable():
    a, b, c = (open_source("synthetic", seed=s) for s in (0, 0, 1))
    assert lengths(a) == (512, 128, 128) and a.info.image_shape == (32, 32, 3)
    np.testing.assert_array_equal(a.train.arrays["image"], b.train.arrays["image"])
    assert (a.train.arrays["image"] != c.train.arrays["image"]).any()
    x, y = a.train.arrays["image"].astype(float), a.train.arrays["label"]
    centers = np.stack([x[y == k].mean(0) for k in range(10)])
    test = a.test.arrays
    distance = ((test["image"][:, None] - centers) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == test["label"]).mean() == 1


def test_synthetic_follows_other_specs():
    class Task:
        inputs = {"tokens": Spec(("T",), "int32"), "image": Spec((4, 4, 1), "float32", "image")}
        targets = {"score": Spec((2,), "float32", "vector")}

    source = open_source("synthetic", task=Task)
    data = training_batches(source.train, source.info.columns, batch_size=4, seed=0, stop_step=1)
    batch = next(iter(data))
    assert batch["tokens"].shape == (4, 16) and batch["score"].shape == (4, 2)
    assert source.info.image_shape == (4, 4, 1)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_with_both_parts(tmp_path, ending):
    source = open_source(mnist(tmp_path, ending=ending))
    assert lengths(source) == (45, 5, 50) and source.info.image_shape == (6, 5, 1)
    assert source.info.class_names == tuple("0123456789")
    assert source.train.arrays["image"].dtype == np.uint8
    assert any("validation" in note for note in source.notes)


def test_idx_with_one_part_divides_it_and_says_so(tmp_path):
    source = open_source(mnist(tmp_path, ["t10k"]))
    assert lengths(source) == (36, 4, 10)
    assert source.test.arrays["label"].tolist() == list(range(10))  # the last, in order
    output = " ".join(source.notes)
    assert "t10k" in output and "20%" in output and "10%" in output


def test_idx_broken(tmp_path):
    refused("no folder", f"idx:{tmp_path / 'none'}")
    refused("there are no files train-images", f"idx:{tmp_path}")
    name = mnist(tmp_path, ["train"])
    images = tmp_path / "train-images-idx3-ubyte"
    data = images.read_bytes()
    images.write_bytes(data[:-7])
    refused(r"has 1509 bytes, but must have 1516 by its header", name)
    images.write_bytes(b"hello")
    refused("not an IDX file", name)
    images.write_bytes(data[:10])
    refused("must have .* by its header", name)
    images.write_bytes(gzip.compress(data)[:-20])
    refused("broken gzip", name)
    images.unlink()
    refused("must have both images and labels", name)


def test_npz_with_all_parts(tmp_path):
    x, y = xy()
    name = save_npz(
        tmp_path, x_train=x, y_train=y[:, None], x_val=x[:9], y_val=y[:9], x_test=x[:7],
        y_test=y[:7], class_names=np.array(["a", "b", "c", "d"]),
    )  # fmt: skip
    source = open_source(name)
    assert lengths(source) == (40, 9, 7) and source.info.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(source.train.arrays["image"], x)
    assert not source.notes


def test_npz_with_one_part_is_divided_by_the_seed(tmp_path):
    x, y = xy()
    name = save_npz(tmp_path, image=x / np.float32(255), label=y)
    a, b, c = (open_source(name, seed=s, val_split=0.2) for s in (0, 0, 1))
    assert lengths(a) == (26, 6, 8) and len(a.notes) == 2
    assert a.info.class_names == tuple("0123")
    np.testing.assert_array_equal(a.test.arrays["image"], b.test.arrays["image"])
    assert (a.test.arrays["image"] != c.test.arrays["image"]).any()
    rows = np.concatenate([s.arrays["image"] for s in (a.train, a.validation, a.test)])
    assert len(np.unique(rows.reshape(40, -1), axis=0)) == 40


def test_npz_bad_content(tmp_path):
    x, y = xy()

    def bad(match, **arrays):
        refused(match, save_npz(tmp_path, **arrays))

    bad("must have x_train and y_train", a=x)
    bad(r"x_test and y_test\), but has only x_test", x_train=x, y_train=y, x_test=x)
    bad("3 or 4 axes, got 2", image=x[:, 0, 0], label=y)
    bad("labels must be integers, got float64", image=x, label=y + 0.5)
    bad("labels must be 0 or more, got -1..2", image=x, label=y - 1)
    bad(r"labels must be 0..1, got 0..3", image=x, label=y, class_names=np.array(["a", "b"]))
    bad(r"\(test\): labels must be 0..3", x_train=x, y_train=y, x_test=x, y_test=y + 1)
    bad(r"40 images need labels of the shape \(40,\), got \(9,\)", image=x, label=y[:9])
    bad("NaN", image=np.full((40, 4, 4), np.nan), label=y)
    bad(
        r"in \[0, 1\], got 0..254",
        image=np.arange(0, 255.0).reshape(-1, 1, 1),
        label=np.arange(255) % 4,
    )
    bad("must lie in 0..255", image=x.astype(int) * 9, label=y)
    bad("there are no images", image=x[:0], label=y[:0])
    bad("part holds no examples", image=x[:1], label=y[:1])
    bad("must have one shape, got", x_train=x, y_train=y, x_test=x[:, 1:], y_test=y)
    bad("Object arrays", image=np.array([None]), label=y)
    name = save_npz(tmp_path, image=x, label=y)
    refused("--val-split 0", name, val_split=0)
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:-40])
    refused("not a readable .npz file", name)
    path.write_bytes(b"")
    refused("not a readable .npz file", name)
    refused("there is no file", f"npz:{tmp_path / 'none.npz'}")


def test_folder_of_classes(tmp_path):
    name = save_images(tmp_path, ("dog", "cat"), 20)
    a, b = open_source(name, seed=1), open_source(name, seed=1)
    assert lengths(a) == (32, 4, 4) and a.info.class_names == ("cat", "dog")
    assert a.info.image_shape == (6, 5, 3) and a.train.arrays["image"].dtype == np.uint8
    assert len(a.notes) == 2 and "seed 1" in a.notes[0]
    np.testing.assert_array_equal(a.train.arrays["image"], b.train.arrays["image"])
    first = np.asarray(Image.open(tmp_path / "cat" / "000.png"))
    everything = np.concatenate([s.arrays["image"] for s in (a.train, a.validation, a.test)])
    assert (everything == first).all((1, 2, 3)).sum() == 1


def test_folder_with_parts(tmp_path):
    for part, n in (("train", 8), ("val", 3), ("test", 2)):
        save_images(tmp_path / part, n=n, mode="L")
    source = open_source(f"folder:{tmp_path}")
    assert lengths(source) == (16, 6, 4) and source.info.image_shape == (6, 5, 1)
    assert not source.notes
    np.testing.assert_array_equal(np.bincount(source.test.arrays["label"]), [2, 2])


def test_folder_on_demand_equals_memory(tmp_path, monkeypatch):
    name = save_images(tmp_path, n=12, size=(9, 8))
    memory = open_source(name, image_size=(5, 7))
    monkeypatch.setattr(folder, "MEMORY_BYTES", 10)
    files = open_source(name, image_size=(5, 7))
    assert files.train.arrays is None and lengths(files) == lengths(memory)
    a, b = memory.train.read(range(10)), files.train.read(range(10))
    np.testing.assert_array_equal(a["image"], b["image"])
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_allclose(
        input_statistics(files.train, files.info.columns),
        input_statistics(memory.train, memory.info.columns),
        rtol=1e-6,
    )


def test_folder_bad_content(tmp_path):
    refused("there is no folder", f"folder:{tmp_path / 'none'}")
    refused("there must be images .* in sub-folders", f"folder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    refused("there must be images .* in sub-folders", f"folder:{tmp_path}")
    name = save_images(tmp_path, n=10)
    (tmp_path / "cat" / "bad.png").write_bytes(b"not an image")
    whole = (tmp_path / "dog" / "000.png").read_bytes()
    (tmp_path / "dog" / "cut.png").write_bytes(whole[:70])
    refused("2 of 22 images cannot be read, the first is .*bad.png", name)
    source = open_source(name, skip_bad_files=True)
    assert sum(lengths(source)) == 20
    assert "left out 2 unreadable images, the first" in source.notes[0]
    (tmp_path / "cat" / "bad.png").unlink()
    refused("1 of 21 images cannot be read, the first is .*cut.png", name)
    (tmp_path / "dog" / "cut.png").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "dog" / "other.png")
    refused("images differ in size .*give --image-size", name)
    assert open_source(name, image_size=(4, 4)).info.image_shape == (4, 4, 3)


def test_folder_of_unreadable_images_alone(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "bad.png").write_bytes(b"not an image")
    refused("none of the 1 images can be read", f"folder:{tmp_path}", skip_bad_files=True)


def test_gray_with_alpha_and_color_mix_to_color(tmp_path):
    save_images(tmp_path, ("a",), 5, mode="L")
    name = save_images(tmp_path, ("b",), 5, mode="RGBA")
    assert open_source(name).info.image_shape == (6, 5, 3)


def test_unknown_names_end_in_seconds(tmp_path):
    started = time.time()
    refused(r"unknown data set 'foldr:x' \(did you mean folder\?\)", "foldr:x")
    refused(r"did you mean digits\?.*folder:PATH", "digitss", data_dir=str(tmp_path))
    refused("did you mean mnist", "mnistt", data_dir=str(tmp_path))
    refused("needs a path", "npz:")
    refused("digits takes no argument; write digits", "digits:3")
    assert time.time() - started < 30


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_tfds_offline_ends_in_seconds(tmp_path, no_network):
    started = time.time()
    for name in ("mnist", "tfds:cifar10"):
        refused(
            "cannot be downloaded.*digits, synthetic, folder:PATH", name, data_dir=str(tmp_path)
        )
    assert time.time() - started < 20


@pytest.fixture
def dummy(tmp_path):
    """A tiny data set in the format of TFDS, on disk."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.testing.DummyMnist(data_dir=str(tmp_path))
    builder.download_and_prepare()
    return builder


def test_tfds_on_disk(dummy, tmp_path):
    source = open_source("tfds:dummy_mnist", data_dir=str(tmp_path))
    n = dummy.info.splits["train"].num_examples
    assert lengths(source) == (n - round(n * 0.1), round(n * 0.1), n)
    assert source.info.image_shape == (28, 28, 1) and len(source.info.class_names) == 10
    assert source.train.arrays["image"].dtype == np.uint8
    assert open_source("dummy_mnist", data_dir=str(tmp_path), image_size=(7,)).info.image_shape == (
        7,
        7,
        1,
    )
