"""`voc:FOLDER`: images and an XML file of the objects of each, in the format of PASCAL VOC.

Source: Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) Challenge, section 4;
        The PASCAL VOC2012 Development Kit, sections 3.2 and 11.3.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from kerasdl.columns import VOID
from kerasdl.data import wanted
from kerasdl.data.images import FORMATS
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout, objects
from kerasdl.data.sources.masks import CLASSES, INDEXED
from kerasdl.data.sources.objects import Object, Picture
from kerasdl.data.sources.text import read_text
from kerasdl.errors import UserError

GIVES = objects.GIVES
CLASS_NAMES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)
IMAGES, ANNOTATIONS = "jpegimages", "annotations"
OF_CLASSES, OF_OBJECTS = "segmentationclass", "segmentationobject"
MASKS = ("mask", "instances")
LIST = ".txt"
WHOLE = "trainval"  # both of them, and the training part where they are not there
CORNERS = ("ymin", "xmin", "ymax", "xmax")
UNLISTED = "images of no part"
UNUSED = "lists and tables that are not used"


def load(where, options):
    """VOC's folders `JPEGImages` and `Annotations`, or a folder around these.

    `ImageSets/Main/train.txt`, `val.txt` and `test.txt` list the names of the images of the parts,
    for masks those in `ImageSets/Segmentation`; without them all is divided with the seed. Classes
    are those of `classes.txt`, in a folder that is called `VOC...` VOC's twenty, else the names
    that occur, sorted. Pixels are counted from 1, and a box ends with its last pixel: 1 is taken
    from where it begins. `difficult` objects are not learned, and detections of them are neither
    right nor wrong. Masks are the PNGs of `SegmentationClass` and `SegmentationObject`, 255 is not
    labeled; where these are wanted, only images that have them are used.
    """
    if not os.path.isdir(where):
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no folder {readable(where)}{right}")
    left, told, wrong = layout.LeftOut(where), objects.Told(), {}
    tree = layout.read_tree(where, (*FORMATS, ".xml", LIST), left, options.skip_bad_files)
    folders = _folders(tree, options)
    root, names = folders["root"], set(wanted.used(GIVES, options.task))
    files = {
        kind: {os.path.splitext(name)[0]: os.path.join(folder.path, name) for name in folder.files}
        for kind, folder in folders.items()
        if kind != "root" and folder
    }
    needed = names & set(MASKS) if options.task else set()
    kinds = [
        kind for kind, name in ((OF_CLASSES, "mask"), (OF_OBJECTS, "instances")) if name in needed
    ]
    for kind in kinds:
        if not files.get(kind):
            raise UserError(f"{options.name}: there are no masks: no folder {kind} with PNG files")
    lists = _lists(root, "segmentation" if kinds else "main", options)
    annotated = files[ANNOTATIONS]
    lists = lists or {"train": sorted(annotated, key=layout.natural)}
    parts = {}
    for part, stems in lists.items():
        parts[part] = []
        for stem in stems:
            lacking = [kind for kind in kinds if stem not in files[kind]]
            if lacking:
                told.add(f"left out {{}} images without a mask in {lacking[0]}", stem)
            elif stem not in files[IMAGES]:
                wrong.setdefault("are not there", []).append((stem, ""))
            elif stem not in annotated:
                wrong.setdefault("have no annotation", []).append((files[IMAGES][stem], ""))
            else:
                parts[part].append(_Annotated(stem, files, os.fspath(where)))
    _read_all([one for of_part in parts.values() for one in of_part], wrong, told)
    class_names = _class_names(parts, root, where, options)
    number = {name: k for k, name in enumerate(class_names)}
    for of_part in parts.values():
        for one in of_part:
            for found in one.picture.objects:
                found.label = number[found.label]
    pictures = {p: [one.picture for one in found if one.usable] for p, found in parts.items()}
    if not any(pictures.values()):
        objects.refuse_or_note(wrong, 0, options)
        raise UserError(f"{options.name}: no images can be used")
    listed = {stem for stems in lists.values() for stem in stems}
    for stem in sorted(set(files[IMAGES]) - listed, key=layout.natural):
        left.add(UNLISTED, files[IMAGES][stem])
    columns = [name for name in GIVES if name not in set(MASKS) - needed]

    def drawn(picture, place, kinds):
        return _drawn(picture, place, kinds, len(class_names))

    return objects.load(pictures, class_names, drawn, options, wrong, told, left.notes(), columns)


def _folders(tree, options):
    """`{"root": Folder, kind: Folder or None}`: the one that holds images and annotations."""
    found, waiting = [], [tree]
    while waiting:
        folder = waiting.pop()
        inside = {inner.name.casefold(): inner for inner in folder.folders}
        if IMAGES in inside and ANNOTATIONS in inside:
            found.append(folder)
        else:
            waiting += folder.folders
    if len(found) != 1:
        names = " and ".join(readable(folder.name) for folder in found)
        raise UserError(
            f"{options.name}: "
            + (
                f"{names} are data sets each; give one of them"
                if found
                else "there must be folders JPEGImages and Annotations"
            )
        )
    inside = {inner.name.casefold(): inner for inner in found[0].folders}
    kinds = (IMAGES, ANNOTATIONS, OF_CLASSES, OF_OBJECTS)
    return {"root": found[0], **{kind: inside.get(kind) for kind in kinds}}


def _lists(root, kind, options):
    """`{part: [stem]}` of `ImageSets`, of another kind where there is none of this one."""
    sets = next((f for f in root.folders if f.name.casefold() == "imagesets"), None)
    inside = [] if sets is None else [*sets.folders, sets]
    order = sorted(inside, key=lambda f: (f.name.casefold() != kind, f.name.casefold() != "main"))
    for folder in order:
        lists = {}
        for name in folder.files:
            stem, ending = os.path.splitext(name)
            part = layout.part_of(stem) or (WHOLE if stem.casefold() == WHOLE else None)
            if ending.lower() != LIST or part is None:
                continue
            text = read_text(os.path.join(folder.path, name), options)
            stems = [line.split()[0] for line in text.split("\n") if line.split()]
            lists[part] = list(dict.fromkeys(stems))
        whole = lists.pop(WHOLE, None)
        if whole is not None and "train" not in lists and "validation" not in lists:
            lists["train"] = whole
        if lists:
            if "train" not in lists:
                raise UserError(
                    f"{options.name}: {readable(folder.path)} lists no training part, but "
                    f"{', '.join(lists)}"
                )
            return {part: lists[part] for part in layout.PARTS if part in lists}
    return {}


class _Annotated:
    """One image and its XML file.

    Args:
        stem: Of its files' names.
        files: `{folder: {stem: path}}`.
        root: The data set's folder.
    """

    def __init__(self, stem, files, root):
        path = files[IMAGES][stem]
        self.xml, self.reason, self.notes = files[ANNOTATIONS][stem], "", []
        self.picture = Picture(path, os.path.relpath(path, root))
        self.picture.mask = files.get(OF_CLASSES, {}).get(stem)
        self.picture.shapes = files.get(OF_OBJECTS, {}).get(stem)

    @property
    def usable(self):
        return not self.reason

    def read(self):
        """Read the XML file; sets `reason` where it cannot be used."""
        try:
            with open(self.xml, "rb") as file:
                content = file.read()
            if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # which may be without an end
                raise ValueError
            root = ElementTree.fromstring(content)  # noqa: S314
        except (OSError, ValueError, LookupError, ElementTree.ParseError):
            self.reason = "have an annotation that is no XML file"
            return
        sides = [_number(root.findtext(f"size/{name}")) for name in ("height", "width")]
        if all(np.isfinite(sides)) and min(sides) > 0:  # many programs write 0 or nothing
            self.picture.size = tuple(int(side) for side in sides)
        for number, found in enumerate(root.findall("object"), 1):
            name = " ".join((found.findtext("name") or "").split())
            if not name:
                self.notes.append("left out {} objects without a name")
                continue
            corners = [_number(found.findtext(f"bndbox/{name}")) for name in CORNERS]
            box = (corners[0] - 1, corners[1] - 1, *corners[2:])
            difficult = (found.findtext("difficult") or "0").strip() not in ("0", "")
            if difficult:
                self.notes.append(f"{{}} objects are difficult: {objects.NOT_LEARNED}")
            self.picture.objects.append(Object(name, box, difficult, number))


def _number(text):
    """A text as a number; NaN where it is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _read_all(annotated, wrong, told):
    with ThreadPoolExecutor() as pool:
        list(pool.map(_Annotated.read, annotated))
    for one in annotated:
        if one.reason:
            wrong.setdefault(one.reason, []).append((one.picture.path, readable(one.xml)))
        for note in one.notes:
            told.add(note, one.picture.name)


