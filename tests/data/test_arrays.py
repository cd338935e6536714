"""`npz:PATH` and `idx:FOLDER` as people have them: names, labels, channels; and broken files."""

import gzip
import io
import os
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from kerasdl.data import arrays
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.shared import bounded, lengths
from tests.data.test_sources import mnist, refused, save_npz, write_idx, xy


def told(source, text):
    """Whether a note says so."""
    return any(text in note for note in source.notes)


def test_channels_first_is_refused_with_what_to_do(tmp_path):
    _, y = xy()
    for shape in [(3, 32, 32), (1, 28, 28), (3, 20, 30), (3, 4, 4), (4, 8, 8), (1, 5, 9)]:
        name = save_npz(tmp_path, image=np.zeros((40, *shape), np.uint8), label=y)
        refused(r"channels first: np.transpose\(x, \(0, 2, 3, 1\)\) moves them", name)
    for shape in [(3, 3, 7), (3, 5, 3), (1, 6, 1), (4, 4, 3), (8, 8, 2), (5, 6, 7), (2, 6, 4)]:
        source = open_source(save_npz(tmp_path, image=np.zeros((40, *shape), np.uint8), label=y))
        assert source.info.image_shape == shape
    name = save_npz(tmp_path, X=np.zeros((8, 8, 3, 40), np.uint8), y=y)
    refused(r"the 40 images last: np.moveaxis\(x, -1, 0\)", name)


def test_floats_up_to_255_are_refused_with_what_to_do(tmp_path):
    x, y = xy()
    refused(r"got .*; x.astype\('uint8'\)", save_npz(tmp_path, X=x.astype("f4"), y=y))
    refused(r"in \[0, 1\], got -1..1$", save_npz(tmp_path, X=np.sign(x / 255 - 0.5), y=y))


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda y: np.eye(4, dtype=np.uint8)[y], "one-hot rows, taken as 4 classes"),
        (lambda y: np.eye(4)[y], "one-hot rows, taken as 4 classes"),
        (lambda y: np.eye(4, dtype=bool)[y], "one-hot rows, taken as 4 classes"),
        (lambda y: y.astype(np.float32), "labels: float32, all of them whole numbers"),
        (lambda y: y.astype(np.float64)[:, None], "labels: float64, all of them whole numbers"),
        (lambda y: y.astype(np.uint64), None),
    ],
)
def test_labels_of_other_kinds_are_taken(tmp_path, make, note):
    x, y = xy()
    source = open_source(save_npz(tmp_path, x_train=x, y_train=make(y), x_test=x, y_test=make(y)))
    plain = open_source(save_npz(tmp_path, x_train=x, y_train=y, x_test=x, y_test=y))
    np.testing.assert_array_equal(source.test.arrays["label"], y)
    np.testing.assert_array_equal(source.train.arrays["label"], plain.train.arrays["label"])
    assert source.info.class_names == tuple("0123")
    assert source.test.arrays["label"].dtype == np.int32
    assert len(source.notes) == len(plain.notes) + (note is not None)
    assert note is None or told(source, note)


def test_texts_and_truth_values_as_labels(tmp_path):
    x, y = xy()
    for names in (
        np.array(["dog", "cat", "emu", "ant"]),
        np.array([b"dog", b"cat", b"emu", b"ant"]),
    ):
        source = open_source(save_npz(tmp_path, X=x, y=names[y]))
        assert source.info.class_names == ("ant", "cat", "dog", "emu")
        assert told(source, "labels: texts, which are the names of the classes, sorted")
        read = np.concatenate(
            [s.arrays["label"] for s in (source.train, source.validation, source.test)]
        )
        np.testing.assert_array_equal(np.bincount(read), [10] * 4)
        row = source.test.arrays
        at = [np.flatnonzero((x == image).all((1, 2, 3)))[0] for image in row["image"]]
        assert [source.info.class_names[k] for k in row["label"]] == names[y][at].astype(
            str
        ).tolist()
    numbers = open_source(save_npz(tmp_path, X=x, y=np.array(["10", "9", "2", "1"])[y]))
    assert numbers.info.class_names == ("1", "2", "9", "10")
    given = open_source(save_npz(tmp_path, X=x, y=names[y], class_names=names))
    assert given.info.class_names == ("dog", "cat", "emu", "ant")
    assert told(
        open_source(save_npz(tmp_path, X=x, y=y > 1)), "False and True are the classes 0 and 1"
    )
    refused(
        "label 'ant' is no class: dog, cat$",
        save_npz(tmp_path, X=x, y=names[y], class_names=names[:2]),
    )
    other = save_npz(tmp_path, x_train=x, y_train=names[y], x_test=x, y_test=np.full(40, "x"))
    refused(r"\(test\): the label 'x' is no class: ant, cat, dog, emu", other)
    refused(
        "numbers in all parts, or texts",
        save_npz(tmp_path, x_train=x, y_train=y, x_test=x, y_test=names[y]),
    )
    refused(
        "labels: number 3 is empty", save_npz(tmp_path, X=x, y=np.array(["a", "b", "c", ""])[y])
    )
    refused("labels: not UTF-8", save_npz(tmp_path, X=x, y=np.array([b"a", b"\xff"])[y % 2]))


