"""`masks:` as people's folders are: parts, palettes, names of classes, and what is broken."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasdl import app
from kerasdl.columns import VOID, Spec
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.damage import damaged
from tests.data.shared import IMAGE, bounded, lengths, noted


class Pixels:
    """A task of masks."""

    inputs, targets = IMAGE, {"mask": Spec(("H", "W"), "int32", "mask")}


def masks_of(n=6, size=(8, 6), classes=3):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, classes, (n, *size)).astype(np.uint8)
    masks[:, 0, 0], masks[:, 0, 1] = VOID, classes - 1
    return masks


def write(folder, masks, mode="L", images="images", labels="masks"):
    """A folder of images and of their masks; the image's red is 10 times the class."""
    for name in (images, labels):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, mask in enumerate(masks):
        pixels = np.stack([10 * np.where(mask == VOID, 0, mask)] * 3, -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / images / f"{i:02}.png")
        image = Image.fromarray(mask)
        if mode == "P":
            image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
            image.putpalette([v for k in range(256) for v in (k * 37 % 256, k * 11 % 256, 255 - k)])
        image.save(folder / labels / f"{i:02}.png")
    return folder


def opened(path, **more):
    return open_source(f"masks:{path}", task=Pixels, **more)


def refused(match, path, **more):
    with pytest.raises(UserError, match=match) as caught:
        opened(path, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_numbers_and_indices_of_palettes_are_classes(tmp_path, mode):
    masks = masks_of(10)
    write(tmp_path, masks, mode)
    source = opened(tmp_path, val_split=0.2)
    assert lengths(source) == (6, 2, 2) and noted(source, "validation part: 2 of 10")
    assert source.info.columns["mask"].class_names == ("0", "1", "2")
    assert source.info.image_shape == (8, 6, 3)
    seen = set()
    for split in source.parts.values():
        rows = split.read(range(len(split)))
        assert rows["mask"].dtype == np.int32 and (rows["mask"][:, 0, 0] == VOID).all()
        there = rows["mask"] != VOID
        assert (rows["image"][..., 0][there] == 10 * rows["mask"][there]).all()  # its own mask
        seen |= {mask.tobytes() for mask in rows["mask"].astype(np.uint8)}
    assert seen == {mask.tobytes() for mask in masks}


@pytest.mark.parametrize("inside", [False, True])
def test_parts_and_names_of_classes(tmp_path, inside):
    for part, n in (("Training", 4), ("val", 2), ("test", 3)):
        if inside:  # images/val and masks/val
            write(tmp_path, masks_of(n), images=f"images/{part}", labels=f"masks/{part}")
        else:  # val/JPEGImages and val/SegmentationClass
            write(tmp_path / part, masks_of(n), images="JPEGImages", labels="SegmentationClass")
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\nships\n")
    source = opened(tmp_path)
    assert lengths(source) == (4, 2, 3) and source.notes == ()
    assert source.info.columns["mask"].class_names == ("sky", "sea", "land", "ships")


@pytest.mark.parametrize("inside", [False, True])
def test_images_beside_are_noted(tmp_path, inside):
    folders = ("images/{}", "masks/{}") if inside else ("{}/images", "{}/masks")
    for part in ("train", "val", "test"):
        write(tmp_path, masks_of(2), images=folders[0].format(part), labels=folders[1].format(part))
    beside = ["images/x.png", "more/x.png"] if inside else ["train/x.png", "val/more/x.png"]
    for name in (*beside, "x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 8)).save(tmp_path / name)
    source = opened(tmp_path)
    assert lengths(source) == (2, 2, 2)
    assert noted(source, "left out 3 images beside the folders of images and masks")


def test_sizes_are_those_of_the_model(tmp_path):
    masks = masks_of(8)
    write(tmp_path, masks)
    big = np.repeat(np.repeat(masks[:4], 3, 1), 3, 2)
    write(tmp_path, big)  # half of them three times as large
    refused("images differ in size .*--image-size", tmp_path)
    source = opened(tmp_path, image_size=(8, 6), val_split=0.25)
    seen = np.concatenate(
        [split.read(range(len(split)))["mask"] for split in source.parts.values()]
    )
    assert {m.tobytes() for m in seen.astype(np.uint8)} == {m.tobytes() for m in masks}


def broken_missing(folder):
    (folder / "masks" / "02.png").unlink()


def broken_bytes(folder):
    (folder / "masks" / "02.png").write_bytes(b"no image")


def broken_cut(folder):
    path = folder / "masks" / "02.png"
    path.write_bytes(path.read_bytes()[:50])


def broken_size(folder):
    Image.fromarray(np.zeros((8, 7), np.uint8)).save(folder / "masks" / "02.png")


def broken_color(folder):
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(folder / "masks" / "02.png")


def broken_deep(folder):
    Image.fromarray(np.full((8, 6), 300, np.uint16)).save(folder / "masks" / "02.png")


def broken_image(folder):
    (folder / "images" / "02.png").write_bytes(b"no image")


def broken_twice(folder):
    Image.open(folder / "images" / "02.png").save(folder / "images" / "02.bmp")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (broken_missing, r"have no mask, the first .*02\.png \(.*masks/02\.png\)"),
        (broken_bytes, "have a mask that cannot be read"),
        (broken_cut, "have a mask that cannot be read"),
        (broken_size, r"have a mask of another size, the first .*images/02\.png"),
        (broken_color, "have a mask whose pixels are colors"),
        (broken_deep, "have a mask with numbers above 255"),
        (broken_image, "cannot be read, the first"),
        (broken_twice, r"have one name, so one mask, the first .*02\.bmp \(as 02\.png\)"),
    ],
)
def test_broken_pairs(tmp_path, damage, line):
    write(tmp_path, masks_of(8))
    damage(tmp_path)
    refused(f"1 of 8 images cannot be used: 1 {line}.*--skip-bad-files", tmp_path)
    source = opened(tmp_path, skip_bad_files=True, val_split=0.2)
    assert sum(lengths(source)) == 7 and noted(source, "left out 1 of 8 images")


