"""`pairs:FILE_OR_FOLDER` and translation sets of TFDS."""

import numpy as np
import pytest

from kerasdl.data.sources import open_source
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.ops.text import BOS, EOS, PAD
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.translate import Translate


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
