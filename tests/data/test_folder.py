"""`folder:` as people's folders are: spellings, levels, links, what is left out, damaged files."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from kerasdl.data import splits
from kerasdl.data.reading import readable
from kerasdl.data.sources import folder, layout, open_source
from kerasdl.errors import UserError
from tests.data.shared import Labeled, Unlabeled, bounded, lengths, noted


def images(path, n=4, ending=".png", size=(6, 5)):
    """Write `n` images of one folder, each its own."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    for i in range(n):
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{i:03}{ending}")
    return path


def classes(path, names=("cat", "dog"), n=4, **more):
    for name in names:
        images(path / name, n, **more)
    return path


def opened(path, task=Labeled, **more):
    return open_source(f"folder:{path}", task=task, **more)


def refused(match, path, task=Labeled, **more):
    with pytest.raises(UserError, match=match) as caught:
        opened(path, task, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [("Training", "valid", "Testing"), ("TRAIN", "dev", "test"), ("train", "Validation", "TEST")],
)
def test_parts_in_any_spelling(tmp_path, names):
    for name, n in zip(names, (4, 3, 2), strict=True):
        classes(tmp_path / name, n=n)
    source = opened(tmp_path)
    assert lengths(source) == (8, 6, 4) and source.notes == ()
    assert source.info.class_names == ("cat", "dog")


def test_two_folders_of_one_part(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "val", n=2)
    (tmp_path / "validation").mkdir()
    source = opened(tmp_path, val_split=0.25)
    assert lengths(source) == (6, 4, 2) and noted(source, "without images", "validation")
    classes(tmp_path / "validation")
    refused("val and validation are both the validation part", tmp_path)


def test_parts_without_training(tmp_path):
    classes(tmp_path / "test")
    classes(tmp_path / "dev")
    refused("no folder train for the training part, but dev, test", tmp_path)
    classes(tmp_path)
    refused("no folder train for the training part, but dev, test", tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    classes(tmp_path, ("bus", "train", "bicycle"))
    source = opened(tmp_path)
    assert source.info.class_names == ("bicycle", "bus", "train")
    assert noted(source, "names of parts")


@pytest.mark.parametrize("around", ["pets", "a/b/c"])
def test_one_level_deeper(tmp_path, around):
    classes(tmp_path / around)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "docs").mkdir()
    source = opened(tmp_path, val_split=0.25)
    assert source.info.class_names == ("cat", "dog")
    assert noted(source, "the data set lies in", around)
    assert noted(source, "1 files of other types (1 .md)", "README.md")
    assert noted(source, "1 hidden", "__MACOSX") and noted(source, "1 folders without", "docs")


def test_parts_one_level_deeper(tmp_path):
    classes(tmp_path / "x" / "train" / "data")
    classes(tmp_path / "x" / "test" / "images", n=2)
    source = opened(tmp_path, val_split=0.25)
    assert lengths(source) == (6, 2, 4) and source.info.class_names == ("cat", "dog")
    assert noted(source, "train part", "data") and noted(source, "test part", "images")


def test_one_class_is_refused(tmp_path):
    images(tmp_path / "x", 4)
    refused("one class, x, but the model's task needs two", tmp_path)
    assert opened(tmp_path, Unlabeled).info.class_names == ("x",)
    classes(tmp_path / "x", ("cat", "dog"))
    refused(r"one class, x, whose folder holds sub-folders with images \(cat, dog\)", tmp_path)
    classes(tmp_path / "t" / "train" / "data")
    images(tmp_path / "t" / "test" / "data", 2)
    refused(r"one class, data, .*\(cat, dog\)", tmp_path / "t")


def test_images_deep_in_a_class_are_noted(tmp_path):
    classes(tmp_path)
    images(tmp_path / "cat" / "2019", 3)
    source = opened(tmp_path)
    assert sum(lengths(source)) == 11 and source.info.class_names == ("cat", "dog")
    assert noted(source, "3 images in sub-folders of a class", "cat/2019/000.png")


