"""`pairs:FILE_OR_FOLDER` and translation sets of TFDS."""

import csv

import numpy as np
import pytest

from kerasdl.data.sources import open_source
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.ops.text import BOS, EOS, PAD
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.translate import Translate
from tests.data.test_arrays import fuzz


def save(path, lines, encoding="utf-8"):
    (path / "a.tsv").write_bytes("\n".join(lines).encode(encoding))
    return f"pairs:{path / 'a.tsv'}"


def lines(n=200):
    return [f"source text {i % 150}\tTarget {i}" for i in range(n)]


def texts(source, part):
    tokenizer = Tokenizer.from_json(source.info.tokenizer)
    arrays = getattr(source, part).arrays
    return [
        tuple(tokenizer.decode(row) for row in rows)
        for rows in zip(arrays["source_ids"], arrays["target_ids"], strict=True)
    ]


def test_pairs_are_divided_by_their_source(tmp_path):
    source = open_source(save(tmp_path, [*lines(), ""]), tokenizer="char", task=Translate)
    parts = {part: texts(source, part) for part in ("train", "validation", "test")}
    assert sorted(sum(parts.values(), [])) == sorted(tuple(x.split("\t")) for x in lines())
    sources = [{a for a, _ in result} for result in parts.values()]
    assert not sources[0] & sources[1] and not sources[0] & sources[2]
    assert not sources[1] & sources[2]
    assert 10 < len(parts["validation"]) < 30 and 10 < len(parts["test"]) < 30
    half = open_source(save(tmp_path, lines()), tokenizer="char", val_split=0.3)
    assert 40 < len(half.test) < 80 and half.info.max_length == 128
    assert source.baseline is None and source.info.class_names == ()


def test_columns(tmp_path):
    source = open_source(save(tmp_path, lines()), tokenizer="char")
    batch = source.train.read([3, 1])
    assert set(batch) == {"source_ids", "target_ids"}
    result = texts(source, "train")
    assert batch["source_ids"].shape == (2, max(len(text) for text, _ in result) + 1)
    assert batch["target_ids"].shape == (2, max(len(text) for _, text in result) + 2)
    for row, (text, _) in zip(source.train.arrays["source_ids"], result, strict=True):
        assert row[len(text)] == EOS and (row[len(text) + 1 :] == PAD).all() and (row > BOS).any()
    assert (source.train.arrays["target_ids"][:, 0] == BOS).all()


def test_bpe_is_the_default_and_no_larger_than_the_text_gives(tmp_path):
    source = open_source(save(tmp_path, lines()))
    tokenizer = Tokenizer.from_json(source.info.tokenizer)
    assert tokenizer.kind == "bpe" and 260 < tokenizer.vocab_size < 1000
    assert sorted(texts(source, "train"))[0][0].startswith("source text")


def test_long_pairs_are_left_out(tmp_path):
    name = save(tmp_path, [*lines(), "a\t" + "x" * 50, "y" * 60 + "\tb"])
    source = open_source(name, tokenizer="char", max_length=40)
    assert source.info.max_length == 40
    assert sum(map(len, (source.train, source.validation, source.test))) == 200
    assert sum("of more than 40 tokens" in note for note in source.notes) in (1, 2)
    again = open_source(name, max_length=7, info=source.info)
    assert again.info == source.info
    np.testing.assert_array_equal(again.test.arrays["source_ids"], source.test.arrays["source_ids"])
    with pytest.raises(ValueError, match="every pair of the train part has more than 5 tokens"):
        open_source(name, tokenizer="char", max_length=5)


