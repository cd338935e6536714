"""Tables of pairs as people have them: parts, headers, further columns, quotes, bad lines."""

import csv

import numpy as np
import pytest

from kerasdl import cli
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe, from_dict, to_dict
from tests.data.damage import contents, damaged
from tests.data.shared import bounded, noted
from tests.data.test_pairs import lines, texts

PARTS = ("train", "validation", "test")
PAIRS = [tuple(line.split("\t")) for line in lines()]


def opened(path, tokenizer="char", **settings):
    return open_source(f"pairs:{path}", tokenizer=tokenizer, **settings)


def refused(match, path, **settings):
    with pytest.raises(ValueError, match=match) as caught:
        opened(path, **settings)
    assert "\n" not in str(caught.value)


def write(path, rows, delimiter="\t", quoted=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        if quoted:
            csv.writer(file, delimiter=delimiter).writerows(rows)
        else:
            file.writelines(delimiter.join(row) + "\n" for row in rows)
    return path


def every(source):
    return sorted(pair for part in PARTS for pair in texts(source, part))


@pytest.mark.parametrize(
    "names",
    [
        ("train.tsv", "valid.tsv", "test.tsv"),
        ("TRAIN.TSV", "dev.tsv", "Testing.tsv"),
        ("training/a.tsv", "Val/b.tsv", "test/c.tsv"),
        ("deu-eng/deu.train.csv", "deu-eng/deu.validation.csv", "deu-eng/deu.test.csv"),
        ("train.txt", "val.txt", "test.txt"),
    ],
)
def test_parts_of_a_folder(tmp_path, names):
    cut = {"train": PAIRS[:150], "validation": PAIRS[150:180], "test": PAIRS[180:]}
    for name, rows in zip(names, cut.values(), strict=True):
        write(tmp_path / name, rows, "," if name.endswith("csv") else "\t")
    source = opened(tmp_path)
    assert {part: texts(source, part) for part in PARTS} == cut
    assert noted(source, "parts by name: train ") and not noted(source, "part: 10%")


def test_missing_parts_are_divided_by_source(tmp_path):
    write(tmp_path / "train.tsv", PAIRS[:180])
    write(tmp_path / "test.tsv", PAIRS[180:])
    (tmp_path / "about.md").write_text("no table")
    source = opened(tmp_path)
    assert texts(source, "test") == PAIRS[180:]
    parts = [texts(source, part) for part in ("train", "validation")]
    assert sorted(sum(parts, [])) == sorted(PAIRS[:180]) and 5 < len(parts[1]) < 40
    assert not {a for a, _ in parts[0]} & {a for a, _ in parts[1]}
    assert noted(source, "validation part: 10% of the training pairs")
    assert noted(source, "left out 1 files of other types (1 .md), the first about.md")
    (tmp_path / "test.tsv").rename(tmp_path / "more.tsv")
    (tmp_path / "train.tsv").rename(tmp_path / "some.tsv")
    both = opened(tmp_path)
    one = opened(write(tmp_path / "one" / "a.tsv", [*PAIRS[180:], *PAIRS[:180]]))
    for part in PARTS:
        assert sorted(texts(both, part)) == sorted(texts(one, part))


def test_folders_without_tables(tmp_path):
    (tmp_path / "train.en").write_text("a\n")
    (tmp_path / "train.xml").write_text("b\n")
    refused(r"holds no tables \(.tsv, .csv or .txt\); left out 2 files .*1 .xml", tmp_path)
    refused("there is no file or folder", tmp_path / "none")
    write(tmp_path / "train.tsv", PAIRS)
    (tmp_path / "test.tsv").write_text("x\n")
    refused("test.tsv: line 1 has 1 column, not a source, a tab", tmp_path)
    refused(
        "the test part holds no pairs; left out 1 of 201 lines, the first: test.tsv: line 1",
        tmp_path,
        skip_bad_files=True,
    )


@pytest.mark.parametrize("name", ["tatoeba.tsv", "tatoeba.txt", "tatoeba.csv"])
def test_a_third_column_is_refused_or_left_by_its_number(tmp_path, name):
    rows = [(*pair, f"CC-BY 2.0, no. {i}") for i, pair in enumerate(PAIRS)]
    path = write(tmp_path / name, rows, "," if name.endswith("csv") else "\t", quoted=True)
    line = (
        "line 1 has 3 columns, not a source and a target: source text 0, Target 0, CC-BY 2.0, no. "
        "0; --columns SOURCE TARGET says which two are read, by number, from 1"
    )
    refused(line, path)
    assert every(opened(path, columns=("1", "2"))) == sorted(PAIRS)
    assert every(opened(path, columns=("2", "1"))) == sorted((b, a) for a, b in PAIRS)
    refused("--columns 4: .*the first line has source text 0, .*, or 1 to 3", path,
            columns=("1", "4"))  # fmt: skip
    refused("--columns 0: .*or 1 to 3", path, columns=("0", "1"))
    refused("--columns en: .*or 1 to 3", path, columns=("en", "2"))
    refused("--columns 1: must be two for pairs", path, columns=("1",))
    refused("--columns 2 2: names a column twice", path, columns=("2", "2"))
    refused("--columns 99999999999999999999: ", path, columns=("1", "9" * 20))


def test_columns_by_name_and_the_header_is_left_out(tmp_path):
    rows = [("id", "German", "note", "en")] + [(str(i), b, "", a) for i, (a, b) in enumerate(PAIRS)]
    path = write(tmp_path / "a.tsv", rows)
    refused("has 4 columns, .*id, German, note, en; --columns SOURCE TARGET", path)
    for columns in (("en", "German"), ("EN", "2"), ("4", "2")):
        source = opened(path, columns=columns)
        assert every(source) == sorted(PAIRS)
        assert noted(source, "line 1 is left out as a header: id, German, note, en")
    refused("--columns fr: .*the first line has id, German, note, en, or 1 to 4", path,
            columns=("en", "fr"))  # fmt: skip


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        (("source", "target"), True),
        (("en", "de"), True),
        (("English", "French"), True),
        (("English words/sentences", "French words/sentences"), True),
        (("en-US", "pt_BR"), True),
        (("src_text", "tgt_text"), True),
        (("text", "words"), False),
        (("en", "en"), False),
        (("Go.", "Va !"), False),
        (("house", "de"), False),
    ],
)
def test_headers(tmp_path, first, is_header):
    source = opened(write(tmp_path / "a.tsv", [first, *PAIRS]))
    assert every(source) == sorted(PAIRS if is_header else [first, *PAIRS])
    line = f"line 1 is left out as a header: {', '.join(first)}"
    assert noted(source, line) == is_header