def test_names_that_differ_in_unicode_form(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    parted = unicodedata.normalize("NFD", "café")
    classes(tmp_path / "train", (composed, "tea"))
    classes(tmp_path / "test", (parted, "tea"), n=2)
    source = opened(tmp_path)
    assert source.info.class_names == (composed, "tea") and len(source.test) == 4
    images(tmp_path / "train" / parted, 3)
    source = opened(tmp_path)
    assert source.info.class_names == (composed, "tea") and noted(source, "NFC", composed)


def test_names_that_differ_in_case(tmp_path):
    classes(tmp_path / "train", ("Cat", "dog"))
    classes(tmp_path / "test", ("cat", "dog"), n=2)
    source = opened(tmp_path)
    assert source.info.class_names == ("Cat", "dog")
    assert noted(source, "upper and lower case", "joined as Cat")
    images(tmp_path / "train" / "cat", 3)
    source = opened(tmp_path)
    assert source.info.class_names == ("Cat", "cat", "dog") and noted(source, "of their own")


def test_hidden_and_system_entries(tmp_path):
    classes(tmp_path)
    images(tmp_path / "cat" / ".ipynb_checkpoints", 1)
    images(tmp_path / ".git" / "x", 1)
    shutil.copy(tmp_path / "cat" / "000.png", tmp_path / "cat" / "._000.png")
    for name in ("Thumbs.db", "desktop.ini"):
        (tmp_path / "dog" / name).write_bytes(b"x")
    source = opened(tmp_path)
    assert sum(lengths(source)) == 8 and noted(source, "left out 5 hidden", ".git")


def test_other_files_and_folders_beside(tmp_path):
    classes(tmp_path / "train")
    images(tmp_path / "extra", 3)
    images(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "train" / "cat" / "a.xml").write_text("x")
    (tmp_path / "train" / "cat" / "b.xml").write_text("x")
    (tmp_path / "train" / "list").write_text("x")
    images(tmp_path / "train", 1)
    source = opened(tmp_path, val_split=0.25)
    assert sum(lengths(source)) == 8
    assert noted(source, "3 files of other types", "2 .xml", "1 without ending")
    assert noted(source, "5 images in folders beside") and noted(source, "1 folders", "empty")
    assert noted(source, "1 images outside the folders of classes", "train/000.png")


def test_a_part_without_classes_is_left_out(tmp_path):
    classes(tmp_path / "train")
    images(tmp_path / "test", 3)
    source = opened(tmp_path, val_split=0.25)
    assert sum(lengths(source)) == 8 and noted(source, "3 images outside", "test/000.png")


def test_links(tmp_path):
    classes(tmp_path / "data")
    images(tmp_path / "elsewhere", 3)
    (tmp_path / "data" / "fox").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data" / "self")
    (tmp_path / "data" / "dog" / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "data" / "dog" / "pipe.png")
    source = opened(tmp_path / "data")
    assert source.info.class_names == ("cat", "dog", "fox") and sum(lengths(source)) == 11
    assert noted(source, "2 links that lead back") and noted(source, "2 broken links")
    assert noted(source, "neither files nor folders", "pipe.png")


def test_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(classes(tmp_path))
    images(tmp_path / "/".join("d" * (layout.MAX_DEPTH + 1)), 1)
    for path in (".", "./", str(tmp_path) + "/"):
        source = opened(path)
        assert source.info.class_names == ("cat", "dog") and sum(lengths(source)) == 8
        assert noted(source, "levels deep", "/".join("d" * layout.MAX_DEPTH))
        assert set(source.files) == {"train", "validation", "test"}


def test_iphone_photographs_are_jpeg(tmp_path):
    classes(tmp_path, ending=".jpg")
    first = Image.new("RGB", (5, 6))
    path = tmp_path / "cat" / "000.jpg"
    first.save(path, "MPO", save_all=True, append_images=[first.copy()])
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert sum(lengths(opened(tmp_path))) == 8


def test_links_to_links_end(tmp_path):
    images(tmp_path / "0", 1)
    for level in range(1, 30):  # 2^30 ways down
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level - 1))
    left = layout.LeftOut(tmp_path)
    assert layout.read_tree(tmp_path / "29", (".png",), left).count <= layout.MAX_VISITS
    assert left.notes()


def test_names_that_are_no_utf_8(tmp_path):
    classes(tmp_path, ("dog",))
    name = os.fsdecode(b"caf\xe9")
    images(tmp_path / name)
    os.rename(tmp_path / "dog" / "000.png", tmp_path / "dog" / os.fsdecode(b"\xff.png"))
    source = opened(tmp_path)
    assert source.info.class_names == ("caf\\xe9", "dog") and sum(lengths(source)) == 8
    for found in source.notes:
        found.encode()
    (tmp_path / name / "000.png").write_bytes(b"x")
    refused(r"first is .*caf\\xe9/000.png", tmp_path)


