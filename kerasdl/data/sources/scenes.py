"""`scenes`: one to five handwritten digits on a canvas, with everything that is true of them."""

import numpy as np

from kerasdl.columns import Column, DataInfo
from kerasdl.data import scenes, wanted
from kerasdl.data.sources.text import captions_for
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
    "caption_ids": "tokens",
    "question": "text",
    "answer": "text",
}
MORE = {where: {"label": "label"} for where in ("digits=1", "colors=6,digits=1")}
CAPTION_IDS = "caption_ids"
# Colors, and how many digits at most, of each argument
ARGUMENTS = {"": (1, 5), "colors=1": (1, 5), "colors=6": (6, 5), "digits=1": (1, 1)}
ARGUMENTS |= {"digits=2": (1, 2), "colors=6,digits=1": (6, 1), "colors=6,digits=2": (6, 2)}
MEMORY_BYTES = 4 * 2**30


def load(where, options):
    """4,000 training scenes of the seed, and the same 500 and 1,000 for validation and test.

    They are gray, or colored with the argument `colors=6`, of one digit each with `digits=1`, which
    is also the `label` then, of one or two with `digits=2`, and 48x48 pixels if `image_size` does
    not say otherwise. Captions are also there as token ids, `caption_ids`. All are made at once, a
    few thousand a second: called from TensorFlow's threads, Python may never end.
    """
    if where not in ARGUMENTS:
        *others, last = filter(None, ARGUMENTS)
        raise UserError(f"{options.name}: the argument must be {', '.join(others)} or {last}")
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
    names, tokenizers = wanted.used(wanted.kinds(columns), options.task), {}
    reads = CAPTION_IDS in (wanted.specs(options.task) or GIVES)
    names += ["caption"] * (reads and "caption" not in names)

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
    arrays = {
        part: _stacked(lambda index, part=part: sample(part, index), n)
        for part, n in scenes.COUNTS.items()
    }
    if reads:
        texts = {part: [text.decode() for text in one["caption"]] for part, one in arrays.items()}
        ids, columns[CAPTION_IDS], tokenizers = captions_for(options, texts)
        for part, one in arrays.items():
            one[CAPTION_IDS] = ids[part]
    splits = {part: ArraySplit(one) for part, one in arrays.items()}
    return make_source(options, splits, DataInfo(columns, tokenizers), ())


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
