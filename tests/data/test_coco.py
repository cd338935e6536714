"""`coco:` as people's folders are: layouts, segmentations, sizes, and what is broken."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kerasdl import app
from kerasdl.columns import ABSENT, VOID
from kerasdl.data import fingerprint
from kerasdl.data.images import Fit
from kerasdl.data.sources import objects, open_source
from kerasdl.errors import UserError
from tests.data.damage import damaged
from tests.data.objects import (
    NAMES,
    Boxes,
    Pixels,
    Shapes,
    coco_content,
    polygon,
    save_images,
    scenes,
    tight,
    write_coco,
    write_voc,
)
from tests.data.shared import bounded, lengths, noted

SIDE = 32
PARTS = ("train", "validation", "test")


def opened(path, task=Boxes, **more):
    more = {"image_size": (SIDE, SIDE), "val_split": 0.2, "task": task} | more
    return open_source(f"coco:{path}", **more)


def refused(match, path, **more):
    with pytest.raises(UserError, match=match) as caught:
        opened(path, **more)
    assert "\n" not in str(caught.value)


def rows_of(source):
    """All examples, as arrays by column."""
    read = [split.read(range(len(split))) for split in source.parts.values()]
    return {name: np.concatenate([one[name] for one in read]) for name in read[0]}


def changed(path, content, **lists):
    """Write the lists of a file of annotations again."""
    path.write_text(json.dumps(content | lists))
    return path.parent


def check_pixels(rows, class_names, within=1.0):
    """That boxes, instances and masks lie on the pixels of their colors; returns how many."""
    count = 0
    for i, image in enumerate(rows["image"]):
        color = {"cat": image[..., 0] > 127, "dog": image[..., 1] > 127}
        for m in range(rows["boxes"].shape[1] if "boxes" in rows else 0):
            if not rows["valid"][i, m]:
                continue
            box = rows["boxes"][i, m] * SIDE
            name = class_names[rows["labels"][i, m]]
            y, x = (max(0, int(v) - 1) for v in box[:2])
            near = np.zeros_like(color[name])
            near[y : int(box[2]) + 2, x : int(box[3]) + 2] = True
            there = color[name] & near
            if not there.any():  # of an object of less than a pixel
                assert (box[2:] - box[:2]).min() < 1.5
                continue
            assert np.abs(box - tight(there)).max() <= within, (box, tight(there))
            if "instances" in rows:
                mask = rows["instances"][i, m] > 0
                assert np.abs(tight(mask) - tight(there)).max() <= within
            count += 1
        if "mask" in rows:
            mask = rows["mask"][i]
            for name in NAMES:
                seen = mask == 1 + class_names.index(name)
                assert (seen != color[name])[mask != VOID].mean() < 0.06
                count += seen.any()
    return count


@pytest.mark.parametrize(
    ("fit", "form"),
    [
        (Fit(), "polygons"),
        (Fit("crop"), "text"),
        (Fit("pad"), "polygons"),
        (Fit("squash", 0.8), "runs"),
    ],
)
def test_everything_lies_on_its_pixels(tmp_path, fit, form):
    write_coco(tmp_path / "coco", form=form)
    source = opened(tmp_path / "coco", Shapes, fit=fit)
    assert source.info.columns["labels"].class_names == ("dog", "cat")  # by their ids
    assert check_pixels(rows_of(source), ("dog", "cat")) >= 10
    source = opened(tmp_path / "coco", Pixels, fit=fit)
    assert source.info.columns["mask"].class_names == ("background", "dog", "cat")
    assert check_pixels(rows_of(source), ("dog", "cat")) >= 10


def test_masks_beside_images_come_to_their_size_as_they_do(tmp_path):
    write_voc(tmp_path, masks=12)
    shutil.rmtree(tmp_path / "SegmentationObject")
    shutil.rmtree(tmp_path / "Annotations")
    for fit in (Fit("crop"), Fit("pad")):
        source = open_source(
            f"masks:{tmp_path}", image_size=(SIDE, SIDE), val_split=0.2, task=Pixels, fit=fit
        )
        rows = rows_of(source)
        if fit.mode == "pad":
            assert (rows["mask"][:, 0] == VOID).any()  # beside the picture
        assert check_pixels(rows, NAMES) >= 10


def test_all_encodings_of_shapes_are_alike(tmp_path):
    made = {}
    for form in ("polygons", "runs", "text"):
        write_coco(tmp_path / form, form=form)
        made[form] = rows_of(opened(tmp_path / form, Shapes))["instances"]
    np.testing.assert_array_equal(made["runs"], made["text"])
    assert (made["polygons"] != made["runs"]).mean() < 0.01 and made["runs"].any()


def test_what_does_not_fit_into_memory_is_read_when_it_is_needed(tmp_path, monkeypatch):
    write_coco(tmp_path)
    whole = opened(tmp_path, Shapes)
    monkeypatch.setattr(objects, "MEMORY_BYTES", 1000)
    source = opened(tmp_path, Shapes)
    assert source.train.arrays is None and whole.train.arrays is not None
    for part in PARTS:
        numbers = range(len(whole.parts[part]))
        first, second = whole.parts[part].read(numbers), source.parts[part].read(numbers)
        assert set(first) == set(second)
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])
            assert value.dtype == second[name].dtype
    assert set(source.train.only(["boxes"]).read([0, 1])) == {"boxes"}
    path = sorted((tmp_path / "images").iterdir())[0]
    good = path.read_bytes()
    path.write_bytes(b"x" * 9)
    refused("1 of 12 images cannot be used: 1 cannot be read", tmp_path)
    path.write_bytes(good[: len(good) - 40])  # has a header
    source = opened(tmp_path)
    with pytest.raises(UserError, match="000.png cannot be read; --skip-bad-files leaves it out"):
        rows_of(source)
    source = opened(tmp_path, skip_bad_files=True)
    assert noted(source, "left out 1 of 12 images: 1 cannot be decoded") and len(rows_of(source))


@pytest.mark.parametrize("layout", ["coco", "roboflow", "one", "beside"])
def test_layouts(tmp_path, layout):
    folder = tmp_path / "data"
    if layout in ("one", "beside"):
        made = scenes(9)
        save_images(folder / ("images" if layout == "one" else ""), made)
        content = coco_content(made, prefix="" if layout == "one" else "C:\\any\\")
        (folder / "annotations.json").write_text(json.dumps(content))
        source = opened(folder)
        assert sum(lengths(source)) == 9 and noted(source, "validation part: 2 of 9")
        return
    sizes = {"train": 6, "val": 3, "test": 2}
    for number, (part, n) in enumerate(sizes.items()):
        made = scenes(n, seed=number)
        if layout == "coco":  # the same names in each part
            save_images(folder / f"{part}2017", made)
            path = folder / "annotations" / f"instances_{part}2017.json"
        else:
            part = {"val": "valid"}.get(part, part)
            save_images(folder / part, made)
            path = folder / part / "_annotations.coco.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco_content(made)))
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "person_keypoints_train2017.json").write_text("{}")
    Image.new("RGB", (9, 9)).save(folder / "more.png")
    source = opened(folder)
    assert lengths(source) == (6, 3, 2)
    assert noted(source, "left out 1 JSON files that are not used", "person_keypoints")
    assert noted(source, "left out 1 images that no annotations list, the first more.png")
    for number, (part, n) in enumerate(zip(PARTS, sizes.values(), strict=True)):
        rows = source.parts[part].read(range(n))
        expected = [len(found) for _, found in scenes(n, seed=number)]
        assert rows["valid"].sum(1).tolist() == expected  # its own images
    check_pixels(rows_of(source), ("dog", "cat"))


def test_captions(tmp_path):
    _, content = write_coco(tmp_path)
    (tmp_path / "annotations.json").rename(tmp_path / "instances_train.json")
    texts = [{"id": i, "image_id": 100 + i // 2, "caption": f"number {i}\n"} for i in range(20)]
    captions = {"images": content["images"], "annotations": texts}
    (tmp_path / "captions_train.json").write_text(json.dumps(captions))
    source = opened(tmp_path, None)
    assert source.info.columns["caption"].kind == "text"
    assert set(rows_of(source)["caption"]) == {*(b"number %d" % i for i in range(0, 20, 2)), b""}
    assert "caption" not in opened(tmp_path, Boxes).info.columns


def test_images_without_objects_and_padding(tmp_path):
    write_coco(tmp_path)
    rows = rows_of(opened(tmp_path))
    assert (~rows["valid"]).all(1).sum() == 1
    assert (rows["labels"][~rows["valid"]] == ABSENT).all()
    assert (rows["boxes"][~rows["valid"]] == 0).all() and not rows["crowd"].any()


def test_too_many_objects(tmp_path, monkeypatch):
    path, content = write_coco(tmp_path)
    monkeypatch.setattr(objects, "MAX_OBJECTS", 3)
    sides = (2, 6, 3, 5, 4)
    extra = [
        {"id": 99, "image_id": 100, "category_id": 3, "bbox": [8 * i, 5, side, side]}
        for i, side in enumerate(sides)
    ]
    changed(path, content, annotations=content["annotations"] + extra)
    source = opened(tmp_path)
    assert noted(source, "left out 2 objects, the smallest of images with over 3", "000.png")
    rows = rows_of(source)
    full = int(np.argmax(rows["valid"].sum(1)))
    assert sorted((rows["boxes"][full][:, 0] * 40).round().tolist()) == [5, 5, 5]
    wide = (rows["boxes"][full] * 60)[:, 3] - (rows["boxes"][full] * 60)[:, 1]
    assert sorted(wide.round().tolist()) == [4, 5, 6]


def edited(**values):
    """Change the first annotation."""

    def change(content):
        content["annotations"][0] |= values

    return change


def added(**values):
    """A further annotation of the picture without objects."""

    def change(content):
        one = {"id": 999, "image_id": 100, "category_id": 3, "bbox": [1, 2, 10, 12]}
        content["annotations"].append(one | values)

    return change


def with_image(**values):
    def change(content):
        content["images"][0] |= values

    return change


def twice(**values):
    def change(content):
        content["images"].append(content["images"][0] | values)

    return change


def category(entry):
    def change(content):
        content["categories"].append(entry)

    return change


NOTED = {
    "outside": (added(bbox=[-5, 2, 10, 12]), "1 boxes that reach beyond", 1),
    "beyond": (added(bbox=[70, 2, 10, 12]), "left out 1 objects outside of their images", 0),
    "flat": (added(bbox=[5, 2, 0, 12]), "left out 1 objects of no area", 0),
    "negative": (added(bbox=[5, 2, -3, 12]), "left out 1 objects of no area", 0),
    "nan": (added(bbox=[5, 2, float("nan"), 12]), "left out 1 objects whose box is no four", 0),
    "infinite": (added(bbox=[5, 2, 10**400, 12]), "left out 1 objects whose box is no four", 0),
    "three": (added(bbox=[5, 2, 3]), "left out 1 objects whose box is no four numbers", 0),
    "texts": (added(bbox=["5", 2, 3, 4]), "left out 1 objects whose box is no four numbers", 0),
    "two points": (added(segmentation=[[1, 1, 5, 5]]), "1 polygons of less than three points", 1),
    "one and two": (
        added(segmentation=[[1, 1, 5, 5], polygon(2, 1, 14, 11)]),
        "left out 1 polygons of less than three points",
        1,
    ),
    "words": (added(segmentation=["no"]), "left out 1 segmentations that cannot be read", 1),
    "runs": (
        added(segmentation={"size": [40, 60], "counts": [3, 4]}),
        "1 objects without a shape have that of their box",
        1,
    ),
    "other size": (
        added(segmentation={"size": [10**6, 10**6], "counts": [10**12]}),
        "1 objects without a shape have that of their box",
        1,
    ),
    "no box": (added(bbox=None, segmentation=[polygon(2, 1, 14, 11)]), "", 1),
    "flat list": (added(segmentation=polygon(2, 1, 14, 11)), "", 1),
    "unlisted": (added(image_id=5), "left out 1 objects of images that are not listed", 0),
    "listed twice": (twice(), "1 images that are listed twice are taken once", 0),
    "two ids": (twice(id=5), "1 images that are listed twice have the objects of both", 0),
    "no size": (with_image(width=None, height=None), "", 0),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_noted(tmp_path, name):
    change, line, more = NOTED[name]
    path, content = write_coco(tmp_path)
    whole = rows_of(opened(tmp_path, Shapes))
    change(content)
    changed(path, content)
    source = opened(tmp_path, Shapes)
    assert not line or noted(source, line, "the first"), source.notes
    rows = rows_of(source)
    assert rows["valid"].sum() == whole["valid"].sum() + more
    assert (rows["instances"].any((2, 3)) == rows["valid"]).all()
    assert (rows["boxes"][rows["valid"]][:, 2:] > rows["boxes"][rows["valid"]][:, :2]).all()


REFUSED = {
    "category": (
        edited(category_id=8),
        "annotation 1 has the category 8, which is none of 3 dog, 7 cat",
    ),
    "no category": (edited(category_id=None), "annotation 1 has the category None"),
    "two files": (twice(file_name="001.png"), "the images 000.png and 001.png have one id, 100"),
    "no name": (with_image(file_name=3), "must have an id and a file_name"),
    "no id": (with_image(id=None), "must have an id and a file_name"),
    "category id": (category({"id": "x", "name": "fox"}), "must have a whole number as its id"),
    "category twice": (category({"id": 3, "name": "fox"}), "category 3 is called fox, elsewhere"),
    "one name": (category({"id": 9, "name": "cat"}), "two are called cat"),
    "missing": (
        with_image(file_name="no.png"),
        r"1 of 12 images cannot be used: 1 are not there, the first no.png; --skip-bad-files",
    ),
    "size": (
        with_image(width=61),
        r"1 have another size than was annotated, the first .*000.png \(40 x 60, not 40 x 61\)",
    ),
    "no number": (with_image(width="x"), r"\(40 x 60, not 40 x -1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    change, line = REFUSED[name]
    path, content = write_coco(tmp_path)
    change(content)
    changed(path, content)
    refused(line, tmp_path)
    if "images cannot be used" in line or "size" in name:
        source = opened(tmp_path, skip_bad_files=True)
        assert sum(lengths(source)) == 11 and noted(source, "left out 1 of 12 images")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"images": [', "is no JSON file"),
        ("[" * 100000, "is no JSON file"),
        ('{"images": [], "annotations": []}', "is none of COCO's format"),
        ('{"images": 1, "annotations": [], "categories": []}', "is none of COCO's format"),
        ('{"images": [1], "annotations": [], "categories": []}', "is none of COCO's format"),
        ('{"images": [], "annotations": [], "categories": []}', "there are none"),
        ("[1]", "is none of COCO's format"),
    ],
)
def test_files_of_no_annotations(tmp_path, text, line):
    path, _ = write_coco(tmp_path)
    path.write_text(text)
    refused(line, tmp_path)


def test_folders_of_no_annotations(tmp_path):
    refused("there is no folder", tmp_path / "no")
    path, content = write_coco(tmp_path / "a")
    with pytest.raises(UserError, match="give coco:"):
        open_source(str(tmp_path / "a"), task=Boxes)
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    (tmp_path / "classes" / "notes.json").write_text("{}")
    with pytest.raises(UserError, match="give folder:"):
        open_source(str(tmp_path / "classes"), task=Boxes)
    shutil.copy(path, tmp_path / "a" / "more_train.json")
    assert noted(opened(tmp_path / "a"), "left out 1 JSON files that are not used, the first ann")
    shutil.copy(path, tmp_path / "a" / "train.json")
    refused("more_train.json and train.json are of the train part; leave one", tmp_path / "a")
    path, _ = write_coco(tmp_path / "b")
    path.rename(tmp_path / "b" / "val.json")
    refused("no annotations of the training part, but of validation", tmp_path / "b")
    (tmp_path / "b" / "val.json").unlink()
    refused("there must be a JSON file of annotations.*there are none", tmp_path / "b")
    path, _ = write_coco(tmp_path / "c", form="no")
    refused("no object has a segmentation, which instances is of", tmp_path / "c", task=Shapes)
    refused("no object has a segmentation, which mask is of", tmp_path / "c", task=Pixels)


def test_an_image_in_two_parts(tmp_path):
    path, content = write_coco(tmp_path)
    path.rename(tmp_path / "train.json")
    some = {"images": content["images"][:3], "annotations": []}
    (tmp_path / "val.json").write_text(json.dumps(content | some))
    with pytest.raises(UserError, match="the validation part holds no examples"):
        opened(tmp_path)
    extra = {"id": 1, "file_name": "new.png"}
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "new.png")
    changed(tmp_path / "val.json", content | some, images=[*some["images"], extra])
    source = opened(tmp_path)
    assert noted(source, "left out 3 images of the validation part that another has")
    assert lengths(source) == (10, 1, 2)


def test_crowds_count_as_neither(tmp_path):
    path, content = write_coco(tmp_path)
    added(iscrowd=1, bbox=[4, 4, 40, 30], segmentation=None)(content)
    changed(path, content)
    source = opened(tmp_path)
    assert noted(source, "1 objects are crowds: not learned")
    rows = rows_of(source)
    assert rows["crowd"].sum() == 1 and not (rows["crowd"] & rows["valid"]).any()
    assert rows["labels"][rows["crowd"]].tolist() == [0]
    masks = rows_of(opened(tmp_path, Pixels))["mask"]
    assert ((masks == VOID).any((1, 2))).sum() == 1


def test_other_annotations_are_other_data(tmp_path):
    path, content = write_coco(tmp_path)
    before = fingerprint.of_source(opened(tmp_path))
    division = fingerprint.division(before)
    assert fingerprint.of_source(opened(tmp_path, division=division)) == before
    content["annotations"][0]["bbox"][0] += 1
    changed(path, content)
    after = fingerprint.of_source(opened(tmp_path, division=division))
    with pytest.raises(UserError, match=r"1 file labeled otherwise, the first images/0.*objects? "):
        fingerprint.check(before, after, "coco")


@pytest.mark.parametrize("skip", [False, True])
def test_damaged_folders(tmp_path, skip):
    write_coco(tmp_path / "whole", form="text")
    for seed in range(25):
        damaged(tmp_path / "whole", tmp_path / "broken", seed)
        with bounded():
            try:
                assert sum(lengths(opened(tmp_path / "broken", Shapes, skip_bad_files=skip))) >= 3
            except UserError as error:
                assert "\n" not in str(error)


def test_damaged_annotations(tmp_path):
    path, _ = write_coco(tmp_path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    whole = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        broken = content.copy()
        places = rng.integers(len(broken), size=rng.integers(1, 4))
        broken[places] = rng.choice(
            np.frombuffer(b'0123456789-eE.,:"[]{}x\xff\0', np.uint8), len(places)
        )
        path.write_bytes(broken.tobytes())
        try:
            whole += bool(rows_of(opened(tmp_path, Shapes, skip_bad_files=True)))
        except UserError as error:
            assert "\n" not in str(error)
    assert 5 < whole < 50


@pytest.mark.parametrize("model", ["yolo_v1_small", "unet", "mask_rcnn_small"])
def test_a_folder_trains_and_is_evaluated(tmp_path, monkeypatch, model):
    if model != "unet":  # is read while it trains
        monkeypatch.setattr(objects, "MEMORY_BYTES", 1000)
    path, content = write_coco(tmp_path / "data", n=24)
    added(iscrowd=1, segmentation=None)(content)
    changed(path, content)
    given = {"model": model, "tiny": True, "dataset": f"coco:{tmp_path / 'data'}"}
    given |= {"epochs": 1, "batch_size": 4, "val_split": 0.2, "log": (), "export": ()}
    given |= {"output": str(tmp_path), "experiment": "run", "image_size": (48, 48)}
    lines = []
    assert app.train(given | {"resize": "pad"}, lines.append) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert any("1 objects are crowds" in line for line in lines)
    if model == "unet":
        assert 0 <= metrics["test"]["mean_iou"] <= 1
        return
    if model == "mask_rcnn_small":
        assert 0 <= metrics["test"]["mask_ap50"] <= 1
    assert 0 <= metrics["test"]["ap50"] <= 1 and list(metrics["by_class"]) == ["dog", "cat"]