def test_what_is_left_over_is_noted(tmp_path):
    write(tmp_path, masks_of(8))
    (tmp_path / "images" / "00.png").unlink()
    Image.new("L", (6, 8)).save(tmp_path / "masks" / "01.bmp")
    (tmp_path / "masks" / "classes.txt").write_text("sky\nsea\nland\n")
    (tmp_path / "read.me").write_text("x")
    source = opened(tmp_path, val_split=0.2)
    assert sum(lengths(source)) == 7
    assert noted(source, "left out 1 masks of no image", "masks/00.png")
    assert noted(source, "left out 1 files beside the masks that are no PNG", "01.bmp")
    assert noted(source, "left out 2 files of other types", "1 .txt", "1 .me")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sky\nsea\n", r"names 2 classes, 0 to 1, but 8 masks have others, up to 2, the first"),
        ("sky\n\nsea\n", "must name at most 255 classes, a line each, no two alike"),
        ("sky\nsky\nsea\n", "no two alike"),
    ],
)
def test_names_that_do_not_fit(tmp_path, text, line):
    write(tmp_path, masks_of(8))
    (tmp_path / "classes.txt").write_text(text)
    refused(line, tmp_path)


def test_folders_that_are_not_there(tmp_path):
    refused("there is no folder", tmp_path / "no")
    (tmp_path / "pictures").mkdir()
    refused("there must be folders images and masks, .*there are pictures", tmp_path)
    write(tmp_path / "train", masks_of(4))
    write(tmp_path / "val", masks_of(2), labels="truth")
    refused("there must be folders images and masks in the folder val", tmp_path)
    Image.new("RGB", (6, 8)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="give masks:"):
        open_source(str(tmp_path / "train"), task=Pixels)
    write(tmp_path / "one", np.zeros((8, 8, 6), np.uint8))
    refused("must be of two classes or more", tmp_path / "one")


@pytest.mark.parametrize("skip", [False, True])
def test_fifty_damaged_folders(tmp_path, skip):
    write(tmp_path / "whole", masks_of(8), "P")
    (tmp_path / "whole" / "classes.txt").write_text("sky\nsea\nland\n")
    for seed in range(50):
        damaged(tmp_path / "whole", tmp_path / "broken", seed)
        try:
            with bounded():
                source = opened(tmp_path / "broken", skip_bad_files=skip, image_size=(8, 6))
            assert sum(lengths(source)) >= 3
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("model", ["unet", "fcn8s"])  # without padding, and with
def test_a_folder_trains_and_is_evaluated(tmp_path, model):
    masks = masks_of(16, size=(20, 24))
    masks[4:8, 3:6] = VOID
    write(tmp_path / "data", masks, "P")
    (tmp_path / "data" / "classes.txt").write_text("sky\nsea\nland\nships\n")
    (tmp_path / "data" / "masks" / "03.png").unlink()
    given = {"model": model, "tiny": True, "dataset": f"masks:{tmp_path / 'data'}"}
    given |= {"epochs": 1, "batch_size": 4, "val_split": 0.2, "log": (), "export": ()}
    given |= {"output": str(tmp_path), "experiment": "run", "skip_bad_files": True}
    lines = []
    assert app.train(given | {"task_kwargs": {"loss": "dice"}}, lines.append) == 0
    assert any("left out 1 of 16 images: 1 have no mask" in line for line in lines)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert all(0 <= metrics["test"][name] <= 1 for name in ("mean_iou", "pixel_accuracy"))
    assert list(metrics["iou"]) == ["sky", "sea", "land", "ships"]
    assert metrics["iou"]["ships"] in (None, 0)