def _class_names(parts, root, where, options):
    """The names of the classes; UserError where an object is of none of them."""
    first = {}  # name: the file where it stands first
    for of_part in parts.values():
        for one in of_part:
            for found in one.picture.objects:
                first.setdefault(found.label, one.xml)
    path = next(
        (p for f in (root.path, where) if os.path.isfile(p := os.path.join(f, CLASSES))), None
    )
    if path is None:
        if os.path.basename(root.path).casefold().startswith("voc") and set(first) <= set(
            CLASS_NAMES
        ):
            return CLASS_NAMES
        if not first:
            raise UserError(f"{options.name}: there are no objects with a name")
        return tuple(sorted(first))
    names = tuple(line.strip() for line in read_text(path, options).strip().split("\n"))
    if "" in names or len(set(names)) < len(names):
        raise UserError(
            f"{options.name}: {readable(path)} must name the classes, a line each, no two alike"
        )
    for name, xml in first.items():
        if name not in names:
            raise UserError(
                f"{options.name}: {readable(xml)} has an object {readable(name)}, which is none of "
                f"the {len(names)} classes in {readable(path)}"
            )
    return names


def _drawn(picture, place, kinds, classes):
    """The masks of a picture, see `objects.load`: of `classes` classes without the background."""
    semantic, each = np.zeros(place.image_size, np.int32), [None] * len(picture.objects)
    if picture.mask and "mask" in kinds:
        mask = _pixels(picture.mask, place)
        if ((mask > classes) & (mask != VOID)).any():
            raise ValueError(f"have a mask of classes above {classes}")
        semantic = place.sampled(mask, VOID)
    if picture.shapes and "instances" in kinds:
        mask = place.sampled(_pixels(picture.shapes, place))
        each = [mask == one.shape for one in picture.objects]
        each = [one if one.any() else None for one in each]
    return semantic, each


def _pixels(path, place):
    """The numbers in a PNG file; ValueError where it is no mask of the picture."""
    try:
        with Image.open(path) as image:
            size, mode = (image.height, image.width), image.mode
            mask = np.asarray(image).astype(np.int64)
    except Exception:  # of damaged bytes Pillow raises many kinds
        raise ValueError("have a mask that cannot be read") from None
    if mode not in INDEXED:
        raise ValueError("have a mask whose pixels are colors, not numbers of classes")
    if size != place.size:
        raise ValueError("have a mask of another size")
    return mask
