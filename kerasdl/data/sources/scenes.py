"""`scenes`: one to five handwritten digits on a canvas, with everything that is true of them."""

import numpy as np

from kerasdl.columns import Column, DataInfo
from kerasdl.data import scenes, wanted
from kerasdl.data.splits import ArraySplit, make_source
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
MORE = {"digits=1": {"label": "label"}}
# Colors, and how many digits at most, of each argument
ARGUMENTS = {"": (1, 5), "colors=1": (1, 5), "colors=6": (6, 5), "digits=1": (1, 1)}
MEMORY_BYTES = 4 * 2**30


def load(where, options):
    """4,000 training scenes of the seed, and the same 500 and 1,000 for validation and test.

    They are gray, or colored with the argument `colors=6`, of one digit each with `digits=1`, which
    is also the `label` then, and 48x48 pixels if `image_size` does not say otherwise. All are made
    at once, a few thousand a second: called from TensorFlow's threads, Python may never end.
    """
    if where not in ARGUMENTS:
        raise UserError(f"{options.name}: the argument must be colors=1, colors=6 or digits=1")
    size, (colors, digits) = options.image_size or scenes.SIZE, ARGUMENTS[where]
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
    if where in MORE:
        columns["label"] = Column("label", (), scenes.CLASS_NAMES[1:])
    names = wanted.used(wanted.kinds(columns), options.task)

    def sample(part, index):
        scene = scenes.scene(options.seed, part, index, size, colors, digits)
        scene["label"] = scene["labels"][0]
        return {name: np.asarray(scene[name]) for name in names}

    count = sum(scenes.COUNTS.values())
    if count * sum(value.nbytes for value in sample("test", 0).values()) > MEMORY_BYTES:
        raise UserError(
            f"{options.name}: {count} scenes of {size[0]}x{size[1]} pixels do not fit into memory "
            f"({MEMORY_BYTES >> 30} GiB); give a smaller --image-size"
        )
    splits = {
        part: ArraySplit(_stacked(lambda index, part=part: sample(part, index), n))
        for part, n in scenes.COUNTS.items()
    }
    return make_source(options, splits, DataInfo(columns), ())


def _stacked(sample, count):
    """`{column: array (count, ...)}` of the examples `sample(index)`; texts as bytes."""
    arrays = {}
    for index in range(count):
        for name, value in sample(index).items():
            text = value.dtype.kind == "U"
            if index == 0:
                arrays[name] = np.empty((count, *value.shape), object if text else value.dtype)
            arrays[name][index] = str(value).encode() if text else value
    return arrays