def test_labels_that_are_refused(tmp_path):
    x, y = xy()

    def bad(match, labels, **more):
        refused(match, save_npz(tmp_path, X=x, y=labels, **more))

    bad("such as 0.5", y / 2)
    bad("hold NaN or infinite values", np.where(y == 3, np.nan, y))
    bad("hold NaN or infinite values", np.where(y == 3, np.inf, y))
    bad("another row 0; soft labels and several", np.full((40, 4), 0.25))
    bad("another row 5", np.where(np.arange(40)[:, None] == 5, 0, np.eye(4)[y]))
    bad("another row 0; soft", np.ones((40, 2), int))
    bad("labels must be integers, got complex128", y.astype(complex))
    bad(r"0..3, got 1..4; they start at 1: subtract 1", y + 1, class_names=np.array(list("abcd")))
    bad("got -1..1", np.where(y > 1, 1, -1))
    bad(r"shape \(40,\), got \(\)", np.array(3))
    names = np.array(["a", "b", "c", "a"])
    bad("class_names: 2 classes are called a", y, class_names=names)
    bad("0..2, got 0..3", y, class_names=names[:3])
    bad("class_names must be one row of texts", y, class_names=np.array("abcd"))
    bad("class_names must be one row of texts", y, class_names=np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("top", "dtype", "match"),
    [
        (3_000_000_000, "int64", "labels must be below 2\\^31, got 0..3000000000"),
        (2**64 - 1, "uint64", "labels must be below 2\\^31, got 0..18446744073709551615"),
        (2_000_000_000, "int64", "2000000000 makes 2,000,000,001 classes of 40 examples"),
        (2_000_000_000, "float64", "2000000000 makes 2,000,000,001 classes of 40 examples"),
        (1e300, "float64", "below 2\\^31, got 1e\\+300"),
        (40, "int32", "40 makes 41 classes of 40 examples"),
    ],
)
def test_huge_labels_are_refused_before_anything_is_allocated(tmp_path, top, dtype, match):
    x, y = xy()
    labels = y.astype(dtype)
    labels[7] = top
    name = save_npz(tmp_path, X=x, y=labels)
    tracemalloc.start()
    refused(match, name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_labels_that_start_at_1_or_leave_classes_out_are_told(tmp_path):
    x, y = xy()
    source = open_source(save_npz(tmp_path, X=x, y=y + 1))
    assert source.info.class_names == tuple("01234") and told(source, "class 0 has no example")
    assert not told(open_source(save_npz(tmp_path, X=x, y=y * 2)), "start at 1")


@pytest.mark.parametrize(
    "keys",
    [
        "x_train y_train x_valid y_valid x_test y_test",
        "X_train Y_train X_val Y_val X_test Y_test",
        "train_images train_labels val_images val_labels test_images test_labels",
        "train_x train_y dev_x dev_y test_x test_y",
        "data labels validation_data validation_labels testing_data testing_labels",
    ],
)
def test_names_of_arrays(tmp_path, keys):
    x, y = xy()
    train_x, train_y, val_x, val_y, test_x, test_y = keys.split()
    source = open_source(
        save_npz(tmp_path, **{train_x: x, train_y: y, val_x: x[:9], val_y: y[:9], test_x: x[:7],
                              test_y: y[:7, None]})
    )  # fmt: skip
    assert lengths(source) == (40, 9, 7)
    np.testing.assert_array_equal(source.train.arrays["image"], x)
    assert not told(source, "not read")


def test_arrays_that_are_not_read_are_told(tmp_path):
    x, y = xy()
    more = {"ids": np.arange(40.0), "arr_0": np.array([None])}
    source = open_source(save_npz(tmp_path, X=x, target=y, **more))
    assert told(source, "not read: ids (40,) float64, arr_0 (1,) object")
    source = open_source(save_npz(tmp_path, x_train=x, y_train=y, image=x[:3], label=y[:3]))
    assert told(source, "not read: image (3, 6, 5, 3) uint8, label (3,)")
    assert sum(lengths(source)) == 40
    source = open_source(save_npz(tmp_path, image=x, label=y, x_test=x[:9], y_test=y[:9]))
    assert len(source.test) == 9 and not told(source, "not read")
    refused(
        "image and data are both the images of the train", save_npz(tmp_path, image=x, data=x, y=y)
    )
    refused("x_val and x_valid are both", save_npz(tmp_path, X=x, y=y, x_val=x, x_valid=x))
    refused("images and labels of the train part .* only X", save_npz(tmp_path, X=x, arr_0=y))


def test_one_array_and_other_files_are_named(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4)))
    refused("it holds one array and is no archive; np.savez", f"npz:{path}")
    np.save(tmp_path / "b.npy", np.array([None]), allow_pickle=True)
    (tmp_path / "b.npz").write_bytes((tmp_path / "b.npy").read_bytes())
    refused("it holds one array and is no archive", f"npz:{tmp_path / 'b.npz'}")
    path.write_text("hello")
    refused("not a readable .npz file", f"npz:{path}")
    (tmp_path / "sub").mkdir()
    refused("there is no file", f"npz:{tmp_path / 'sub'}")


