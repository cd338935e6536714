"""Text for language models: documents, windows, shifts, resume."""

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.data.pipeline import evaluation_batches, training_batches
from kerasdl.data.sources import open_source, python_docs
from kerasdl.data.sources.text import WindowSplit
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.generate_text import GenerateText
from kerasdl.tasks.translate import Translate

COLUMNS = DataInfo.of_texts().columns
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def refused(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        open_source(*args, **kwargs)
    assert "\n" not in str(caught.value)


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"text:{path}"


def stream(source, part):
    return Tokenizer.from_json(source.info.tokenizer).decode(getattr(source, part).tokens)


def ratios(source):
    return source.info.first("tokens").tokens_per_character


def batches(split, start=0, stop=12, size=4, seed=3):
    data = training_batches(
        split, COLUMNS, batch_size=size, seed=seed, start_step=start, stop_step=stop
    )
    return list(data.as_numpy_iterator())


def test_windows_lie_side_by_side():
    split = WindowSplit(np.arange(35, dtype=np.int32), 8)
    assert len(split) == 4  # 33 tokens; the last two make no window
    result = split.read([0, 3, 1])["token_ids"]
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, np.array([0, 24, 8])[:, None] + np.arange(9))
    assert len(WindowSplit(np.arange(33, dtype=np.int32), 8)) == 4
    assert len(WindowSplit(np.arange(32, dtype=np.int32), 8)) == 3
    assert len(WindowSplit(np.arange(0, dtype=np.int32), 8)) == 0


def test_evaluation_is_not_shifted_and_fills_up():
    split = WindowSplit(np.arange(43, dtype=np.int32), 8)
    result = list(evaluation_batches(split, COLUMNS, batch_size=3).as_numpy_iterator())
    index = np.concatenate([b["index"] for b in result])
    tokens = np.concatenate([b["token_ids"] for b in result])
    np.testing.assert_array_equal(tokens, split.read(index)["token_ids"])
    assert np.concatenate([b["weight"] for b in result]).tolist() == [1] * 5 + [0]


def test_training_windows_are_shifted_anew_each_epoch():
    split = WindowSplit(np.arange(325, dtype=np.int32), 8, shift=True)
    assert len(split) == 40
    result = batches(split, stop=20)
    first = np.concatenate([b["token_ids"] for b in result])
    index = np.concatenate([b["index"] for b in result])
    np.testing.assert_array_equal(np.diff(first), 1)  # contiguous
    assert first.max() <= 324 and first.min() >= 0
    moved = first[:, 0] - 8 * index
    inner = moved[index < 39]  # the last is kept within the stream
    assert set(inner.tolist()) == set(range(8))
    epochs = [dict(zip(index[e], moved[e], strict=True)) for e in (slice(0, 40), slice(40, 80))]
    assert sum(epochs[0][i] != epochs[1][i] for i in range(39)) > 20
    spec = training_batches(split, COLUMNS, batch_size=4, seed=0, stop_step=1).element_spec
    assert spec["token_ids"].shape == (4, 9) and spec["token_ids"].dtype == "int32"


