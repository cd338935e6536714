"""What a data set holds is shown: classes by part, what is missing, copies, blank images."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasdl import cli
from kerasdl.columns import PARTS
from kerasdl.data import examine, summary
from kerasdl.data.sources import open_source
from tests.data.objects import write_coco
from tests.data.test_sources import save_images, save_npz, xy


def test_classes_by_part_and_columns():
    result = summary.of_source(open_source("digits"))
    assert list(result["classes"]) == list("0123456789")
    assert sum(of_part["test"] for of_part in result["classes"].values()) == 360
    assert result["columns"]["image"] == {"kind": "image", "shape": [8, 8, 1]}
    line = summary.line(result)
    assert line.startswith("10 classes (training/validation/test examples): 0 (")


def test_objects_by_part(tmp_path, capsys):
    path, content = write_coco(tmp_path / "coco")
    content["annotations"][0]["iscrowd"] = 1
    content["categories"].append({"id": 9, "name": "fox"})
    path.write_text(json.dumps(content))
    found = [one["category_id"] for one in content["annotations"][1:]]
    name, picture = f"coco:{tmp_path / 'coco'}", str(tmp_path / "shown.png")
    given = ["data", "--dataset", name, "--image-size", "32", "--val-split", "0.2"]
    cli.main([*given, "--picture", picture, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert not result["classes"] and list(result["objects"]) == ["dog", "cat", "fox"]
    for class_name, number in (("dog", 3), ("cat", 7), ("fox", 9)):
        assert sum(result["objects"][class_name].values()) == found.count(number)
    assert "class fox: no object" in result["notes"]
    assert result["smallest"][0]["file"].startswith("images/0")
    line = summary.line(result)
    assert line.startswith("3 classes (training/validation/test objects): dog (")
    cli.main([*given, "--picture", picture])
    shown = capsys.readouterr().out.splitlines()
    head = next(i for i, row in enumerate(shown) if row.split()[:2] == ["objects", "train"])
    assert [row.split()[0] for row in shown[head + 1 : head + 4]] == ["dog", "cat", "fox"]
    assert any(row.startswith("boxes: boxes") for row in shown)


def test_many_classes_are_counted():
    counts = {str(k): {part: k for part in PARTS} for k in range(31)}
    line = summary.line({"classes": counts})
    assert line.startswith("31 classes") and line.endswith("9 (9/9/9), and 21 more")


def test_classes_without_examples_are_named(tmp_path):
    x, y = xy(40)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:3], "y_test": y[:3]}
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    source = open_source(save_npz(tmp_path, **arrays, class_names=names))
    assert "class elk: no example" in source.notes
    assert "class dog: no example in the test part" in source.notes


@pytest.fixture
def pets(tmp_path):
    """Parts that share a picture, and one of a single color."""
    folder = tmp_path / "pets"
    for part in ("train", "val", "test"):
        save_images(folder / part, n=6)
        for path in (folder / part).rglob("*.png"):  # all parts had the same
            with Image.open(path) as opened:
                image = np.array(opened)
            image[0, 0] = {"train": 1, "val": 2, "test": 3}[part]
            Image.fromarray(image).save(path)
    (folder / "test" / "dog" / "000.png").write_bytes(
        (folder / "train" / "dog" / "003.png").read_bytes()
    )
    Image.new("RGB", (5, 6), "red").save(folder / "train" / "cat" / "002.png")
    return f"folder:{folder}"


def test_copies_and_blank_images(pets):
    result = examine.examine(open_source(pets))
    copies = [["train: train/dog/003.png", "test: test/dog/000.png"]]
    assert result["duplicates"] == {"count": 1, "examples": copies}
    assert result["constant"] == {"count": 1, "examples": ["train: train/cat/002.png"]}
    assert result["looked_at"] == 36
    assert result["smallest"][0]["file"] == "train/cat/002.png"


def test_copies_of_arrays(tmp_path):
    x, y = xy(30)
    x[7] = 9
    arrays = {"x_train": x, "y_train": y, "x_test": x[[4, 7]], "y_test": y[[4, 7]]}
    name = save_npz(tmp_path, **arrays, x_val=x[:3] ^ 1, y_val=y[:3])
    result = examine.examine(open_source(name))
    assert result["duplicates"]["examples"] == [["train/4", "test/0"], ["train/7", "test/1"]]
    assert result["constant"]["examples"] == ["train/7", "test/1"]


def test_the_command(pets, tmp_path, capsys):
    picture = tmp_path / "grid.png"
    words = ["data", "--dataset", pets, "--picture", str(picture)]
    assert cli.main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["classes"]["cat"] == {"train": 6, "validation": 6, "test": 6}
    assert result["columns"]["label"] == {"kind": "label", "shape": []}
    assert result["notes"] == [] and result["rows"] == ["cat", "dog"]
    with Image.open(picture) as image:
        assert image.size == (8 * (5 * 6 + 2), 2 * (6 * 6 + 2))
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "cat    6      6           6" in text
    assert "1 of the examples stand in more than one part:" in text


def test_the_command_shows_images_of_several_sizes(tmp_path, capsys):
    save_images(tmp_path / "pets", ("cat",), size=(9, 9))
    name = save_images(tmp_path / "pets", ("dog",))
    words = ["data", "--dataset", name, "--picture", str(tmp_path / "grid.png"), "--json"]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["columns"]["image"]["shape"] == [64, 64, 3]
    assert "images differ in size" in result["notes"][0] and "64 x 64" in result["notes"][0]


def test_the_command_reads_texts(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("to be or not to be " * 500)
    assert cli.main(["data", "--dataset", f"text:{tmp_path / 'book.txt'}"]) == 0
    assert "token_ids: tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, line",
    [
        (["--dataset", "folder:nowhere"], "there is no folder nowhere"),
        (["--dataset", "digits", "--picture", "grid.jpg"], "--picture grid.jpg: must end in .png"),
        (["--dataset", "digits", "--model", "resnet2"], "resnet32"),
        ([], "--dataset"),
    ],
)
def test_bad_input_is_one_line(words, line, capsys):
    assert cli.main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