def test_a_header_that_lies_about_its_size_is_refused_at_once(tmp_path):
    x, y = xy()
    name = save_npz(tmp_path, X=x, y=y)
    path = tmp_path / "data.npz"
    head = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000, 3)}
    np.lib.format.write_array_header_1_0(head, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", head.getvalue() + b"0" * 100)
        archive.writestr("y.npy", b"none")
    refused(r"X.npy: the header's shape \(1000000, .* does not fit the file's size", name)


def test_idx_reads_files_only(tmp_path):
    name = mnist(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / f"train-{kind}").mkdir()
    (tmp_path / "train-images-idx3-ubyte.md5").write_text("0")
    source = open_source(name)
    assert lengths(source) == (45, 5, 50)
    assert told(source, "left out 1 other files, the first train-images-idx3-ubyte.md5")


def test_idx_takes_a_file_before_its_gzipped_copy(tmp_path):
    name = mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"broken")
    assert lengths(open_source(name)) == (45, 5, 50)


@pytest.mark.parametrize(
    "names",
    [
        "train-images.idx3-ubyte train-labels.idx1-ubyte t10k-images.idx3 t10k-labels.idx1",
        "Train-Images Train-Labels test-images-idx3-ubyte test-labels-idx1-ubyte",
    ],
)
def test_names_of_idx_files(tmp_path, names):
    plain = mnist(tmp_path)
    expected = open_source(plain)
    for old, new in zip(
        "train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1".split(),
        names.split(),
        strict=True,
    ):
        os.rename(tmp_path / f"{old}-ubyte", tmp_path / new)
    source = open_source(plain)
    np.testing.assert_array_equal(source.test.arrays["image"], expected.test.arrays["image"])


