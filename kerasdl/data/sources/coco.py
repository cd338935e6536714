"""`coco:FOLDER`: images and a JSON file of their objects in the format of COCO.

Source: Lin et al. 2014, https://arxiv.org/abs/1405.0312; https://cocodataset.org/#format-data.
"""

import json
import os

import numpy as np

from kerasdl.columns import VOID
from kerasdl.data import runs, wanted
from kerasdl.data.images import FORMATS
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout, objects
from kerasdl.data.sources.objects import Object, Picture
from kerasdl.errors import UserError

GIVES = objects.GIVES | {"caption": "text"}
ENDING = ".json"
LISTS = ("images", "annotations", "categories")
CAPTIONS = "captions"
OTHERS = ("person_keypoints", "stuff", "panoptic", "image_info")  # names of COCO's other files
UNLISTED = "images that no annotations list"
UNUSED = "JSON files that are not used"
MASKS = ("mask", "instances")


def load(where, options):
    """COCO's folders, `annotations/instances_train2017.json` and `train2017/`; Roboflow's, where
    `_annotations.coco.json` lies beside the images of each part; or one JSON file and its images.

    A JSON file is of the part in its name or in its folder's, of all where there is none; missing
    parts are sampled from the training images with the seed. An image is the file whose path ends
    most like `file_name`. Classes are the categories in the order of their ids. Boxes are clipped
    to the image, objects without an area left out, and images without objects kept. `iscrowd`: not
    learned, and detections in it are neither right nor wrong. In the mask 0 is the background, the
    smallest of several objects is on top, and a crowd is not labeled. The caption is the first one
    of `captions_*.json`.
    """
    if not os.path.isdir(where):
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no folder {readable(where)}{right}")
    left, told = layout.LeftOut(where), objects.Told()
    tree = layout.read_tree(where, (*FORMATS, ENDING), left, options.skip_bad_files)
    paths = tree.paths()
    tables, captions = _annotation_files(where, paths, left, options)
    columns = list(objects.GIVES) + [CAPTIONS[:-1]] * bool(captions)
    names = set(wanted.used({name: GIVES[name] for name in columns}, options.task))
    contents = {part: _parsed(path, LISTS, options) for part, path in tables.items()}
    classes = _classes(tables, contents, options)
    known = _Files(where, [path for path in paths if not path.lower().endswith(ENDING)])
    wrong, parts, shapes = {}, {}, False
    for part in (part for part in layout.PARTS if part in tables):
        table = _Table(tables[part], part, contents.pop(part), options)
        table.read_images(known, wrong, told)
        shapes |= table.read_objects(classes, bool(names & set(MASKS)), told)
        if part in captions and CAPTIONS[:-1] in names:
            table.read_captions(_parsed(captions[part], LISTS[:2], options))
        parts[part] = list(table.pictures.values())
    for path in known.unused():
        left.add(UNLISTED, path)
    if not any(parts.values()):
        objects.refuse_or_note(wrong, 0, options)
        raise UserError(f"{options.name}: the annotations list no images")
    needed = [name for name in MASKS if name in wanted.needed(options.task)]
    if not shapes and needed:
        raise UserError(f"{options.name}: no object has a segmentation, which {needed[0]} is of")
    without = set() if shapes else set(MASKS)
    if len(classes) >= VOID:
        if "mask" in needed:
            raise UserError(f"{options.name}: {len(classes)} classes; a mask holds {VOID - 1}")
        without.add("mask")
    columns = [name for name in columns if name not in without]
    class_names = [name for name, _ in classes.values()]
    return objects.load(parts, class_names, drawn, options, wrong, told, left.notes(), columns)


def _annotation_files(where, paths, left, options):
    """`{part: path}` of the files of objects, and of those of captions."""
    given = [path for path in paths if path.lower().endswith(ENDING)]
    kinds = {}
    for path in given:
        name = os.path.basename(path).lower()
        kind = next((k for k in ("instances", CAPTIONS, *OTHERS) if name.startswith(k)), "")
        kinds.setdefault(kind, []).append(path)
    chosen = kinds.get("instances") or kinds.get("", [])
    if not chosen:
        there = ", ".join(readable(os.path.relpath(path, where)) for path in given[:10])
        raise UserError(
            f"{options.name}: there must be a JSON file of annotations, as "
            f"annotations/instances_train2017.json; there are {there or 'none'}"
        )
    result = []
    for files in (chosen, kinds.get(CAPTIONS, [])):
        by_part = {}
        for path in files:
            names = os.path.relpath(path, where).split(os.sep)
            part = next((p for name in names[::-1] if (p := layout.part_in(name))), None)
            by_part.setdefault(part, []).append(path)
        if len(by_part) == 1 and None in by_part:
            by_part = {"train": by_part[None]}
        for part, own in by_part.items():
            if part and len(own) > 1:
                names = " and ".join(readable(os.path.relpath(path, where)) for path in own)
                raise UserError(f"{options.name}: {names} are of the {part} part; leave one")
        result.append({part: own[0] for part, own in by_part.items() if part})
    if "train" not in result[0]:
        raise UserError(
            f"{options.name}: there are no annotations of the training part, but of "
            f"{', '.join(result[0])}"
        )
    for path in given:
        if not any(path in of_kind.values() for of_kind in result):
            left.add(UNUSED, path)
    return result


