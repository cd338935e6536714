"""Boxes and masks of TensorFlow Datasets, of tiny ones that are made on the spot."""

import numpy as np
import pytest

from kerasdl.columns import VOID
from kerasdl.data.images import Fit
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.objects import NAMES, Boxes, Pixels, Shapes, scenes
from tests.data.shared import Labeled, lengths, noted
from tests.data.test_coco import SIDE, check_pixels, rows_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`TinyObjects` with boxes and masks, and `TinyFaces` with boxes alone, on disk."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    f = tfds.features

    class TinyObjects(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            one = {
                "bbox": f.BBoxFeature(),
                "label": f.ClassLabel(names=NAMES),
                "is_crowd": np.bool_,
            }
            features = {
                "image": f.Image(shape=(None, None, 3), encoding_format="png"),
                "objects": f.Sequence(one),
                "segmentation_mask": f.Image(shape=(None, None, 1), encoding_format="png"),
            }
            return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(15), "test": self._generate_examples(6)}

        def _generate_examples(self, n):
            for i, (picture, objects) in enumerate(scenes(n)):
                height, width = picture.shape[:2]
                mask = np.zeros((height, width, 1), np.uint8)
                boxes = []
                for kind, y, x, bottom, right in objects:
                    mask[y:bottom, x:right] = kind + 1
                    box = f.BBox(y / height, x / width, bottom / height, right / width)
                    boxes.append({"bbox": box, "label": kind, "is_crowd": False})
                if not objects:
                    mask[0, 0] = VOID
                    boxes = [{"bbox": f.BBox(0.0, 0.0, 1.0, 1.0), "label": 0, "is_crowd": True}]
                yield i, {"image": picture, "objects": boxes, "segmentation_mask": mask}

    class TinyFaces(TinyObjects):
        def _info(self):
            features = {
                "image": f.Image(shape=(None, None, 3), encoding_format="png"),
                "faces": f.Sequence({"bbox": f.BBoxFeature()}),
            }
            return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

        def _generate_examples(self, n):
            for key, row in super()._generate_examples(n):
                boxes = [{"bbox": one["bbox"]} for one in row["objects"]]
                yield key, {"image": row["image"], "faces": boxes}

    path = tmp_path_factory.mktemp("tfds")
    for builder in (TinyObjects, TinyFaces):
        builder(data_dir=str(path)).download_and_prepare()
    return str(path)


def opened(folder, task, name="tiny_objects", **more):
    more = {"image_size": (SIDE, SIDE), "val_split": 0.2, "data_dir": folder} | more
    return open_source(f"tfds:{name}", task=task, **more)


@pytest.mark.parametrize("fit", [Fit(), Fit("crop"), Fit("pad")])
def test_boxes_and_masks_lie_on_their_pixels(folder, fit):
    source = opened(folder, Boxes, fit=fit)
    assert lengths(source) == (12, 3, 6) and noted(source, "validation part: the last 20% of 15")
    assert source.info.columns["labels"].class_names == NAMES
    assert noted(source, "2 objects are crowd: not learned, and detections of them do not count")
    rows = rows_of(source)
    assert rows["crowd"].sum() == 2 and not (rows["crowd"] & rows["valid"]).any()
    assert check_pixels(rows, NAMES) >= 20
    source = opened(folder, Pixels, fit=fit)
    assert source.info.columns["mask"].class_names == ("0", "1", "2")
    rows = rows_of(source)
    assert check_pixels(rows, NAMES) >= 20
    assert fit.mode == "crop" or (rows["mask"] == VOID).any()


def test_boxes_without_labels_are_of_one_class(folder):
    source = opened(folder, Boxes, "tiny_faces")
    assert source.info.columns["labels"].class_names == ("faces",)
    rows = rows_of(source)
    assert rows["valid"].any() and (rows["labels"][rows["valid"]] == 0).all()


def test_what_there_is_not(folder):
    for task, name, line in (
        (Shapes, "tiny_objects", r"tiny_objects has image, boxes, labels \(label\)"),
        (Pixels, "tiny_faces", r"has image, boxes, .* but the model's task needs image and mask"),
        (Labeled, "tiny_faces", "but the model's task needs image and label"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            opened(folder, task, name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="images differ in size; give --image-size"):
        opened(folder, Boxes, image_size=())
    assert {c.kind for c in opened(folder, None).info.columns.values()} == {
        "image",
        "boxes",
        "label",
        "valid",
    }


def test_sets_that_are_not_there(tmp_path, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match="tfds:voc is not in .* and cannot be downloaded"):
        opened(str(tmp_path), Boxes, "voc")
    with pytest.raises(
        UserError, match="voc needs a path: voc:FOLDER; the set of TFDS is tfds:voc"
    ):
        open_source("voc", task=Boxes)
