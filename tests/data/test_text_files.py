"""Which files of a folder a data set of text is made of, and what is said of the others."""

import os

import pytest

from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.damage import contents, damaged
from tests.data.shared import bounded, noted
from tests.data.test_text import refused, save, stream

PARTS = ("train", "validation", "test")


def opened(folder, **settings):
    return open_source(f"text:{folder}", max_length=8, **settings)


def letters(source):
    """The letters of each part, without the lines between two texts and unknown ones."""
    return ["".join(sorted(set(stream(source, part)) - {"\n", "\ufffd"})) for part in PARTS]


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("Training.TXT", "dev.txt", "Testing.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("train-00000-of-00001.txt", "validation-00000-of-00001.txt", "test-00000-of-00001.txt"),
        ("my_train.txt", "my_val.txt", "my_test.txt"),
        ("wiki.train.v1.txt", "wiki.valid.v1.txt", "wiki.test.v1.txt"),
        ("Training/a.txt", "Valid/a.txt", "TEST/a.txt"),
        ("train/a.txt", "dev/b.txt", "testing/c/d.txt"),
        ("corpus/train.txt", "corpus/val.txt", "corpus/test.txt"),
        ("corpus/v1/TRAIN/a.raw", "corpus/v1/VALIDATION/a.raw", "corpus/v1/Test/a.raw"),
    ],
)
def test_parts_by_name(tmp_path, names):
    for name, text in zip(names, ("abc", "ab", "bc"), strict=True):
        save(tmp_path / name, text * 40)
    source = opened(tmp_path)
    assert letters(source) == ["abc", "ab", "bc"]
    assert [len(stream(source, part)) for part in PARTS] == [120, 80, 80]
    assert noted(source, "parts by name: train ") and not noted(source, "of each training text")
    assert noted(source, "the data set lies in corpus") == names[0].startswith("corpus")


def test_missing_parts_are_divided_from_training_and_shards_are_joined(tmp_path):
    for name, text in (("train_0.txt", "a"), ("train_1.txt", "b"), ("test.txt", "ab")):
        save(tmp_path / name, text * 100)
    source = opened(tmp_path)
    assert stream(source, "train") == "a" * 90 + "\n\n" + "b" * 90
    assert stream(source, "validation") == "a" * 10 + "\n\n" + "b" * 10
    assert stream(source, "test") == "ab" * 100
    assert noted(source, "parts by name: train train_0.txt and 1 more, test test.txt")
    assert noted(source, "validation part: 10% of each training text")


def test_names_that_only_look_like_parts(tmp_path):
    for name in ("steam_train.txt", "how_to_test.txt", "boat.txt"):
        save(tmp_path / name, name[0] * 200)
    source = opened(tmp_path)
    assert letters(source) == ["bhs"] * 3 and not noted(source, "part,")
    save(tmp_path / "train.txt", "t" * 200)  # a text on trains
    source = opened(tmp_path)
    assert letters(source) == ["bhst"] * 3
    assert noted(source, "train.txt has the name of a part, but is read with all others")
    save(tmp_path / "val.txt", "tb" * 100)  # now it is one
    source = opened(tmp_path, val_split=0.2)
    assert letters(source) == ["t", "t", "t"] and "\ufffd" in stream(source, "validation")
    assert noted(source, "left out 3 files beside those of the parts, the first boat.txt")


def test_parts_without_training_are_refused(tmp_path):
    save(tmp_path / "test.txt", "a" * 200)
    save(tmp_path / "dev.txt", "a" * 200)
    refused("there is no file train for the training part, but dev.txt, test.txt",
            f"text:{tmp_path}")  # fmt: skip
    save(tmp_path / "train.txt", "")
    refused("the training part holds no text; parts by name", f"text:{tmp_path}")
    save(tmp_path / "train.txt", "a" * 200)
    save(tmp_path / "dev.txt", "")
    refused("the validation part holds no text; parts by name", f"text:{tmp_path}")
    for name in ("val", "valid", "train"):
        save(tmp_path / "two" / name / "a.txt", "a")
    refused("the folders val and valid are both the validation part", f"text:{tmp_path / 'two'}")


