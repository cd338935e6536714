"""`photos`: patches of the two photographs that come with scikit-learn, a temple and a dahlia."""

import numpy as np

from kerasdl.columns import PARTS
from kerasdl.data.arrays import from_arrays
from kerasdl.errors import UserError

GIVES = {"image": "image", "label": "label"}
ARGUMENTS = {"size": ("32", "64"), "classes": ("regions", "pictures")}  # the defaults first
PICTURES = ("china", "flower")
REGIONS = (2, 2)  # of a picture: rows, columns
BLOCKS = (3, 4)  # of a region, each of one part
TURN = 6  # of so many blocks in turn one is validation and one is test
COUNTS = dict(zip(PARTS, (500, 60, 120), strict=True))  # patches of each region


def load(where, options):
    """4,000 training patches, 480 of validation and 960 of test, the same ones always.

    A quarter of a picture is a region, and each is cut into 3x4 blocks: no patch has pixels of
    blocks of two parts, so that no pixel is in two parts. `size=64` makes patches of 64x64 pixels,
    which overlap more, `classes=pictures` tells the two pictures apart, not the eight regions.
    """
    given = _arguments(where, options)
    size, by_region = int(given["size"]), given["classes"] == "regions"
    patches = [_patches(number, size) for number in range(len(PICTURES))]
    rng = np.random.default_rng(0)
    parts = {}
    for part in PARTS:
        images, regions = (np.concatenate(x) for x in zip(*(p[part] for p in patches), strict=True))
        order = rng.permutation(len(images))
        labels = regions if by_region else regions // np.prod(REGIONS)
        parts[part] = (images[order], labels[order])
    names = PICTURES
    if by_region:
        names = [f"{name} {k + 1}" for name in PICTURES for k in range(np.prod(REGIONS))]
    return from_arrays(parts, options, class_names=names)


def _arguments(where, options):
    """The arguments `{name: value}`; UserError where they are not of `ARGUMENTS`."""
    given = {name: values[0] for name, values in ARGUMENTS.items()}
    for text in filter(None, where.split(",")):
        name, _, value = text.partition("=")
        if value not in ARGUMENTS.get(name, ()):
            allowed = " or ".join(f"{n}={v}" for n, values in ARGUMENTS.items() for v in values)
            raise UserError(
                f"{options.name}: {text} must be {allowed}; several are joined by commas"
            )
        given[name] = value
    return given


def _patches(number, size):
    """`{part: (images uint8 (n, size, size, 3), regions int (n,))}` of one picture."""
    from sklearn.datasets import load_sample_image

    picture = load_sample_image(f"{PICTURES[number]}.jpg")
    height, width = picture.shape[:2]
    row = np.arange(height) * (REGIONS[0] * BLOCKS[0]) // height
    column = np.arange(width) * (REGIONS[1] * BLOCKS[1]) // width
    region = REGIONS[1] * (row // BLOCKS[0])[:, None] + column // BLOCKS[1]
    turn = (column + 2 * (row % BLOCKS[0])[:, None] + region) % TURN  # each twice in a region
    part = np.select([turn == 0, turn == TURN // 2], [1, 2], 0)
    area = np.lib.stride_tricks.sliding_window_view(len(PARTS) * region + part, (size, size))
    inside = np.where(area.min((2, 3)) == area.max((2, 3)), area[:, :, 0, 0], -1)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size), (0, 1))
    rng = np.random.default_rng(number)
    images, regions = {name: [] for name in PARTS}, {name: [] for name in PARTS}
    for k in range(np.prod(REGIONS)):
        for p, (name, count) in enumerate(COUNTS.items()):
            places = np.argwhere(inside == len(PARTS) * k + p)
            top, left = rng.permutation(places)[:count].T
            images[name].append(np.moveaxis(windows[top, left], 1, -1))
            regions[name].append(np.full(count, number * np.prod(REGIONS) + k))
    return {p: (np.concatenate(images[p]), np.concatenate(regions[p])) for p in PARTS}