def test_home(tmp_path, monkeypatch):
    classes(tmp_path / "pets")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sum(lengths(opened("~/pets"))) == 8


def test_a_path_without_its_prefix(tmp_path, monkeypatch):
    def hint(match, name):
        with pytest.raises(UserError, match=match):
            open_source(name)

    monkeypatch.chdir(tmp_path)
    classes(tmp_path / "data" / "pets")
    for name in ("x.csv", "x.npz", "x.tsv", "x.txt"):
        (tmp_path / name).write_text("x")
    hint("give folder:data/pets", "data/pets")
    for name, kind in (("x.csv", "csv"), ("./x.npz", "npz"), ("x.tsv", "pairs"), ("x.txt", "text")):
        hint(f"give {kind}:{name}", name)
    hint("none.csv: does not exist", "none.csv")
    hint("there is no folder .*x.csv; give csv:x.csv", "folder:x.csv")
    hint("there is no file data; give folder:data", "csv:data")


@pytest.mark.parametrize("parts", [False, True])
def test_flat_folders(tmp_path, parts):
    images(tmp_path / "train" if parts else tmp_path, 20)
    if parts:
        images(tmp_path / "test", 3)
    refused("20 images in .* have no classes", tmp_path)
    source = opened(tmp_path, Unlabeled)
    assert lengths(source) == ((18, 2, 3) if parts else (16, 2, 2))
    assert list(source.info.columns) == ["image"] and list(source.train.arrays) == ["image"]
    assert {name for found in source.files.values() for _, name in found.values()} == {None}


def test_files_by_part(tmp_path):
    source = opened(classes(tmp_path / "x"), val_split=0.25)
    assert {part: len(found) for part, found in source.files.items()} == dict(
        train=4, validation=2, test=2
    )
    relative, (path, name) = next(iter(source.files["train"].items()))
    assert os.path.isabs(path) and path.endswith(relative) and relative.startswith(name)


def test_an_earlier_division_stays(tmp_path):
    first = opened(classes(tmp_path, n=10))
    division = {rel: part for part, found in first.files.items() for rel in found}
    images(tmp_path / "cat" / "more", 5)
    again = opened(tmp_path, division=division)
    assert set(again.files["test"]) == set(first.files["test"])
    assert set(again.files["validation"]) == set(first.files["validation"])
    assert set(again.files["train"]) - set(first.files["train"]) == {
        f"cat/more/00{i}.png" for i in range(5)
    }
    assert noted(again, "5 files are new, of which 5 join the training part")
    assert set(opened(tmp_path).files["test"]) != set(first.files["test"])


def test_division_is_stratified(tmp_path):
    images(tmp_path / "many", 40)
    images(tmp_path / "few", 10)
    images(tmp_path / "one", 1)
    source = opened(tmp_path, val_split=0.2)
    counts = [np.bincount(s.arrays["label"], minlength=3).tolist() for s in
              (source.train, source.validation, source.test)]  # fmt: skip
    assert counts == [[6, 24, 1], [2, 8, 0], [2, 8, 0]]
    assert noted(source, "fewer examples than the 3 parts: one 1")


def test_stratified_indices():
    labels = np.repeat([0, 1, 2, 3], [100, 30, 3, 1])
    kept, held = splits.split_indices(134, 0.1, [0, 1], labels)
    assert sorted([*kept, *held]) == list(range(134)) and len(held) == 13
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 3, 0, 0]
    again = splits.split_indices(134, 0.1, [0, 1], labels)
    np.testing.assert_array_equal(held, again[1])
    assert (splits.split_indices(134, 0.1, [0, 2], labels)[1] != held).any()
    # One of each stays, even where more are asked for.
    kept, held = splits.split_indices(134, 0.99, 0, labels)
    assert set(labels[kept]) == {0, 1, 2, 3} and len(kept) == 4
    # Without a seed, the last ones, whatever they are.
    assert splits.split_indices(10, 0.2, None, [0] * 9 + [1])[1].tolist() == [8, 9]