def test_idx_in_a_folder_below(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    mnist(raw, ending=".gz")
    source = open_source(f"idx:{tmp_path}")
    assert lengths(source) == (45, 5, 50) and told(source, "read from MNIST/raw")
    other = tmp_path / "FashionMNIST"
    other.mkdir()
    mnist(other)
    refused("2 folders have such files, name one: ", f"idx:{tmp_path}")


def test_emnist_is_turned_and_its_letters_are_named(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (52, 6, 5)).astype(np.uint8)
    labels = (np.arange(52) % 26 + 1).astype(np.uint8)
    for part in ("train", "test"):
        write_idx(tmp_path / f"emnist-letters-{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"emnist-letters-{part}-labels-idx1-ubyte.gz", labels)
    source = open_source(f"idx:{tmp_path}")
    np.testing.assert_array_equal(source.test.arrays["image"][..., 0], images.swapaxes(1, 2))
    np.testing.assert_array_equal(source.test.arrays["label"], labels - 1)
    assert source.info.class_names[:2] == ("A", "B") and len(source.info.class_names) == 26
    assert told(source, "are turned") and told(source, "the classes A to Z")
    write_idx(tmp_path / "emnist-digits-test-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "emnist-digits-test-labels-idx1-ubyte.gz", labels % 10)
    refused("2 data sets, name one: idx:.*emnist-digits, idx:.*emnist-letters", f"idx:{tmp_path}")
    digits = open_source(f"idx:{tmp_path / 'emnist-digits'}")
    assert digits.info.class_names == tuple("0123456789") and sum(lengths(digits)) == 52
    assert told(digits, "only the test files") and told(digits, "left out 4 other files")


def test_idx_headers_that_lie_allocate_nothing(tmp_path):
    name = mnist(tmp_path, ["train"], ending=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    for shape in [(2**31, 2**31, 2**31), (60000, 28, 28)]:
        head = data[:4] + b"".join(n.to_bytes(4, "big") for n in shape)
        path.write_bytes(gzip.compress(head + data[16:]))
        tracemalloc.start()
        refused("has 1516 bytes, but must have", name)
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()
    path.write_bytes(gzip.compress(data[:16] + bytes(2**24)))
    tracemalloc.start()
    refused("has at least .* bytes, but must have 1516", name)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    path.write_bytes(gzip.compress(data[:3] + b"\x40" + bytes(4 * 64)))
    refused("not an IDX file", name)
    path.write_bytes(gzip.compress(data[:4] + bytes(12)))
    refused(r"is empty, its header has the shape \[0, 0, 0\]", name)


def fuzzed(folder, rng):
    """Damage one file of a folder: bytes flipped, cut, doubled, renamed, or a link instead."""
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink())
    paths = [path for path in paths if path.stat().st_size]
    if not paths:
        return "nothing"
    path = rng.choice(paths)
    data = bytearray(path.read_bytes())
    how = rng.choice(["flip", "flip", "flip", "head", "cut", "insert", "rename", "link", "empty"])
    if how == "flip":
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif how == "head":
        data[rng.randrange(min(120, len(data)))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[rng.randrange(len(data)) :]
    elif how == "insert":
        place = rng.randrange(len(data))
        data[place:place] = rng.randbytes(rng.randint(1, 40))
    elif how == "empty":
        data.clear()
    if how == "rename":
        path.rename(path.with_name(path.name[: rng.randint(1, 12)] + rng.choice(["", ".x", "\n"])))
    elif how == "link":
        path.unlink()
        path.symlink_to(rng.choice([path.name, "none", ".", "/dev/null", "/dev/zero"]))
    else:
        path.write_bytes(data)
    return how


def fuzz(tmp_path, make, name, total, checksums=False, **options):
    """Fifty damaged copies of what `make(folder)` writes: each is a line of one error, or opens
    with as many examples as there were at most."""
    results = []
    for seed in range(50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        make(folder)
        rng = random.Random(seed)
        hows = [fuzzed(folder, rng) for _ in range(rng.randint(1, 2))]
        tracemalloc.start()
        try:
            with bounded():
                source = open_source(name.format(folder), **options)
            results.append(sum(lengths(source)))
            assert 0 < results[-1] <= total, hows
        except UserError as error:
            assert "\n" not in str(error), (hows, str(error))
            results.append(0)
        assert tracemalloc.get_traced_memory()[1] < 2**27
        tracemalloc.stop()
    assert 0 in results and (checksums or any(results))


def test_damaged_npz(tmp_path):
    x, y = xy()
    fuzz(
        tmp_path,
        lambda folder: save_npz(folder, x_train=x, y_train=y, class_names=np.array(list("abcd"))),
        "npz:{}/data.npz",
        40,
        checksums=True,
    )


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_idx(tmp_path, ending):
    fuzz(tmp_path, lambda folder: mnist(folder, ending=ending), "idx:{}", 100, bool(ending))


def test_labels_as_they_were(tmp_path):
    notes = []
    y = np.arange(6, dtype=np.int64) % 3
    labels, names = arrays.numbered({"train": (y, 6)}, None, "x", notes)
    np.testing.assert_array_equal(labels["train"], y)
    assert labels["train"].dtype == np.int32 and names == ("0", "1", "2") and not notes