@pytest.mark.parametrize(
    "match,content",
    [
        ("line 2 has 1 column, not", ["a\tb", "c"]),
        ("line 1 has 3 columns, not", ["a\tb\tc", "c\td"]),
        ("line 2 has nothing, not", ["a\tb", "", "c\td"]),
        ("line 2 has an empty column", ["a\tb", " \td"]),
        ("line 1 has nothing", [""]),
        ("2 pairs are too few", ["a\tb", "c\td"]),
    ],
)
def test_bad_lines_are_named(tmp_path, match, content):
    with pytest.raises(ValueError, match=f"a.tsv: {match}") as caught:
        open_source(save(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        open_source(f"pairs:{tmp_path / 'none.tsv'}")
    with pytest.raises(ValueError, match="pairs needs a path"):
        open_source("pairs")
    name = save(tmp_path, ["na\xefve\tb"], "latin-1")
    with pytest.raises(ValueError, match="is not UTF-8 at byte 2"):
        open_source(name)
    with pytest.raises(ValueError, match="--val-split 0.5: must be below 0.5"):
        open_source(save(tmp_path, lines()), val_split=0.5)
    with pytest.raises(ValueError, match="--val-split 0: "):
        open_source(save(tmp_path, lines()), val_split=0)
    with pytest.raises(ValueError, match="--image-size applies to images only; .* has no images"):
        open_source(save(tmp_path, lines()), image_size=(8,))
    with pytest.raises(ValueError, match="--tokenizer bep: .*did you mean bpe"):
        open_source(save(tmp_path, lines()), tokenizer="bep")


def write(path, lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode(encoding))


def everything(source):
    return sorted(sum((texts(source, part) for part in ("train", "validation", "test")), []))


def pairs_of(rows, columns=(0, 1)):
    return sorted(tuple(row.split("\t")[k] for k in columns) for row in rows)


def told(source, text):
    return any(text in note for note in source.notes)


@pytest.mark.parametrize(
    "names",
    [
        "train.tsv valid.tsv test.tsv",
        "Train.tsv Dev.tsv TEST.tsv",
        "en-de.training.txt en-de.validation.txt en-de.testing.txt",
        "train/a.tsv val/b.tsv test/c.tsv",
        "phrases/train.tsv phrases/valid.tsv phrases/test.tsv",
    ],
)
def test_parts_in_a_folder(tmp_path, names):
    rows, part_of = lines(), {}
    for name, part in zip(names.split(), ("train", "validation", "test"), strict=True):
        part_of[part] = rows[: len(part) * 4]
        write(tmp_path / name, part_of[part])
    (tmp_path / "README.md").write_text("about")
    source = open_source(f"pairs:{tmp_path}", tokenizer="char")
    for part, some in part_of.items():
        assert texts(source, part) == [tuple(row.split("\t")) for row in some]
    assert told(source, "left out 1 files of other types (1 .md), the first README.md")


def test_missing_parts_and_other_tables_of_a_folder(tmp_path):
    write(tmp_path / "train.tsv", lines())
    write(tmp_path / "test.tsv", ["a\tb"] * 3)
    write(tmp_path / "more.tsv", ["a\tb"])
    source = open_source(f"pairs:{tmp_path}", tokenizer="char")
    assert len(source.test) == 3 and len(source.train) + len(source.validation) == 200
    assert told(source, "left out 1 files beside the parts, the first more.tsv")
    assert told(source, "training pairs, by a hash of the source")
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(ValueError, match="must hold one table .* but holds more.tsv, train.tsv"):
        open_source(f"pairs:{tmp_path}")
    (tmp_path / "more.tsv").unlink()
    assert told(open_source(f"pairs:{tmp_path}", tokenizer="char"), "read from train.tsv")
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(ValueError, match="but holds none"):
        open_source(f"pairs:{tmp_path}")


def test_two_files_per_part(tmp_path):
    rows = [row.split("\t") for row in lines(60)]
    for part, some in (("train", rows[:40]), ("val", rows[40:50]), ("test", rows[50:])):
        write(tmp_path / f"{part}.en", [a for a, _ in some])
        write(tmp_path / f"{part}.de", [b for _, b in some])
    source = open_source(f"pairs:{tmp_path}", tokenizer="char")
    assert texts(source, "test") == [(b, a) for a, b in rows[50:]]
    assert told(source, "source *.de, target *.en; --columns en de exchanges them")
    source = open_source(f"pairs:{tmp_path}", tokenizer="char", columns=("en", "de"))
    assert texts(source, "train") == [tuple(row) for row in rows[:40]]
    with pytest.raises(ValueError, match="the sides de, en; --columns must name two"):
        open_source(f"pairs:{tmp_path}", columns=("en", "fr"))
    write(tmp_path / "test.de", ["a"])
    with pytest.raises(ValueError, match="test.de and test.en have 1 and 10 lines"):
        open_source(f"pairs:{tmp_path}")


HEADED = [f"text {i % 150}\tTarget {i}\tby me" for i in range(200)]


@pytest.mark.parametrize(
    ("header", "columns", "chosen"),
    [
        (None, ("1", "2"), (0, 1)),
        (None, ("2", "1"), (1, 0)),
        ("source\ttarget\tattribution", (), (0, 1)),
        ("Target\tSource\tby", (), (1, 0)),
        ("en\tde\tid", (), (0, 1)),
        ("French\tGerman\tid", (), (0, 1)),
        ("left\tright\tby", ("left", "right"), (0, 1)),
        ("left\tright\tby", ("RIGHT", "left"), (1, 0)),
        ("en\tde\tfr", ("de", "3"), (1, 2)),
        ("source\ttarget\tby", ("2", "1"), (1, 0)),
    ],
)
def test_columns_of_a_table(tmp_path, header, columns, chosen):
    rows = HEADED if header is None else [header, *HEADED]
    source = open_source(save(tmp_path, rows), tokenizer="char", columns=columns)
    assert everything(source) == pairs_of(HEADED, chosen)
    assert told(source, "columns: source ")


def test_a_header_of_two_columns_is_left_out_and_told(tmp_path):
    for header in ("source\ttarget", "en\tde", "English\tGerman", "input\toutput"):
        source = open_source(save(tmp_path, [header, *lines()]), tokenizer="char")
        assert everything(source) == pairs_of(lines())
        assert told(source, f"columns: source {header.split()[0]}, target {header.split()[1]}")
    source = open_source(save(tmp_path, ["the source\tthe target", *lines()]), tokenizer="char")
    assert len(everything(source)) == 201


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_with_quotes(tmp_path, delimiter):
    rows = [('say, "hi"; now', "Sag\t'hi'"), *(("two\nlines", f"b {i}") for i in range(9))]
    rows += [(f"a {i}", f"b, {i}") for i in range(100)]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("source", "target"), *rows])
    source = open_source(f"pairs:{tmp_path / 'a.csv'}", tokenizer="byte")
    assert everything(source) == sorted(rows)
    (tmp_path / "a.csv").write_text('source,target\n"a" b,c\n')
    with pytest.raises(ValueError, match="line 2 of a.csv is no line of a table"):
        open_source(f"pairs:{tmp_path / 'a.csv'}")
    quotes = ['"Quoted" is he\t"a', *lines()]  # no quotes in a table with tabs
    source = open_source(save(tmp_path, quotes), tokenizer="byte")
    assert everything(source) == pairs_of(quotes)


