"""`text:FOLDER` as people have it: parts by names, and nothing left out in silence."""

import os

import pytest

from kerasdl.data.sources import open_source
from kerasdl.data.sources.text import part_files
from kerasdl.data.text.tokenizer import Tokenizer
from tests.data.test_arrays import fuzz, told
from tests.data.test_sources import refused


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stream(source, part):
    return Tokenizer.from_json(source.info.tokenizer).decode(getattr(source, part).tokens)


def opened(path, **options):
    return open_source(f"text:{path}", max_length=8, tokenizer="char", **options)


@pytest.mark.parametrize(
    "names",
    [
        "train.txt valid.txt test.txt",
        "Training.TXT DEV.txt Test.txt",
        "wiki.train.tokens wiki.valid.tokens wiki.test.tokens",
        "ptb.train.txt ptb.valid.txt ptb.test.txt",
        "book_train.txt book_val.txt book_test.txt",
        "train.raw validation.raw testing.raw",
        "Train/a.txt valid/a.txt Testing/a.txt",
        "wikitext-2/train.txt wikitext-2/valid.txt wikitext-2/test.txt",
        "corpus/training/a.txt corpus/dev/a.txt corpus/test/a.txt",
    ],
)
def test_parts_by_names(tmp_path, names):
    texts = {"train": "abcd" * 9, "validation": "dcba" * 7, "test": "aadd" * 5}
    for name, text in zip(names.split(), texts.values(), strict=True):
        write(tmp_path / name, text)
    write(tmp_path / "README.md", "about")
    source = opened(tmp_path)
    assert {part: stream(source, part) for part in texts} == texts
    assert told(source, "1 .md), the first README.md") or told(source, "beside the parts, the fi")
    assert told(source, "parts by the files' names: ") == ("/a.txt" not in names)


def test_a_missing_part_is_taken_from_training_and_told(tmp_path):
    write(tmp_path / "train.txt", "abcd" * 40)
    write(tmp_path / "test.txt", "dcba" * 8)
    source = opened(tmp_path)
    assert stream(source, "test") == "dcba" * 8
    assert stream(source, "train") + stream(source, "validation") == "abcd" * 40
    assert told(source, "validation part: 10% of each training text")


def test_files_that_are_no_parts_are_all_read(tmp_path):
    for name in ("train.txt", "story.txt", "protest.txt"):
        write(tmp_path / name, name[0] * 100)
    source = opened(tmp_path)
    assert set(stream(source, "train")) == {"t", "s", "p", "\n"}
    assert not told(source, "parts by")
    assert part_files(["a_train.txt", "b_test.txt", "train.txt", "train.train.txt"]) == {}
    found = part_files(["a_train.txt", "a_test.txt", "B.train", "B.dev", "B.valid"])
    assert found == {
        "a_*.txt": {"train": ["a_train.txt"], "test": ["a_test.txt"]},
        "b.*": {"train": ["B.train"], "validation": ["B.dev", "B.valid"]},
    }


def test_what_is_left_out_is_told(tmp_path):
    write(tmp_path / "a.txt", "abc " * 60)
    write(tmp_path / "empty.txt", "")
    for name in ("b.md", "c.md", "d.PDF", ".hidden.txt", ".git/e.txt", "__MACOSX/f.txt"):
        write(tmp_path / name, "zzz" * 50)
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink(tmp_path / "none", tmp_path / "gone.txt")
    source = opened(tmp_path)
    assert set(stream(source, "train")) == set("abc ")
    for line in (
        "left out 3 files of other types (2 .md, 1 .pdf), the first b.md",
        "left out 3 hidden or system files and folders, the first .git",
        "left out 1 links that lead back into folders already read, the first loop",
        "left out 1 broken links, the first gone.txt",
        "left out 1 empty files, the first ",
    ):
        assert told(source, line), (line, source.notes)


def test_folders_beside_the_parts_are_told(tmp_path):
    for name in ("train/a.txt", "test/a.txt", "extra/a.txt", "valid/a.md", "notes.txt"):
        write(tmp_path / name, "abc " * 60)
    source = opened(tmp_path)
    assert told(source, "left out 2 files beside the parts, the first extra/a.txt")
    assert told(source, "left out 1 folders without texts, the first valid")
    assert stream(source, "test") == "abc " * 60


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    refused("there is no file or folder", f"text:{tmp_path / 'pipe.txt'}")
    refused("holds no text", f"text:{tmp_path}")
    refused("there is no file or folder", f"pairs:{tmp_path / 'pipe.txt'}")


def test_damaged_texts(tmp_path):
    def make(folder):
        for part, n in (("train", 60), ("valid", 19), ("test", 19)):
            write(folder / f"{part}.txt", "\n".join(f"line {i} é" for i in range(n)))

    fuzz(tmp_path, make, "text:{}", 150, tokenizer="byte", max_length=8, skip_bad_files=True)