def test_npz_is_stratified(tmp_path):
    label = np.repeat([0, 1, 2], [30, 9, 1])
    np.savez(tmp_path / "x.npz", image=np.zeros((40, 4, 4), np.uint8), label=label)
    source = open_source(f"npz:{tmp_path / 'x.npz'}", val_split=0.1)
    assert set(source.train.arrays["label"]) == {0, 1, 2}
    assert np.bincount(source.test.arrays["label"]).tolist() == [3, 1]
    assert noted(source, "fewer examples", "2 1")


def test_images_above_the_limit_are_named(tmp_path, monkeypatch):
    classes(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    images(tmp_path / "cat", 1, size=(9, 10))
    refused("1 of 8 .*cat/000.png .9 x 10 pixels, more than Pillow's limit of 80", tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"x")
    refused("2 of 9 .*cat/0.png; 1 of them are too large, .*000.png .9 x 10 pixels", tmp_path)
    source = opened(tmp_path, skip_bad_files=True)
    assert sum(lengths(source)) == 7 and noted(source, "left out 2 unreadable", "9 x 10 pixels")
    assert Image.MAX_IMAGE_PIXELS == 40


def test_formats_of_another_name(tmp_path):
    classes(tmp_path)
    Image.new("RGB", (5, 6)).save(tmp_path / "cat" / "x.png", "TIFF")
    refused("x.png .a TIFF file", tmp_path)


def damage(path, rng):
    """One random change of a valid folder, of the kinds that happen."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    file = files[rng.integers(len(files))]
    kind = ["flip", "cut", "empty", "rename", "link", "move", "folder", "swap"][rng.integers(8)]
    if kind == "flip":
        data = bytearray(file.read_bytes() or b"\0")
        for place in rng.integers(0, len(data), 4):
            data[place] ^= 1 << rng.integers(8)
        file.write_bytes(data)
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[: rng.integers(200)])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "rename":
        file.rename(file.with_name([".x.png", "x.PNG", "x", "x.gif", "\n.png"][rng.integers(5)]))
    elif kind == "link":
        target = [path, file, path / "nothing", file.parent][rng.integers(4)]
        (file.parent / f"link{rng.integers(1e9)}.png").symlink_to(target)
    elif kind == "move":
        file.rename(path / f"{rng.integers(1e9)}.png")
    elif kind == "folder":
        (file.parent / ["train", "cat", ".x", "x.png"][rng.integers(4)]).mkdir(exist_ok=True)
    else:
        name = ["Train", "val", "CAT", "x\n"][rng.integers(4)] + ["", "0"][rng.integers(2)]
        new = file.parent.with_name(name)
        if file.parent != path and not new.exists():
            file.parent.rename(new)


@pytest.mark.parametrize(
    "ending, on_demand, count", [(".png", False, 25), (".jpg", False, 25), (".jpg", True, 4)]
)
def test_fifty_damaged_folders(tmp_path, monkeypatch, ending, on_demand, count):
    if on_demand:
        monkeypatch.setattr(folder, "MEMORY_BYTES", 10)
    rng = np.random.default_rng(7 + on_demand)
    valid = classes(tmp_path / "valid", ("cat", "dog", "fox"), n=4, ending=ending)
    outcomes = []
    for number in range(count):
        path = tmp_path / str(number)
        shutil.copytree(valid, path)
        for _ in range(rng.integers(1, 4)):
            damage(path, rng)
        for skip in [number % 2 == 1] if on_demand else [False, True]:
            try:
                with bounded():
                    source = opened(path, skip_bad_files=skip, val_split=0.25, image_size=(6, 5))
                    parts = (source.train, source.validation, source.test)
                    read = [part.read(range(len(part))) for part in parts]
            except UserError as error:
                assert "\n" not in str(error)
                outcomes.append("refused")
                continue
            outcomes.append("read")
            for part, arrays in zip(("train", "validation", "test"), read, strict=True):
                assert arrays["image"].shape[1:] == (6, 5, 3)
                found = source.files[part]
                names = [source.info.class_names[k] for k in arrays["label"]]
                assert names == [name for _, name in found.values()]
                for row, (file, name) in enumerate(found.values()):
                    assert name in readable(os.path.relpath(file, path))
                    if ending == ".png":  # a flipped bit of one is noticed
                        exact = np.asarray(Image.open(file).convert("RGB"))
                        np.testing.assert_array_equal(arrays["image"][row], exact)
    assert {"refused", "read"} == set(outcomes)