def test_headers_of_two_files_must_agree(tmp_path):
    write(tmp_path / "train.tsv", [("en", "de"), *PAIRS])
    write(tmp_path / "test.tsv", [("de", "en"), *[(b, a) for a, b in PAIRS[:20]]])
    refused("train.tsv: the columns are en, de, but test.tsv: de, en; --columns", tmp_path)
    source = opened(tmp_path, columns=("en", "de"))
    assert sorted(texts(source, "test")) == sorted(PAIRS[:20])


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_quoted_tables(tmp_path, delimiter):
    odd = [('Yes, "no"; or', "Ja,\n nein | oder"), ("a,b;c|d", 'ein "Wort"'), ("x\ty", "z")]
    path = write(tmp_path / "a.csv", [("en", "de"), *odd, *PAIRS], delimiter, quoted=True)
    source = opened(path, tokenizer="byte")
    assert every(source) == sorted([*odd, *PAIRS])
    assert noted(source, "line 1 is left out as a header")


def test_quotes_of_other_tables_are_text(tmp_path):
    odd = [('"Yes', "Ja"), ('"a"', 'b "c"')]
    source = opened(write(tmp_path / "a.tsv", [*odd, *PAIRS]), tokenizer="byte")
    assert every(source) == sorted([*odd, *PAIRS])


def test_bad_lines_are_counted_and_left_out(tmp_path):
    rows = [*PAIRS[:100], ("stray", "tab", "here"), *PAIRS[100:], ("", "b"), ("alone",)]
    path = write(tmp_path / "a.tsv", rows)
    line = "line 101 has 3 columns, not a source, a tab and a target"
    refused(f"a.tsv: {line}; 3 of 203 lines are bad, and --skip-bad-files", path)
    source = opened(path, skip_bad_files=True)
    assert every(source) == sorted(PAIRS)
    assert noted(source, f"left out 3 of 203 lines, the first: {line}")
    write(tmp_path / "two" / "train.tsv", PAIRS)
    write(tmp_path / "two" / "test.tsv", [*PAIRS[:9], ("x",)])
    refused("two: test.tsv: line 10 has 1 column, .*; 1 of 210 lines", tmp_path / "two")
    triples = [(*pair, "c") for pair in PAIRS]
    path = write(tmp_path / "b.tsv", [*triples[:7], ("a", "b"), *triples[7:]])
    refused("line 8 has 2 columns, not 3; 1 of 201 lines", path, columns=("1", "2"))
    assert every(opened(path, columns=("1", "2"), skip_bad_files=True)) == sorted(PAIRS)


def test_bad_lines_of_quoted_tables(tmp_path):
    rows = [f"{a},{b}" for a, b in PAIRS]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([*rows[:4], '"a" b,c', "", *rows[4:]]))
    refused("line 5 is no line of a table .*; 2 of 202 lines are bad", path)
    source = opened(path, skip_bad_files=True)
    assert every(source) == sorted(PAIRS) and noted(source, "left out 2 of 202 lines")
    path.write_text("\n".join([*rows[:150], '"never closed,c', *rows[150:]]))
    source = opened(path, skip_bad_files=True)
    assert every(source) == sorted(PAIRS[:150]) and noted(source, "left out 51 of 201 lines")
    path.write_text("only one\n" * 20)
    refused("line 1 has 1 column, not a source, a comma and a target; 20 of 20", path)