def test_what_is_left_out_is_said(tmp_path):
    for name in ("a.txt", "sub/b.TXT", "notes.md", "x.json", "sub/y.md", ".git/c.txt", ".d.txt",
                 "__MACOSX/e.txt", "pictures/f.png"):  # fmt: skip
        save(tmp_path / name, name[0] * 200)
    save(tmp_path / "void.txt", "")
    os.symlink(tmp_path, tmp_path / "sub" / "up")
    os.symlink(tmp_path / "none.txt", tmp_path / "broken.txt")
    source = opened(tmp_path)
    assert letters(source)[0] == "as"
    assert noted(source, "4 files of other types (2 .md, 1 .png, 1 .json), the first notes.md")
    assert noted(source, "left out 3 hidden or system files and folders, the first .d.txt")
    assert noted(source, "1 links that lead back into folders already read, the first sub/up")
    assert noted(source, "left out 1 broken links, the first broken.txt")
    assert noted(source, "left out 1 empty files, the first ") and noted(source, "void.txt")
    assert noted(source, "left out 1 folders without texts, the first pictures")


def test_parts_in_folders_leave_out_what_is_beside(tmp_path):
    for name in ("train/a.txt", "val/b.txt", "extra/c.txt", "d.txt"):
        save(tmp_path / name, "a" * 200)
    (tmp_path / "test").mkdir()
    source = opened(tmp_path)
    assert noted(source, "left out 2 files beside those of the parts, the first d.txt")
    assert noted(source, "left out 1 folders without texts, the first test")
    assert noted(source, "test part: 10% of each training text") and len(source.train) == 22


def test_a_clean_folder_has_no_more_notes_than_it_had(tmp_path):
    save(tmp_path / "a.txt", "a" * 400)
    save(tmp_path / "b" / "c.txt", "b" * 400)
    notes = opened(tmp_path).notes
    assert [note.split(":")[0] for note in notes] == ["validation part", "test part", "characters"]


def test_encodings(tmp_path):
    save(tmp_path / "a.txt", ("äöü" * 100).encode("utf-16"))
    assert letters(opened(tmp_path / "a.txt"))[0] == "äöü"
    save(tmp_path / "a.txt", b"\xef\xbb\xbf" + "äöü\r\n".encode() * 100)
    assert letters(opened(tmp_path / "a.txt"))[0] == "äöü"
    save(tmp_path / "a.txt", b"\xff\xfea")
    refused("is not UTF-16.* at byte 2", f"text:{tmp_path / 'a.txt'}")
    os.mkfifo(tmp_path / "pipe")
    refused("pipe is neither a file nor a folder", f"text:{tmp_path / 'pipe'}")
    name = os.path.join(tmp_path, os.fsdecode(b"\xff.txt"))
    with open(name, "w") as file:
        file.write("word" * 100)
    assert letters(opened(name))[0] == "dorw"


@pytest.mark.parametrize("valid", ["parts", "folder"])
def test_damaged_folders_are_refused_or_read_right(tmp_path, valid):
    names = ("train.txt", "valid.txt", "test.txt") if valid == "parts" else ("a.txt", "b/c.txt")
    for name in (*names, "README.md"):
        save(tmp_path / "whole" / name, f"{name} and more of it\n" * 30)
    results = {"read": 0, "refused": 0}
    for seed in range(50):
        damaged(tmp_path / "whole", tmp_path / "x", seed)
        try:
            with bounded():
                source = opened(tmp_path / "x", skip_bad_files=seed % 2 == 0)
        except UserError as error:
            assert "\n" not in str(error)
            results["refused"] += 1
            continue
        results["read"] += 1
        texts = contents(tmp_path / "x")
        whole = "".join(texts)
        for part in PARTS:
            assert set(stream(source, part)) <= {*whole, "\n", "\ufffd"}
            assert len(getattr(source, part)) > 0
        total = sum(len(stream(source, part)) for part in PARTS)
        assert total <= sum(map(len, texts)) + 2 * len(texts) * 3
    assert results["read"] >= 10 and results["refused"] >= 3, results
