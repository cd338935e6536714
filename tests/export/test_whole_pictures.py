"""Boxes and masks are served and shown in the whole picture, whatever the model was given of it."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl.columns import Column, DataInfo, Spec
from kerasdl.data import images, runs
from kerasdl.inference import predict
from kerasdl.inference.interface import Interface
from kerasdl.inference.signatures import functions, interface
from kerasdl.recipe import Recipe
from kerasdl.tasks.task import Signature
from tests.data.objects import tight

SHAPE = (40, 40, 3)
BOX = (20, 40, 50, 90)  # ymin xmin ymax xmax of the rectangle in pixels
SIZES = [(60, 120), (150, 100), (70, 100)]  # wide, high, and with an orientation


class Finder:
    """Its answer is the box around what is bright, and one that is absent."""

    info = DataInfo({"image": Column("image", SHAPE), "boxes": Column("boxes", (2, 4))})
    sizes = dict

    def __init__(self, **settings):
        self.run_recipe = Recipe(model="finder", **settings)

    def signatures(self, model):
        def serve(image):
            bright, ends = image[..., 0] > 0.5, []
            for axis in (2, 1):  # rows, columns
                seen = tf.cast(tf.reduce_any(bright, axis=axis), tf.float32)
                n = seen.shape[1]
                number = tf.range(n, dtype=tf.float32)
                low = n - tf.reduce_max(seen * (n - number), axis=1)
                ends.append((low / n, tf.reduce_max(seen * (number + 1.0), axis=1) / n))
            box = tf.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1)
            mask = tf.cast(bright, tf.uint8)
            return {
                "boxes": tf.stack([box, tf.zeros_like(box)], axis=1),
                "masks": tf.stack([mask, tf.zeros_like(mask)], axis=1),
            }

        outputs = {"boxes": Spec((2, 4), "float32", "boxes")}
        outputs["masks"] = Spec((2, *SHAPE[:2]), "uint8", "instances")
        inputs = {"image": Spec(SHAPE, "float32", "image")}
        return [Signature("serving_default", inputs, serve, outputs=outputs)]


def files():
    """Encoded pictures of a white rectangle, and its box in fractions."""
    for number, (height, width) in enumerate(SIZES):
        pixels = np.zeros((height, width, 3), np.uint8)
        y, x, bottom, right = BOX
        pixels[y:bottom, x:right] = 255
        fractions = np.array([y / height, x / width, bottom / height, right / width])
        image, file, more = Image.fromarray(pixels), io.BytesIO(), {}
        if number == 2:
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif = Image.Exif()
            exif[0x0112] = 6
            more = {"format": "JPEG", "exif": exif, "quality": 100}
        image.save(file, **({"format": "PNG"} | more))
        yield file.getvalue(), fractions


@pytest.mark.parametrize(
    "settings", [{}, {"resize": "pad"}, {"resize": "crop"}, {"crop_fraction": 0.9}]
)
def test_boxes_are_those_of_the_picture(settings, tmp_path):
    task = Finder(**settings)
    served, _ = functions(task, abs, "savedmodel")["serve_bytes"]
    contents, boxes = zip(*files(), strict=True)
    found = served(tf.constant(list(contents)))["boxes"].numpy()
    seen = np.stack(boxes)
    if settings.get("resize") == "crop":  # what is in the middle
        for one, (height, width) in zip(seen, SIZES, strict=True):
            side = min(height, width)
            top, left = (height - side) / 2, (width - side) / 2
            low = np.array([top / height, left / width])
            one[:] = np.clip(one, np.tile(low, 2), np.tile(1 - low, 2))
    np.testing.assert_allclose(found[:, 0], seen, atol=2 / 40)
    assert not found[:, 1].any()

    described = interface(task, abs)["savedmodel"]
    fit = images.Fit.from_recipe(task.run_recipe)
    serving = Interface("finder", task.info, None, described, fit)
    for number, content in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(content)
        for name, key in (("serve_bytes", "image_bytes"), ("serving_default", "image")):
            function, _ = functions(task, abs, "savedmodel")[name]
            artifact = SimpleNamespace(
                interface=serving,
                answer=lambda name, inputs, function=function: {
                    k: v.numpy() for k, v in function(*map(tf.constant, inputs.values())).items()
                },
            )
            request = {"image": str(tmp_path / f"{number}")}
            result, picture = predict._answer(artifact, name, {"image": key}, request, {}, {}, 0)
            np.testing.assert_allclose(result["objects"][0]["box"], found[number, 0], atol=0.02)
            code = result["objects"][0]["mask"]
            mask = runs.of_coco(code, tuple(code["size"]))
            np.testing.assert_allclose(tight(mask) / 40, found[number, 0], atol=2 / 40)
            whole = predict.decoded("", content, SHAPE, images.SQUASH)
            changed = np.abs(np.asarray(picture) / 255.0 - whole).max(-1) > 0.2
            ys, xs = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            around = np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1]) / 40
            np.testing.assert_allclose(around, found[number, 0], atol=2 / 40)
