"""`csv:`: tables as people write them, and what is wrong with some."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from kerasdl.data import augment, fingerprint
from kerasdl.data.reading import readable
from kerasdl.data.sources import folder, open_source
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.ops.text import BOS, EOS
from kerasdl.tasks.contrast_texts import ContrastTexts
from tests.data.shared import Labeled, Unlabeled, bounded, lengths, noted


@pytest.fixture
def table(tmp_path):
    """`write(rows)` writes a table beside twelve images `i/0.png`, and gives the data set's name;
    without rows, they are those of a valid one."""
    (tmp_path / "i").mkdir()
    for i in range(12):
        Image.new("RGB", (5, 6), (20 * i, 3, 4)).save(tmp_path / "i" / f"{i}.png")

    def write(*rows, header="path,label", name="t.csv"):
        rows = rows or [f"i/{i}.png,{'dog' if i % 2 else 'cat'}" for i in range(12)]
        data = "\n".join([header, *rows])
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return f"csv:{tmp_path / name}"

    return write


def rows(labels, form="i/{i}.png,{label}"):
    return [form.format(i=i, label=label) for i, label in enumerate(labels)]


def refused(match, name, task=Labeled, **more):
    with pytest.raises(UserError, match=match) as caught:
        open_source(name, task=task, **more)
    assert "\n" not in str(caught.value)


def labels_of(source):
    """`{number of the image: class name}`, by the pixels."""
    result = {}
    for part in (source.train, source.validation, source.test):
        for image, label in zip(part.arrays["image"], part.arrays["label"], strict=True):
            result[int(image[0, 0, 0]) // 20] = source.info.class_names[label]
    return result


def said(source):
    """`{number of the image: caption}`, by the pixels."""
    tokenizer, result = Tokenizer.from_json(source.info.tokenizer), {}
    for part in source.parts.values():
        rows = part.read(range(len(part)))
        for image, ids in zip(rows["image"], rows["caption_ids"], strict=True):
            assert ids[0] == BOS and EOS in ids
            result[int(image[0, 0, 0]) // 20] = tokenizer.decode(ids[1:])
    return result


@pytest.mark.parametrize("memory", [folder.MEMORY_BYTES, 0])  # decoded at once, or when needed
def test_captions(table, monkeypatch, memory):
    monkeypatch.setattr(folder, "MEMORY_BYTES", memory)
    lines = [f'i/{i}.png,{"b" if i % 2 else "a"},"a dog, {i}"' for i in range(12)]
    name = table(*lines, "i/3.png,b,another", header="file,label,text")
    source = open_source(name, task=ContrastTexts, val_split=0.25)
    assert said(source) == {i: f"a dog, {i}" for i in range(12)}
    assert noted(source, "columns: path file, caption text, label label")
    assert noted(source, "left out 1 captions: of each file the first is read")
    rows = source.test.read([0, 2])
    assert set(rows) == {"image", "label", "caption_ids"}
    before = fingerprint.of_source(source)
    again = open_source(name, task=ContrastTexts, val_split=0.25, info=source.info)
    assert again.info == source.info and fingerprint.of_source(again) == before
    changed = table(*[lines[0].replace("dog", "cat"), *lines[1:]], header="file,label,text")
    other = open_source(changed, task=ContrastTexts, val_split=0.25)
    with pytest.raises(UserError, match="1 file labeled otherwise, the first i/0.png, a dog"):
        fingerprint.check(before, fingerprint.of_source(other), changed)
    flipped = augment.Augment(("flip", "resized_crop"))
    split = flipped.on_files(source.train)[0]
    assert len(split) == 6 and "caption_ids" in split.columns()


def test_captions_by_the_numbers_of_their_columns_and_without_labels(table):
    lines = [f"x,i/{i}.png,dog {i}" for i in range(12)]
    name = table(*lines, header="a,b,c")
    source = open_source(name, task=ContrastTexts, columns=("2", "c"), max_length=4)
    assert list(source.info.columns) == ["image", "caption_ids"]
    assert source.train.arrays["caption_ids"].shape[1] == 4
    assert all(text.startswith("dog") for text in said(source).values())
    refused("no column is called caption, captions, text", table(), task=ContrastTexts)
    name = table("i/0.png,", "i/1.png,a dog", header="path,caption")
    refused("have no caption", name, task=ContrastTexts)
    refused("must be path, caption, label and split", name, ContrastTexts, columns=[*"12345"])
    assert open_source(
        table(
            "i/0.png,a,x", "i/1.png,b,y", "i/2.png,a,z", "i/3.png,b,w", header="path,label,caption"
        ),
        task=Labeled,
        val_split=0.25,
    )


def test_a_table(table):
    source = open_source(table(), task=Labeled, val_split=0.25)
    assert lengths(source) == (6, 3, 3) and source.info.class_names == ("cat", "dog")
    assert labels_of(source) == {i: "dog" if i % 2 else "cat" for i in range(12)}
    assert noted(source, "columns: path path, label label")
    found = {rel for part in source.files.values() for rel in part}
    assert found == {f"i/{i}.png" for i in range(12)}
    path, label = source.files["train"][next(iter(source.files["train"]))]
    assert os.path.isfile(path) and os.path.isabs(path) and label in ("cat", "dog")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_marks_and_quotes(table, tmp_path, delimiter, encoding):
    name = table()
    lines = [delimiter.join(["Width", "File", " Category "])]
    label = f'"a{delimiter} ""b"""'
    lines += [delimiter.join(["3", f"i/{i}.png", label if i % 2 else "é"]) for i in range(12)]
    (tmp_path / "t.csv").write_bytes("\r\n".join([*lines, "", ""]).encode(encoding))
    source = open_source(name, task=Labeled)
    assert source.info.class_names == (readable(f'a{delimiter} "b"'), "é")
    assert noted(source, "path File", "label Category", "not read: Width")


