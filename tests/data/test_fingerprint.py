"""The same data are known again wherever they lie; other data are refused, by what changed."""

import shutil

import numpy as np
import pytest

from kerasdl.data import fingerprint
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.test_sources import save_images, save_npz, xy


def opened(name, before=None):
    return open_source(name, division=fingerprint.division(before))


def check(before, name):
    """How many files `name` has besides; the data must be the same otherwise."""
    return fingerprint.check(before, fingerprint.of_source(opened(name, before)), name)


@pytest.fixture
def pets(tmp_path):
    """A folder of two classes, its name, and its fingerprint."""
    folder = tmp_path / "pets"
    name = save_images(folder)
    return folder, name, fingerprint.of_source(opened(name))


def test_moved_data_are_the_same(pets, tmp_path):
    folder, name, before = pets
    assert check(before, name) == 0
    shutil.move(folder, tmp_path / "elsewhere")
    assert check(before, f"folder:{tmp_path / 'elsewhere'}") == 0


def test_files_that_were_added_join_training(pets):
    folder, name, before = pets
    for number in range(7):
        shutil.copy(folder / "cat" / "003.png", folder / "cat" / f"new{number}.png")
    source = opened(name, before)
    after = fingerprint.of_source(source)
    assert fingerprint.check(before, after, name) == 7
    for part in ("validation", "test"):
        assert after["files"][part] == before["files"][part]
        assert len(getattr(source, part)) == before["parts"][part]["examples"]
    assert len(source.train) == before["parts"]["train"]["examples"] + 7
    assert any("7" in note and "join" in note for note in source.notes)


def test_files_that_were_added_to_a_part_that_is_evaluated_are_refused(tmp_path):
    for part in ("train", "val", "test"):
        name = save_images(tmp_path / "pets" / part, n=4)
    name = f"folder:{tmp_path / 'pets'}"
    before = fingerprint.of_source(opened(name))
    shutil.copy(tmp_path / "pets/train/cat/001.png", tmp_path / "pets/train/cat/new.png")
    assert check(before, name) == 1
    shutil.copy(tmp_path / "pets/train/cat/001.png", tmp_path / "pets/test/cat/new.png")
    with pytest.raises(UserError, match=r"1 file new in a part .*test/cat/new.png \(test\)"):
        check(before, name)


def swap(folder):
    (folder / "cat").rename(folder / "fox")
    (folder / "dog").rename(folder / "cat")
    (folder / "fox").rename(folder / "dog")


def change(folder):
    save_images(folder / "other", ("cat",), 1)
    (folder / "other" / "cat" / "000.png").replace(folder / "dog" / "002.png")
    shutil.rmtree(folder / "other")


def lose(folder):
    (folder / "cat" / "004.png").unlink()


CHANGES = {
    "20 files with other contents, the first": swap,
    "1 file with other contents, the first dog/002.png": change,
    "1 file missing, the first cat/004.png": lose,
}


@pytest.mark.parametrize("line", CHANGES)
def test_other_files_are_refused_by_name(line, pets):
    folder, name, before = pets
    CHANGES[line](folder)
    with pytest.raises(UserError, match=line):
        check(before, name)


def test_a_file_in_another_part_or_class_is_named(pets):
    _, name, before = pets
    moved, other = (
        {**before, "files": {k: dict(v) for k, v in before["files"].items()}} for _ in "ab"
    )
    path = next(iter(before["files"]["test"]))
    moved["files"]["train"][path] = moved["files"]["test"].pop(path)
    with pytest.raises(UserError, match=f"in another part, the first {path}, test before and now"):
        fingerprint.check(before, moved, name)
    other["files"]["test"][path] = [other["files"]["test"][path][0], "fox"]
    with pytest.raises(UserError, match=f"labeled otherwise, the first {path}, .* now fox"):
        fingerprint.check(before, other, name)


@pytest.mark.parametrize("key", ["x_train", "y_train"])
def test_arrays_of_other_contents_are_refused(key, tmp_path):
    x, y = xy()
    name = save_npz(tmp_path, x_train=x, y_train=y)
    before = fingerprint.of_source(opened(name))
    assert check(before, name) == 0
    if key == "x_train":
        x[:, 0, 0] ^= 1
    else:
        y = y[::-1]
    save_npz(tmp_path, x_train=x, y_train=y)
    with pytest.raises(UserError, match="the train part has other contents"):
        check(before, name)
    save_npz(tmp_path, x_train=np.concatenate([x, x]), y_train=np.concatenate([y, y]))
    with pytest.raises(UserError, match="the train part has 65 examples, had 32"):
        check(before, name)


def test_a_text_of_other_contents_is_refused(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("to be or not to be " * 500)
    before = fingerprint.of_source(opened(f"text:{path}"))
    path.write_text("to be or not to bee" * 500)
    with pytest.raises(UserError, match="the train part has other contents"):
        check(before, f"text:{path}")


def test_generated_data_have_no_digest():
    result = fingerprint.of_source(opened("digits"))
    assert result["parts"]["test"] == {"examples": 360, "digest": None}
    assert "files" not in result
