"""Tiny data sets with objects: colored rectangles on pictures of several sizes, as COCO and as VOC
have them."""

import json

import numpy as np
from PIL import Image

from kerasdl.columns import Spec
from tests.data.shared import IMAGE

NAMES = ("cat", "dog")
IDS = (7, 3)  # of the categories: dog comes first
COLORS = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
SIZES = ((40, 60), (48, 48), (64, 36))


class Boxes:
    """A task of boxes."""

    inputs = IMAGE
    targets = {
        "boxes": Spec(("M", 4), "float32", "boxes"),
        "labels": Spec(("M",), "int32", "label"),
        "valid": Spec(("M",), "bool", "valid"),
        "crowd": Spec(("M",), "bool", "valid"),
    }
    optional = ("crowd",)


class Shapes(Boxes):
    """A task of masks of objects."""

    targets = Boxes.targets | {"instances": Spec(("M", "H", "W"), "uint8", "instances")}


class Pixels:
    """A task of masks."""

    inputs, targets = IMAGE, {"mask": Spec(("H", "W"), "int32", "mask")}


def scenes(n, seed=0):
    """`[(picture uint8 (H, W, 3), [(class, ymin, xmin, ymax, xmax)])]`: up to two rectangles that
    do not overlap, one in each half; the first picture is empty."""
    rng = np.random.default_rng(seed)
    result = []
    for i in range(n):
        height, width = SIZES[i % len(SIZES)]
        picture, objects = np.zeros((height, width, 3), np.uint8), []
        for half in range(rng.integers(1, 3) if i else 0):
            h, w = rng.integers(8, height // 2), rng.integers(6, width // 2 - 6)
            y, x = rng.integers(0, height - h), rng.integers(0, width // 2 - w - 5)
            x += half * (width // 2)
            kind = int(rng.integers(2))
            picture[y : y + h, x : x + w] = COLORS[kind]
            objects.append((kind, int(y), int(x), int(y + h), int(x + w)))
        result.append((picture, objects))
    return result


def polygon(y, x, bottom, right):
    return [x, y, right, y, right, bottom, x, bottom]


def runs(mask):
    """COCO's uncompressed encoding of a mask."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int)])
    ends = np.concatenate([np.flatnonzero(np.diff(flat)), [mask.size]])
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


def coco_content(made, form="polygons", prefix=""):
    """COCO's lists of some scenes; `form` of the segmentations may also be `runs`, `text`, `no`."""
    from pycocotools import mask as codec

    images, annotations = [], []
    for i, (picture, objects) in enumerate(made):
        height, width = picture.shape[:2]
        name = f"{prefix}{i:03}.png"
        images.append({"id": 100 + i, "file_name": name, "height": height, "width": width})
        for kind, y, x, bottom, right in objects:
            mask = np.zeros((height, width), np.uint8)
            mask[y:bottom, x:right] = 1
            shape = {"polygons": [polygon(y, x, bottom, right)], "no": [], "runs": None}.get(form)
            if form == "runs":
                shape = runs(mask)
            elif form == "text":
                shape = codec.encode(np.asfortranarray(mask))
                shape["counts"] = shape["counts"].decode()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + i,
                    "category_id": IDS[kind],
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": 0,
                    "segmentation": shape,
                }
            )
    categories = [{"id": k, "name": n} for k, n in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def save_images(folder, made):
    folder.mkdir(parents=True, exist_ok=True)
    for i, (picture, _) in enumerate(made):
        Image.fromarray(picture).save(folder / f"{i:03}.png")


def write_coco(folder, n=12, form="polygons"):
    """One JSON file and `images`; returns its path and content."""
    made = scenes(n)
    save_images(folder / "images", made)
    content = coco_content(made, form)
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path, content


def voc_xml(name, size, objects, more=""):
    text = "".join(
        f"<object><name>{NAMES[kind]}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for kind, y, x, bottom, right in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[1]}</width>"
        f"<height>{size[0]}</height><depth>3</depth></size>{text}{more}</annotation>"
    )


def write_voc(folder, n=12, masks=0, lists=True):
    """VOC's folders, with masks of the first so many images."""
    made = scenes(n)
    save_images(folder / "JPEGImages", made)
    for name in ("Annotations", "SegmentationClass", "SegmentationObject", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Segmentation").mkdir()
    for i, (picture, objects) in enumerate(made):
        xml = voc_xml(f"{i:03}.png", picture.shape, objects)
        (folder / "Annotations" / f"{i:03}.xml").write_text(xml)
        if i >= masks:
            continue
        pair = np.zeros((2, *picture.shape[:2]), np.uint8)
        for number, (kind, y, x, bottom, right) in enumerate(objects, 1):
            pair[:, y:bottom, x:right] = np.array([kind + 1, number])[:, None, None]
        pair[:, 0, 0] = 255
        for name, mask in zip(("SegmentationClass", "SegmentationObject"), pair, strict=True):
            image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
            image.putpalette([v for k in range(256) for v in (k * 37 % 256, k * 11 % 256, 255 - k)])
            image.save(folder / name / f"{i:03}.png")
    stems = [f"{i:03}" for i in range(n)]
    if lists:
        for kind, own in (("Main", stems), ("Segmentation", stems[:masks])):
            third = len(own) // 3
            for part, some in (("train", own[third:]), ("val", own[:third])):
                (folder / "ImageSets" / kind / f"{part}.txt").write_text("\n".join(some) + "\n")
        (folder / "ImageSets" / "Main" / "cat_train.txt").write_text("000 -1\n")
    return made


def tight(mask):
    """`ymin xmin ymax xmax` in pixels around what is there."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1])