def test_whole_numbers_are_sorted_by_value(table):
    name = table(*rows(["10", "9", "2"] * 4))
    source = open_source(name, task=Labeled)
    assert source.info.class_names == ("2", "9", "10") and labels_of(source)[0] == "10"
    assert open_source(table(*rows(["1.0", "0.0"] * 6)), task=Labeled).info.class_names == (
        "0",
        "1",
    )
    source = open_source(table(*rows(["c10", "c9"] * 6)), task=Labeled)
    assert source.info.class_names == ("c9", "c10")
    assert noted(open_source(table(*rows(["1", "01", "2"] * 4))), "are one class")


def test_a_column_of_parts(table):
    parts = ["Training"] * 6 + ["VAL"] * 4 + ["test"] * 2
    lines = [f"i/{i}.png,{'ab'[i % 2]},{part}" for i, part in enumerate(parts)]
    source = open_source(table(*lines, header="image,label,split"), task=Labeled)
    assert lengths(source) == (6, 4, 2)
    assert set(source.files["test"]) == {"i/10.png", "i/11.png"}
    lines[3] = "i/3.png,b,holdout"
    refused("line 5: i/3.png.*--skip", table(*lines, header="image,label,split"))
    lines = [line.replace("Training", "dev") for line in lines[:3]]
    refused("no row is of the training part", table(*lines, header="image,label,split"))


def test_an_earlier_division_stays(table):
    first = open_source(table(*rows("ab" * 5)))
    division = {rel: part for part, found in first.files.items() for rel in found}
    again = open_source(table(*rows("ab" * 6)), division=division)
    assert again.files["test"].keys() == first.files["test"].keys()
    assert set(again.files["train"]) >= {"i/10.png", "i/11.png"}
    assert noted(again, "2 files are new")


def test_columns_by_name_and_number(table):
    name = table(*rows("ab" * 6, "{label},x,i/{i}.png"), header="kind,note,where")
    refused("no column is called path, file, .*it has kind, note, where; --columns", name)
    for columns in (("where", "kind"), ("WHERE", "1"), ("3", "kind")):
        source = open_source(name, task=Labeled, columns=columns)
        assert source.info.class_names == ("a", "b")
    assert "label" not in open_source(name, task=Unlabeled, columns=("where",)).info.columns
    refused("--columns whre: .* has the columns kind, note, where, or 1 to 3", name,
            columns=("whre",))  # fmt: skip
    refused("names a column twice", name, columns=("where", "3"))
    refused("the model's task needs labels, and no column is called label", name,
            columns=("where",))  # fmt: skip


def test_columns_of_no_table(tmp_path):
    refused("--columns applies to csv and pairs only; digits is no table", "digits", columns=("1",))


def test_without_labels(table):
    name = table(*[f"i/{i}.png" for i in range(12)], header="file")
    source = open_source(name, task=Unlabeled)
    assert list(source.info.columns) == ["image"] and sum(lengths(source)) == 12
    refused("needs labels", name)
    refused("one class, a, but", table(*rows("a" * 12)))