def _parsed(path, lists, options):
    """The lists of a JSON file of annotations."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{options.name}: {readable(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        line = readable(str(error)) if isinstance(error, json.JSONDecodeError) else "damaged"
        raise UserError(f"{options.name}: {readable(path)} is no JSON file: {line}") from error
    for name in lists:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise UserError(
                f"{options.name}: {readable(path)} is none of COCO's format: it must hold the "
                f"lists {', '.join(lists)}, of objects each"
            )
    return content


def _classes(tables, contents, options):
    """`{category id: (name, number)}` in the order of the ids."""
    names = {}
    for part, path in tables.items():
        for entry in contents[part]["categories"]:
            key, name = entry.get("id"), entry.get("name")
            if type(key) is not int or not isinstance(name, str) or not name.strip():
                raise UserError(
                    f"{options.name}: {readable(path)}: the category {readable(repr(entry)[:80])} "
                    "must have a whole number as its id, and a name"
                )
            other = names.setdefault(key, name.strip())
            if other != name.strip():
                raise UserError(
                    f"{options.name}: {readable(path)}: the category {key} is called "
                    f"{readable(name)}, elsewhere {readable(other)}"
                )
    repeated = {name for name in names.values() if list(names.values()).count(name) > 1}
    if repeated or not names:
        what = f"two are called {readable(min(repeated))}" if names else "there are none"
        raise UserError(f"{options.name}: the categories must have a name each, but {what}")
    return {key: (names[key], number) for number, key in enumerate(sorted(names))}


class _Files:
    """The image files of a folder, to be found by the ends of their paths."""

    def __init__(self, root, paths):
        self.root, self.paths, self._used = root, paths, set()
        self._by_name = {}
        for path in paths:
            self._by_name.setdefault(os.path.basename(path), []).append(path)

    def find(self, name, beside, part):
        """The path of the file that is named so, or several, or none.

        Args:
            name: Of the file, with some of the folders around it.
            beside: Folder of the annotations.
            part: What they are of.
        """
        words = [word for word in name.replace("\\", "/").split("/") if word not in ("", ".")]

        def likeness(path):
            own = os.path.relpath(path, self.root).split(os.sep)
            alike = 0
            while alike < min(len(own), len(words)) and own[-1 - alike] == words[-1 - alike]:
                alike += 1
            parts = {layout.part_in(folder) for folder in own[:-1]} - {None}
            inside = path.startswith(os.path.join(beside, ""))
            return alike, part in parts, not parts, inside

        found = self._by_name.get(words[-1], []) if words else []
        best = max(map(likeness, found), default=None)
        found = [path for path in found if likeness(path) == best]
        self._used.update(found)
        return found

    def unused(self):
        """The files that were not looked for."""
        return [path for path in self.paths if path not in self._used]


class _Table:
    """One file of annotations.

    Args:
        path: Of the file.
        part: Of the data set.
        content: Its lists.
        options: Of `open_source`.
    """

    def __init__(self, path, part, content, options):
        self.path, self.part, self.content, self.options = path, part, content, options
        self.pictures = {}  # by path
        self._of_id = {}  # image id: Picture, or None where it cannot be used

    def _refuse(self, line):
        raise UserError(f"{self.options.name}: {readable(self.path)}: {line}")

    def read_images(self, files, wrong, told):
        """Find the files of the images that are listed."""
        named = {}
        for entry in self.content["images"]:
            key, name = entry.get("id"), entry.get("file_name")
            if type(key) not in (int, str) or not isinstance(name, str) or not name:
                self._refuse(
                    f"the image {readable(repr(entry)[:80])} must have an id and a file_name"
                )
            if named.setdefault(key, name) != name:
                self._refuse(
                    f"the images {readable(named[key])} and {readable(name)} have one id, {key}"
                )
            if key in self._of_id:
                told.add("{} images that are listed twice are taken once", name)
                continue
            self._of_id[key] = None
            found = files.find(name, os.path.dirname(self.path), self.part)
            if len(found) != 1:
                reason = "lie in more than one folder" if found else "are not there"
                wrong.setdefault(reason, []).append((name, readable(found[0]) if found else ""))
                continue
            size = (entry.get("height"), entry.get("width"))
            size = None if size == (None, None) else tuple(map(_whole, size))
            picture = Picture(found[0], os.path.relpath(found[0], files.root), size=size)
            if found[0] in self.pictures:
                told.add("{} images that are listed twice have the objects of both", name)
                picture = self.pictures[found[0]]
            self._of_id[key] = self.pictures[found[0]] = picture

    def read_objects(self, classes, shapes, told):
        """Give the images their objects; returns whether one has a segmentation.

        Args:
            classes: Of `_classes`.
            shapes: Whether segmentations are wanted.
            told: A `Told`.
        """
        some = False
        for entry in self.content["annotations"]:
            image, category = (_key(entry.get(name)) for name in ("image_id", "category_id"))
            if image not in self._of_id:
                told.add("left out {} objects of images that are not listed", _named(entry))
                continue
            if category not in classes:
                known = ", ".join(f"{key} {name}" for key, (name, _) in list(classes.items())[:10])
                self._refuse(
                    f"{_named(entry)} has the category {readable(repr(category)[:40])}, which is "
                    f"none of {readable(known)}{', ...' * (len(classes) > 10)}"
                )
            picture, given = self._of_id[image], entry.get("segmentation")
            if picture is None:
                continue
            some |= bool(given)
            box = _box(entry.get("bbox"))
            shape = None
            if given and (shapes or box is None):
                shape = _segmentation(given, _named(entry), told)
                if box is None and isinstance(shape, list):
                    corners = np.concatenate(shape)[:, ::-1]
                    box = (*corners.min(0).tolist(), *corners.max(0).tolist())
            box = (np.nan,) * 4 if box is None else box
            crowd = entry.get("iscrowd") in (1, True)
            if crowd:
                told.add(f"{{}} objects are crowds: {objects.NOT_LEARNED}", picture.name)
            number = classes[category][1]
            picture.objects.append(Object(number, box, crowd, shape))
        return some

    def read_captions(self, content):
        """Give the images their first caption."""
        for entry in content["annotations"]:
            picture, text = self._of_id.get(_key(entry.get("image_id"))), entry.get("caption")
            if picture is not None and picture.caption is None and isinstance(text, str):
                picture.caption = " ".join(text.split()).encode("utf-8", "replace")


def drawn(picture, place, kinds):
    """The semantic mask of a picture, and one of each object that has a shape; see
    `objects.load`."""
    masks = []
    for one in picture.objects:
        mask = None
        if isinstance(one.shape, list):
            mask = runs.of_polygons(
                [place.points(points) for points in one.shape], place.image_size
            )
        elif one.shape is not None:
            mask = runs.of_coco(one.shape, place.size)
            mask = None if mask is None else place.sampled(mask, False)
        masks.append(mask)
    if "mask" not in kinds:
        return None, masks
    solid = [
        objects.filled(one, place) if mask is None or not mask.any() else mask
        for one, mask in zip(picture.objects, masks, strict=True)
    ]
    return objects.painted(picture.objects, solid, place.image_size), masks


def _segmentation(given, where, told):
    """Polygons `[(n, 2)]`, a run-length encoding, or None, of which it is told."""
    if isinstance(given, dict):
        return given
    if not isinstance(given, list):
        given = [given]
    if all(type(value) in (int, float) for value in given):
        given = [given]  # one polygon without the list around it
    polygons = []
    for one in given:
        numbers = isinstance(one, list) and all(type(value) in (int, float) for value in one)
        points = np.array(list(map(_number, one[: len(one) // 2 * 2])) if numbers else [np.nan])
        if not np.isfinite(points).all():
            told.add("left out {} segmentations that cannot be read", where)
        elif len(points) < 6:
            told.add("left out {} polygons of less than three points", where)
        else:
            polygons.append(points.reshape(-1, 2))
    return polygons or None


def _box(given):
    """`ymin xmin ymax xmax` of COCO's `x y width height`, or None where it is no box."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    if not all(type(value) in (int, float) for value in given):
        return None
    x, y, width, height = map(_number, given)
    return y, x, y + height, x + width


def _number(value):
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _whole(value):
    """A side of an image as a whole number; -1 where it is none."""
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return int(value) if whole else -1


def _key(value):
    """An id as a key: what is none is the key of nothing."""
    return value if type(value) in (int, str) else None


def _named(entry):
    return f"annotation {readable(repr(entry.get('id'))[:40])}"