def test_bad_lines_are_counted_and_may_be_left_out(tmp_path):
    rows = [*lines(), "a\tb\tc", "", "x\t ", "one"]
    name = save(tmp_path, [*rows, "z\tz"])
    with pytest.raises(
        ValueError,
        match="line 201 has 3 columns, .*; 4 of 205 lines cannot be used; --skip-bad-files",
    ):
        open_source(name)
    source = open_source(name, tokenizer="char", skip_bad_files=True)
    assert everything(source) == pairs_of([*lines(), "z\tz"])
    assert told(source, "left out 4 of 205 lines: line 201 has 3 columns, not a source, a tab")
    with pytest.raises(ValueError, match="3 columns, .*200 of 200 .*--columns 1 2 reads the first"):
        open_source(save(tmp_path, HEADED), skip_bad_files=True)
    name = save(tmp_path, [*HEADED, "a\tb"])
    with pytest.raises(ValueError, match="line 201 has 2 columns, not 3; --skip-bad"):
        open_source(name, columns=("1", "2"))


def test_columns_that_are_refused(tmp_path):
    for given, match in [
        (("1",), "--columns 1: must be two"),
        (("1", "9"), "has 3 columns"),
        (("0", "1"), "--columns 0: .* has the columns text 0, Target 0, by me, or 1 to 3"),
        (("sauce", "target"), "--columns sauce: "),
        (("2", "2"), "names a column twice"),
    ]:
        with pytest.raises(ValueError, match=match):
            open_source(save(tmp_path, HEADED), columns=given)
    with pytest.raises(ValueError, match="has 2 columns"):
        open_source(save(tmp_path, ["en\tde", *lines()]), columns=("en", "7"))
    with pytest.raises(ValueError, match="no lines below its header"):
        open_source(save(tmp_path, ["en\tde"]))


def test_damaged_pairs(tmp_path):
    def make(folder):
        for part, n in (("train", 60), ("valid", 9), ("test", 9)):
            write(folder / f"{part}.tsv", ["en\tde", *lines(n)])

    fuzz(tmp_path, make, "pairs:{}", 80, tokenizer="byte", skip_bad_files=True)


def test_windows_line_ends(tmp_path):
    name = save(tmp_path, [line + "\r" for line in lines()] + [""])
    assert all("\r" not in b for _, b in texts(open_source(name, tokenizer="char"), "train"))


@pytest.fixture
def translations(tmp_path):
    """A tiny data set of TFDS, on disk: source in German, target in English."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class TinyTranslate(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="de-en")]

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.Translation(languages=("de", "en")),
                supervised_keys=("de", "en"),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(90), "validation": self._generate_examples(9)}

        def _generate_examples(self, n):
            for i in range(n):
                yield i, {"de": f"Straße {i}", "en": f"{i} street"}

    builder = TinyTranslate(data_dir=str(tmp_path), config="de-en")
    builder.download_and_prepare()
    return builder


def test_tfds_translation(translations, tmp_path):
    name = "tfds:tiny_translate/de-en"
    source = open_source(name, data_dir=str(tmp_path), task=Translate, tokenizer="char")
    assert sorted(texts(source, "test")) == sorted((f"Straße {i}", f"{i} street") for i in range(9))
    assert len(source.train) + len(source.validation) == 90 and 2 < len(source.validation) < 20
    assert len(source.notes) >= 2
    same = open_source(name, data_dir=str(tmp_path), tokenizer="char")  # no task says otherwise
    assert texts(same, "test") == texts(source, "test")

    output = (
        r"has source_ids \(tokens\) and target_ids \(tokens\) or token_ids \(tokens\), but the "
        "model's task needs image and label, as in digits, "
    )
    with pytest.raises(ValueError, match=output):
        open_source(name, data_dir=str(tmp_path), task=Classify)