def write_sides(path, names=("train", "val", "test"), endings=("en", "de")):
    rows = dict(zip(PARTS, (PAIRS[:120], PAIRS[120:160], PAIRS[160:]), strict=True))
    for name, part in zip(names, PARTS, strict=True):
        for side, ending in enumerate(endings):
            file = path / f"{name}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(row[side] + "\n" for row in rows[part]))
    return rows


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train.EN-DE", "valid.EN-DE", "TEST.EN-DE"),
        ("train/a", "dev/a", "test/a"),
        ("data/training/a.b", "data/valid/a", "data/testing/c"),
    ],
)
def test_the_sides_of_pairs_may_be_files(tmp_path, names):
    rows = write_sides(tmp_path, names)
    (tmp_path / "LICENSE").write_text("free")
    source = opened(tmp_path)
    for part in PARTS:
        assert texts(source, part) == [pair[::-1] for pair in rows[part]]
    assert noted(source, "sources are the files *.de, targets *.en")
    assert noted(source, "(1 without ending), the first LICENSE") or "data" in names[0]
    source = opened(tmp_path, columns=("en", "de"))
    assert texts(source, "test") == rows["test"]


def test_sides_that_do_not_fit_are_refused(tmp_path):
    write_sides(tmp_path)
    for given in (("en", "fr"), ("en",), ("en", "en")):
        refused("files of de, en; --columns SOURCE TARGET must name two", tmp_path, columns=given)
    (tmp_path / "test.de").write_text("one\n\n")
    refused("test.de and test.en: have 1 and 40 lines", tmp_path)
    (tmp_path / "test.de").unlink()
    refused("there is no test.de for test.\\*", tmp_path)
    write_sides(tmp_path)
    (tmp_path / "train.fr").write_text("trois")
    refused("files of de, en, fr; --columns SOURCE TARGET must name two", tmp_path)
    assert every(opened(tmp_path, columns=("en", "de"))) == sorted(PAIRS)
    lines_of = (tmp_path / "train.de").read_text().split("\n")
    (tmp_path / "train.de").write_text("\n".join(["", *lines_of[1:]]))
    refused("train.en and train.de: line 1 has an empty", tmp_path, columns=("en", "de"))
    source = opened(tmp_path, columns=("en", "de"), skip_bad_files=True)
    assert len(every(source)) == 199 and noted(source, "left out 1 of 200 lines")


def test_data_shows_chosen_columns(tmp_path, capsys):
    rows = [("id", "German", "en")] + [(str(i), b, a) for i, (a, b) in enumerate(PAIRS)]
    name = f"pairs:{write(tmp_path / 'a.tsv', rows)}"
    assert cli.main(["data", "--dataset", name, "--columns", "en", "2"]) == 0
    assert "note: line 1 is left out as a header: id, German, en" in capsys.readouterr().out
    assert cli.main(["data", "--dataset", str(tmp_path)]) == 2
    assert f"give pairs:{tmp_path}, since a path needs a prefix" in capsys.readouterr().err


def test_columns_are_a_setting():
    recipe = Recipe(columns=("en", "de"))
    assert from_dict(to_dict(recipe)) == recipe and Recipe().columns == ()


@pytest.mark.parametrize("valid", ["tsv", "csv"])
def test_damaged_tables_are_refused_or_read_right(tmp_path, valid):
    cut = {"train": PAIRS[:120], "valid": PAIRS[120:160], "test": PAIRS[160:]}
    for part, rows in cut.items():
        write(tmp_path / "whole" / f"{part}.{valid}", rows, "\t" if valid == "tsv" else ",")
    results = {"read": 0, "refused": 0}
    for seed in range(50):
        damaged(tmp_path / "whole", tmp_path / "x", seed)
        columns = ((), ("1", "2"))[seed // 2 % 2]
        try:
            with bounded():
                source = opened(tmp_path / "x", skip_bad_files=seed % 2 == 0, columns=columns)
        except UserError as error:
            assert "\n" not in str(error)
            results["refused"] += 1
            continue
        results["read"] += 1
        whole = "\n".join(contents(tmp_path / "x"))
        for part in PARTS:
            for pair in texts(source, part):
                for text in pair:
                    for piece in text.replace("\ufffd", "\n").replace('"', "\n").split("\n"):
                        assert piece.strip() in whole, (seed, pair)
        ids = np.unique(np.concatenate([source.train.arrays[k].ravel() for k in
                                        ("source_ids", "target_ids")]))  # fmt: skip
        assert len(ids) > 3
    assert results["read"] >= 10 and results["refused"] >= 10, results