@pytest.mark.parametrize(
    "change, match",
    [
        ({2: "i/none.png,cat"}, r"1 name files that do not exist \(line 4: i/none.png\)"),
        ({2: "i/2.png,", 5: "i/5.png, "}, r"2 have no label \(lines 4, 7: i/2.png\)"),
        ({2: ",cat"}, r"1 have no path \(line 4: no path\)"),
        ({2: "i/1.png,dog"}, r"1 repeat an earlier row \(line 4: i/1.png\)"),
        ({2: "./i/1.png,cat"}, r"2 give one file several labels or parts \(lines 3, 4: i/1.png\)"),
        ({2: "i/2.png,cat,dog"}, r"1 have another number of columns than the header \(line 4"),
        ({2: "i/2.png"}, r"1 have another number of columns than the header \(line 4"),
        ({2: "i,cat"}, r"1 name files that do not exist"),
        ({2: "i/2.png,cat", 3: "i/\0.png,dog"}, r"1 have a path that no file can have"),
    ],
)
def test_rows_that_cannot_be_used(table, change, match):
    lines = rows(["cat", "dog"] * 6)
    for i, line in change.items():
        lines[i] = line
    refused(match, table(*lines))
    source = open_source(table(*lines), task=Labeled, skip_bad_files=True)
    assert noted(source, "left out") and noted(source, match.split(r" \(")[0])
    assert sum(lengths(source)) == 12 - int(next(n for n in source.notes if "left" in n).split()[2])


def test_tables_that_are_none(table, tmp_path):
    refused("no header", table(*rows("ab" * 5), header="i/11.png,a"))
    refused("no rows below", table("", ""))
    refused("the table is empty", table("", header=""))
    refused("line 2 is no line of a table", table('i/0.png,"a', "i/1.png,b"))
    refused("two columns are called path", table(header="path,PATH"))
    refused("none of the 1 rows can be used", table("x,a"), skip_bad_files=True)
    refused("there is no file .*none.csv", f"csv:{tmp_path / 'none.csv'}")
    name = table()
    (tmp_path / "t.csv").write_bytes(b"path,label\ni/0.png,\xe9\n")
    refused("is not UTF-8 at byte 19", name)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfep")
    refused("is not UTF-16", name)


def test_unreadable_images_of_a_table(table, tmp_path):
    name = table()
    (tmp_path / "i" / "3.png").write_bytes(b"x")
    refused("1 of 12 images cannot be read, the first is .*i/3.png", name)
    assert sum(lengths(open_source(name, skip_bad_files=True))) == 11


def test_on_demand_equals_memory(table, monkeypatch):
    memory = open_source(table())
    monkeypatch.setattr(folder, "MEMORY_BYTES", 10)
    files = open_source(table())
    assert files.train.arrays is None
    a, b = (s.train.read([0, 1]) for s in (memory, files))
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_array_equal(a["image"], b["image"])


def damage(path, rng):
    """One random change of a table or of its images."""
    table = path / "t.csv"
    data = bytearray(table.read_bytes())
    file = path / "i" / f"{rng.integers(12)}.png"
    kind = ["flip", "cut", "swap", "doubled", "image", "rename", "link", "bytes"][rng.integers(8)]
    if kind == "flip":
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == "cut":
        data = data[: rng.integers(len(data))]
    elif kind == "swap":
        lines = data.split(b"\n")
        i, j = rng.integers(len(lines), size=2)
        lines[i], lines[j] = lines[j], lines[i]
        data = b"\n".join(lines)
    elif kind == "doubled":
        data += b"\n" + data.split(b"\n")[-1]
    elif kind == "image":
        file.write_bytes(file.read_bytes()[: rng.integers(80)] if file.is_file() else b"")
    elif kind == "rename" and file.exists():
        file.rename(path / "i" / "new.png")
    elif kind == "link" and file.exists():
        file.unlink()
        file.symlink_to([path, file, path / "i" / "1.png"][rng.integers(3)])
    elif kind == "bytes":
        place = rng.integers(len(data) + 1)
        data[place:place] = [b'"', b"\0", b"\xff", b",", b"\r"][rng.integers(5)]
    table.write_bytes(data)


def test_fifty_damaged_tables(table, tmp_path):
    table()
    rng = np.random.default_rng(5)
    outcomes = []
    for number in range(50):
        path = tmp_path / str(number)
        path.mkdir()
        shutil.copy(tmp_path / "t.csv", path)
        shutil.copytree(tmp_path / "i", path / "i")
        for _ in range(rng.integers(1, 3)):
            damage(path, rng)
        try:
            with bounded():
                source = open_source(
                    f"csv:{path / 't.csv'}", task=Labeled, skip_bad_files=bool(number % 2)
                )
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.append("refused")
            continue
        outcomes.append("read")
        text = (path / "t.csv").read_bytes().decode("utf-8-sig")
        for part in ("train", "validation", "test"):
            images = getattr(source, part).arrays["image"]
            for image, (rel, (file, name)) in zip(images, source.files[part].items(), strict=True):
                assert rel in text and name in text
                np.testing.assert_array_equal(image, np.asarray(Image.open(file).convert("RGB")))
    assert {"refused", "read"} == set(outcomes)
