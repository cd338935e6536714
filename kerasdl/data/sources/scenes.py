"""`scenes`: one to five handwritten digits on a canvas, with everything that is true of them."""

import numpy as np
import tensorflow as tf

from kerasdl.columns import Column, DataInfo
from kerasdl.data import scenes, wanted
from kerasdl.data.splits import ArraySplit, Split, make_source
from kerasdl.errors import UserError

GIVES = {
    "image": "image",
    "mask": "mask",
    "instances": "instances",
    "boxes": "boxes",
    "labels": "label",
    "valid": "valid",
    "caption": "text",
    "question": "text",
    "answer": "text",
}
COLORS = {"": 1, "colors=1": 1, "colors=6": 6}
MEMORY_BYTES = 512 * 2**20  # scenes up to this size are drawn at once, a few thousand a second


class SceneSplit(Split):
    """Scenes that are drawn when they are needed.

    Args:
        seed, part, size, colors: Of `kerasdl.data.scenes.scene`.
        names: Of the columns.
    """

    def __init__(self, seed, part, size, colors, names):
        self.arguments, self.part = (seed, part, size, colors), part
        self.columns_of = {name: np.asarray(self.sample(0)[name]) for name in names}

    def __len__(self):
        return scenes.COUNTS[self.part]

    def sample(self, number):
        """One scene, its texts as bytes."""
        seed, part, size, colors = self.arguments
        scene = scenes.scene(seed, part, int(number), size, colors)
        return {k: v.encode() if isinstance(v, str) else v for k, v in scene.items()}

    def columns(self):
        return {"number": np.arange(len(self))}

    def load(self, row):
        types = {
            name: tf.string if example.dtype.kind == "S" else tf.as_dtype(example.dtype)
            for name, example in self.columns_of.items()
        }

        def sample(number):
            scene = self.sample(number)
            return [scene[name] for name in types]

        values = tf.numpy_function(sample, [row.pop("number")], list(types.values()))
        for (name, example), value in zip(self.columns_of.items(), values, strict=True):
            row[name] = tf.ensure_shape(value, example.shape)
        return row

    def only(self, names):
        return SceneSplit(*self.arguments, names)

    def in_memory(self) -> ArraySplit:
        """The same examples, drawn at once."""
        arrays = {
            name: np.empty((len(self), *e.shape), object if e.dtype.kind == "S" else e.dtype)
            for name, e in self.columns_of.items()
        }
        for number in range(len(self)):
            scene = self.sample(number)
            for name, array in arrays.items():
                array[number] = scene[name]
        return ArraySplit(arrays)


def load(where, options):
    """4,000 training scenes of the seed, and the same 500 and 1,000 for validation and test.

    They are gray, or colored where `colors=6` stands after the colon, and 48x48 pixels if
    `image_size` does not say otherwise.
    """
    if where not in COLORS:
        raise UserError(f"{options.name}: after the colon may stand colors=1 or colors=6")
    size, colors = options.image_size or scenes.SIZE, COLORS[where]
    objects = scenes.MAX_DIGITS
    columns = {
        "image": Column("image", (*size, 3 if colors > 1 else 1)),
        "mask": Column("mask", size, scenes.CLASS_NAMES),
        "instances": Column("instances", (objects, *size)),
        "boxes": Column("boxes", (objects, 4)),
        "labels": Column("label", (objects,), scenes.CLASS_NAMES[1:]),
        "valid": Column("valid", (objects,)),
        **{name: Column("text") for name in ("caption", "question", "answer")},
    }
    names = wanted.used(GIVES, options.task)
    splits = {part: SceneSplit(options.seed, part, size, colors, names) for part in scenes.COUNTS}
    example = sum(value.nbytes for value in splits["train"].columns_of.values())
    if example * sum(map(len, splits.values())) <= MEMORY_BYTES:
        splits = {part: split.in_memory() for part, split in splits.items()}
    return make_source(options, splits, DataInfo(columns), ())