@pytest.mark.parametrize("start", [1, 7, 11])
def test_a_later_start_goes_on_bit_for_bit(start):
    split = WindowSplit(np.arange(165, dtype=np.int32), 8, shift=True)
    for a, b in zip(batches(split)[start:], batches(split, start), strict=True):
        assert a.keys() == b.keys() == {"index", "key", "weight", "token_ids"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_an_example_is_shifted_alike_in_any_batch():
    split = WindowSplit(np.arange(165, dtype=np.int32), 8, shift=True)

    def by_index(size):
        result = batches(split, stop=20 // size, size=size)
        return {
            int(i): t.tolist()
            for b in result
            for i, t in zip(b["index"], b["token_ids"], strict=True)
        }

    assert by_index(4) == by_index(10) and len(by_index(4)) == 20


def test_one_file_is_cut_at_its_end(tmp_path):
    text = (LETTERS * 40)[:1000]
    source = open_source(save(tmp_path / "a.md", text), max_length=16, task=GenerateText)
    assert stream(source, "train") == text[:800]
    assert stream(source, "validation") == text[800:900]
    assert stream(source, "test") == text[900:]
    assert source.info.max_length == 16 and source.info.class_names == ()
    assert source.info.image_shape is None and set(ratios(source).values()) == {1}
    assert source.train.shift and not source.validation.shift and not source.test.shift
    assert any("10%" in note for note in source.notes)


def test_a_folder_reads_text_files_only_and_each_is_cut(tmp_path):
    for name in ("b.txt", "sub/a.txt", "c.md", ".d/e.txt"):
        save(tmp_path / name, name[0] * 200)
    source = open_source(f"text:{tmp_path}", max_length=8, val_split=0.25)
    assert stream(source, "train") == "b" * 100 + "\n\n" + "s" * 100
    assert stream(source, "test") == "b" * 50 + "\n\n" + "s" * 50
    for name in ("b.txt", "sub/a.txt"):
        (tmp_path / name).unlink()
    assert set(stream(open_source(f"text:{tmp_path}", max_length=8), "train")) == {"c"}


def test_a_folder_with_parts(tmp_path):
    for part, text in (("train", "train"), ("val", "rat"), ("test", "sat")):
        save(tmp_path / part / "a.txt", text * 20)
    source = open_source(f"text:{tmp_path}", max_length=8)
    assert [stream(source, part) for part in ("train", "validation", "test")] == [
        "train" * 20,
        "rat" * 20,
        "\ufffdat" * 20,
    ]
    assert source.notes[-1] == "20 of 60 test tokens are unknown"
    assert open_source(f"text:{tmp_path}", max_length=8, tokenizer="byte").notes[-1].endswith("260")
    (tmp_path / "val" / "a.txt").unlink()
    (tmp_path / "val").rmdir()
    source = open_source(f"text:{tmp_path}", max_length=8)
    assert stream(source, "train") == ("train" * 20)[:90]
    assert stream(source, "validation") == ("train" * 20)[90:]


def test_bad_files(tmp_path):
    refused("there is no file or folder", f"text:{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    refused("the training part holds no text", f"text:{tmp_path / 'empty'}")
    refused("the training part holds no text", save(tmp_path / "a.txt", ""))
    refused(r"b\.txt is not UTF-8 at byte 3", save(tmp_path / "b.txt", b"abc\xff"))
    refused(
        r"the validation part has 100 tokens, but one window needs 129 \(--max-length 128\)",
        save(tmp_path / "c.txt", "0123456789" * 100),
    )
    name = save(tmp_path / "d" / "a.txt", "word " * 100)
    save(tmp_path / "d" / "b.txt", b"\xff")
    refused("b.txt is not UTF-8 at byte 0", f"text:{tmp_path / 'd'}")
    source = open_source(f"text:{tmp_path / 'd'}", max_length=8, skip_bad_files=True)
    assert "left out 1 unreadable files" in source.notes[0]
    refused("--val-split 0.6: must be below 0.5", name, val_split=0.6)
    refused("text needs a path", "text")


def test_sources_that_do_not_fit_the_task(tmp_path):
    output = (
        r"digits has image and label, but the model's task needs token_ids \(tokens\), as in {}"
    )
    texts = "synthetic, python_docs, text:FILE_OR_FOLDER, tfds:NAME$"
    refused(output.format(texts), "digits", task=GenerateText)
    refused(
        r"python_docs has token_ids \(tokens\), but the model's task needs source_ids \(tokens\) "
        r"and target_ids \(tokens\), as in synthetic, dates, pairs:FILE_OR_FOLDER, tfds:NAME$",
        "python_docs",
        task=Translate,
    )
    refused(
        "but the model's task needs image and label, as in digits, synthetic, folder:PATH, "
        "csv:FILE, npz:PATH, idx:FOLDER, digit_rows, photos, tfds:NAME$",
        "python_docs",
        task=Classify,
    )
    refused("--tokenizer applies to text only; digits has no text", "digits", tokenizer="char")
    refused("--max-length applies to text only; digits has no text", "digits", max_length=8)


def test_the_tokenizer_of_an_earlier_run_is_used_again(tmp_path):
    first = open_source(save(tmp_path / "a.txt", "abc " * 300), tokenizer="bpe", max_length=8)
    other = open_source(
        save(tmp_path / "b.txt", "xyz " * 300), tokenizer="char", max_length=9, info=first.info
    )
    assert other.info.tokenizer == first.info.tokenizer and other.info.max_length == 8
    assert stream(other, "test").startswith("xyz ")
    assert 0.2 < ratios(first)["test"] < 0.6


def test_synthetic_text_and_pairs():
    a, b, c = (open_source("synthetic", task=GenerateText, seed=s) for s in (0, 0, 1))
    assert stream(a, "train") == stream(b, "train") != stream(c, "train")
    assert a.info.max_length == 32 and len(a.train) >= 512
    assert 0.2 < a.baseline()["bits_per_character"] < 1.5
    pairs = open_source("synthetic", task=Translate)
    assert (len(pairs.train), len(pairs.validation), len(pairs.test)) == (512, 128, 128)
    decode = Tokenizer.from_json(pairs.info.tokenizer).decode
    for x, y in zip(*pairs.test.arrays.values(), strict=True):
        assert decode(x) == decode(y)[::-1] != ""


def test_python_docs():
    source = open_source("python_docs")
    assert source.info.max_length == 128
    assert Tokenizer.from_json(source.info.tokenizer).kind == "char"
    assert len(source.train) > 5000 and len(source.test) > 500 and len(source.validation) > 500
    assert "modules" in source.notes[0] and "characters" in source.notes[0]
    result = source.baseline()
    assert result["name"] == "5-gram, Witten-Bell" and 2.0 < result["bits_per_character"] < 2.6


def test_docstrings_in_the_order_of_the_file(tmp_path):
    save(tmp_path / "m.py", '"""One."""\nclass A:\n  """Two."""\n  def f(self):\n    """Three."""\n'
         'async def g():\n  """Four.\n\n    Five.\n      Six.\n  """\ndef h(): pass\n')  # fmt: skip
    save(tmp_path / "p" / "q.py", '"""Seven."""\nx = "\\d"')
    save(tmp_path / "bad.py", "def")
    save(tmp_path / "none.py", "x = 1")
    for skipped in ("test", "site-packages", "idlelib"):
        save(tmp_path / skipped / "a.py", '"""No."""')
    assert python_docs.docstrings(tmp_path) == {
        "m": "One.\n\nTwo.\n\nThree.\n\nFour.\n\nFive.\n  Six.",
        "p.q": "Seven.",
    }


def test_modules_that_copy_training_modules_are_moved_there():
    own = {f"m{i}": f"line {i} of its own\nand more of {i}" for i in range(60)}
    parts, moved = python_docs.divide(own)
    assert moved == 0 and min(map(len, parts.values())) > 0
    assert sorted(sum(parts.values(), [])) == sorted(own)
    copy, source = parts["test"][0], parts["train"][0]
    again, moved = python_docs.divide({**own, copy: own[source] + "\nx"})
    assert moved == 1 and copy in again["train"] and copy not in again["test"]


def test_no_source_files(monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    refused("has no source files in .*text:FILE_OR_FOLDER", "python_docs")


@pytest.fixture
def tfds_texts(tmp_path):
    """Tiny data sets of TFDS, on disk: one with a label, one of a single long text."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class TinyReviews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "text": tfds.features.Text(),
                "title": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples("a"), "test": self._generate_examples("b")}

        def _generate_examples(self, letter):
            for i in range(10):
                yield i, {"text": letter * 30, "title": "t", "label": i % 2}

    TinyReviews(data_dir=str(tmp_path)).download_and_prepare()
    return "tfds:tiny_reviews"


def test_tfds_text(tfds_texts, tmp_path):
    source = open_source(tfds_texts, data_dir=str(tmp_path), max_length=8, task=GenerateText)
    assert stream(source, "test") != "" and set(ratios(source).values()) == {1}
    train = stream(source, "train") + stream(source, "validation")
    assert train.count("a") == 300 and "t" not in train
    assert len(source.test) == 10 * 32 // 8 - 1
    refused(r"has token_ids \(tokens\), but .* needs source_ids .*, as in .*dates", tfds_texts,
            data_dir=str(tmp_path), task=Translate)  # fmt: skip
