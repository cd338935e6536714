"""`voc:` as people's folders are: lists, masks, pixels from 1, and what is broken."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kerasdl import app
from kerasdl.columns import VOID
from kerasdl.data.images import Fit
from kerasdl.data.sources import open_source, voc
from kerasdl.errors import UserError
from tests.data.damage import damaged
from tests.data.objects import NAMES, Boxes, Pixels, Shapes, voc_xml, write_voc
from tests.data.shared import bounded, lengths, noted
from tests.data.test_coco import SIDE, check_pixels, rows_of


def opened(path, task=Boxes, **more):
    more = {"image_size": (SIDE, SIDE), "val_split": 0.2, "task": task} | more
    return open_source(f"voc:{path}", **more)


def refused(match, path, **more):
    with pytest.raises(UserError, match=match) as caught:
        opened(path, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fit", [Fit(), Fit("crop"), Fit("pad")])
def test_everything_lies_on_its_pixels(tmp_path, fit):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    write_voc(folder, masks=9)
    source = opened(tmp_path / "VOCdevkit", fit=fit)
    assert lengths(source) == (6, 4, 2) and noted(source, "test part: 2 of 8 training images")
    assert source.info.columns["labels"].class_names == voc.CLASS_NAMES  # of a folder VOC...
    assert check_pixels(rows_of(source), voc.CLASS_NAMES) >= 10
    shapes = opened(folder, Shapes, fit=fit)  # of the lists of `Segmentation`
    assert lengths(shapes) == (5, 3, 1)
    assert check_pixels(rows_of(shapes), voc.CLASS_NAMES) >= 8


def test_classes_of_pixels(tmp_path):
    write_voc(tmp_path / "own", masks=9)
    (tmp_path / "own" / "classes.txt").write_text("cat\ndog\nfox\n")
    source = opened(tmp_path / "own", Pixels, image_size=(64, 64))
    assert source.info.columns["mask"].class_names == ("background", "cat", "dog", "fox")
    rows = rows_of(source)
    assert (rows["mask"][:, 0, 0] == VOID).all() and set(np.unique(rows["mask"])) == {0, 1, 2, VOID}
    assert noted(source, "left out 3 images of no part")
    (tmp_path / "own" / "classes.txt").write_text("cat\n")
    for path in (tmp_path / "own" / "Annotations").iterdir():
        path.write_text(path.read_text().replace("dog", "cat"))
    refused(
        "images cannot be used: .* have a mask of classes above 1", tmp_path / "own", task=Pixels
    )
    refused(
        "no masks: no folder segmentationobject",
        _without(tmp_path / "own", "SegmentationObject"),
        task=Shapes,
    )


def _without(folder, name):
    shutil.rmtree(folder / name)
    return folder


def test_images_without_masks_are_left_out_where_they_are_needed(tmp_path):
    write_voc(tmp_path, masks=9)
    shutil.rmtree(tmp_path / "ImageSets" / "Segmentation")  # those of Main are then taken
    source = opened(tmp_path, Pixels)
    assert sum(lengths(source)) == 9
    assert noted(source, "left out 3 images without a mask in segmentationclass")
    assert sum(lengths(opened(tmp_path, None))) == 12
    assert "mask" not in opened(tmp_path, None).info.columns


def test_lists(tmp_path):
    write_voc(tmp_path, lists=False)
    source = opened(tmp_path)
    assert lengths(source) == (8, 2, 2) and not noted(source, "no part")
    assert source.info.columns["labels"].class_names == NAMES  # those that occur
    main = tmp_path / "ImageSets" / "Main"
    (main / "trainval.txt").write_text("".join(f"{i:03}  1\n" for i in range(9)))
    (main / "test.txt").write_text("009\r\n010\r\n011\r\n")
    assert lengths(opened(tmp_path)) == (7, 2, 3)
    (main / "train.txt").write_text("000\n001\n002\n001\n")
    (main / "val.txt").write_text("003\n004\n000\n")
    source = opened(tmp_path)
    assert lengths(source) == (3, 2, 3)
    assert noted(source, "left out 1 images of the validation part that another has")
    assert noted(source, "left out 4 images of no part, the first JPEGImages/005.png")
    (main / "val.txt").write_text("003\nmore\n")
    refused("1 of 8 images cannot be used: 1 are not there, the first more", tmp_path)
    (main / "train.txt").unlink()
    (main / "trainval.txt").unlink()
    refused("lists no training part, but", tmp_path)


def test_pixels_are_counted_from_one(tmp_path):
    write_voc(tmp_path, n=6, lists=False)
    text = voc_xml("000.png", (40, 60), [(0, 0, 0, 40, 60)])
    assert "<xmin>1</xmin>" in text and "<xmax>60</xmax>" in text
    (tmp_path / "Annotations" / "000.xml").write_text(text)
    source = opened(tmp_path)
    rows = rows_of(source)
    whole = (rows["boxes"] == [0, 0, 1, 1]).all(-1) & rows["valid"]
    assert whole.sum() == 1 and not noted(source, "clipped")


def replaced(old, new):
    return lambda text: text.replace(old, new)


OBJECT = (
    "<object><name>cat</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def with_object(*box, more=""):
    return replaced("</annotation>", OBJECT.format(more, *box) + "</annotation>")


NOTED = {
    "outside": (with_object(-5, 2, 9, 12), "1 boxes that reach beyond their images are clipped", 1),
    "beyond": (with_object(70, 2, 90, 12), "left out 1 objects outside of their images", 0),
    "flat": (with_object(5, 2, 4, 12), "left out 1 objects of no area", 0),
    "words": (with_object("a", 2, 9, 12), "left out 1 objects whose box is no four numbers", 0),
    "empty": (with_object("", 2, 9, 12), "left out 1 objects whose box is no four numbers", 0),
    "fractions": (with_object("1.5", "2.5", "9.0", "12"), "", 1),
    "no name": (
        lambda text: with_object(1, 2, 9, 12)(text).replace("<name>cat</name>", "<name> </name>"),
        "left out 1 objects without a name",
        0,
    ),
    "difficult": (
        with_object(1, 2, 9, 12, more="<difficult>1</difficult>"),
        "1 objects are difficult: not learned, and detections of them do not count",
        0,
    ),
    "no size": (replaced("<size>", "<size_>"), "", 0),
    "size 0": (lambda text: text.replace("<width>60", "<width>0"), "", 0),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_noted(tmp_path, name):
    change, line, more = NOTED[name]
    write_voc(tmp_path, n=6, lists=False)
    whole = rows_of(opened(tmp_path))
    path = tmp_path / "Annotations" / "000.xml"
    path.write_text(change(path.read_text()).replace("</size>", "</size>"))
    if name == "no size":
        path.write_text(path.read_text().replace("</size>", "</size_>"))
    source = opened(tmp_path)
    assert not line or noted(source, line, "the first JPEGImages/000.png"), source.notes
    rows = rows_of(source)
    assert rows["valid"].sum() == whole["valid"].sum() + more
    assert rows["crowd"].sum() == (name == "difficult")


BROKEN = {
    "missing": (lambda folder: (folder / "Annotations" / "002.xml").unlink(), "have no annotation"),
    "bytes": (
        lambda folder: (folder / "Annotations" / "002.xml").write_bytes(b"<annotation><\xff"),
        r"have an annotation that is no XML file, the first .*002.png \(.*002.xml\)",
    ),
    "entities": (
        lambda folder: (folder / "Annotations" / "002.xml").write_text(
            '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
        ),
        "have an annotation that is no XML file",
    ),
    "encoding": (
        lambda folder: (folder / "Annotations" / "002.xml").write_text(
            '<?xml version="1.0" encoding="no"?><annotation/>'
        ),
        "have an annotation that is no XML file",
    ),
    "size": (
        lambda folder: Image.new("RGB", (30, 30)).save(folder / "JPEGImages" / "002.png"),
        r"have another size than was annotated, the first .* \(30 x 30, not 64 x 36\)",
    ),
    "image": (
        lambda folder: (folder / "JPEGImages" / "002.png").write_bytes(b"no image"),
        "cannot be read",
    ),
    "mask": (
        lambda folder: (folder / "SegmentationObject" / "002.png").write_bytes(b"no image"),
        "have a mask that cannot be read",
    ),
    "mask's size": (
        lambda folder: Image.new("L", (9, 9)).save(folder / "SegmentationObject" / "002.png"),
        "have a mask of another size",
    ),
    "mask's colors": (
        lambda folder: Image.new("RGB", (36, 64)).save(folder / "SegmentationObject" / "002.png"),
        "have a mask whose pixels are colors",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images(tmp_path, name):
    damage, line = BROKEN[name]
    write_voc(tmp_path, n=9, masks=9)
    damage(tmp_path)
    refused(f"1 of 9 images cannot be used: 1 {line}.*--skip-bad-files", tmp_path, task=Shapes)
    source = opened(tmp_path, Shapes, skip_bad_files=True)
    assert sum(lengths(source)) == 8 and noted(source, "left out 1 of 9 images")


def test_what_is_refused(tmp_path):
    refused("there is no folder", tmp_path / "no")
    refused("there must be folders JPEGImages and Annotations", tmp_path)
    write_voc(tmp_path / "VOC2007")
    write_voc(tmp_path / "VOC2012")
    refused("VOC2007 and VOC2012|VOC2012 and VOC2007", tmp_path)
    with pytest.raises(UserError, match="give voc:"):
        open_source(str(tmp_path / "VOC2007"), task=Boxes)
    refused("there are no masks", tmp_path / "VOC2007", task=Pixels)
    path = tmp_path / "VOC2007" / "Annotations" / "003.xml"
    (tmp_path / "VOC2007" / "classes.txt").write_text("dog\nfox\n")
    refused("has an object cat, which is none of the 2 classes in", tmp_path / "VOC2007")
    (tmp_path / "VOC2007" / "classes.txt").write_text("dog\n\nfox\n")
    refused("must name the classes, a line each, no two alike", tmp_path / "VOC2007")
    (tmp_path / "VOC2007" / "classes.txt").unlink()
    path.write_text(
        path.read_text().replace(
            "</annotation>", OBJECT.format("", 1, 1, 9, 9).replace("cat", "fox") + "</annotation>"
        )
    )
    assert opened(tmp_path / "VOC2007").info.columns["labels"].class_names == ("cat", "dog", "fox")


@pytest.mark.parametrize("skip", [False, True])
def test_damaged_folders(tmp_path, skip):
    write_voc(tmp_path / "whole", n=9, masks=9)
    for seed in range(25):
        damaged(tmp_path / "whole", tmp_path / "broken", seed)
        with bounded():
            try:
                assert sum(lengths(opened(tmp_path / "broken", Shapes, skip_bad_files=skip))) >= 3
            except UserError as error:
                assert "\n" not in str(error)


def test_damaged_annotations(tmp_path):
    write_voc(tmp_path, n=6, lists=False)
    paths = sorted((tmp_path / "Annotations").iterdir())
    contents = [path.read_bytes() for path in paths]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for path, content in zip(paths, contents, strict=True):
            broken = np.frombuffer(content, np.uint8).copy()
            if rng.random() < 0.5:
                places = rng.integers(len(broken), size=rng.integers(1, 4))
                marks = np.frombuffer(b'0123456789-e.<>/&;"= \xff\0', np.uint8)
                broken[places] = rng.choice(marks, len(places))
            path.write_bytes(broken.tobytes())
        try:
            rows = rows_of(opened(tmp_path, skip_bad_files=True))
            assert np.isfinite(rows["boxes"]).all()
        except UserError as error:
            assert "\n" not in str(error)


def test_a_folder_trains_and_is_evaluated(tmp_path):
    write_voc(tmp_path / "data", n=24)
    path = tmp_path / "data" / "Annotations" / "002.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    given = {"model": "yolo_v1_small", "tiny": True, "dataset": f"voc:{tmp_path / 'data'}"}
    given |= {"epochs": 1, "batch_size": 4, "val_split": 0.2, "log": (), "export": ()}
    given |= {"output": str(tmp_path), "experiment": "run", "image_size": (48, 48)}
    lines = []
    assert app.train(given | {"augment": ("mosaic", "crop", "flip")}, lines.append) == 0
    assert any("are difficult: not learned" in line for line in lines)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= metrics["test"]["ap50"] <= 1 and list(metrics["by_class"]) == ["cat", "dog"]
