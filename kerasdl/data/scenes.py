"""`scenes`: one to five handwritten digits on a canvas, with everything that is true of them.

An example is a function of (seed, part, index) and nothing else, so a part may have any length. The
digits of each part come from the same part of scikit-learn's, so the writers of the test part are
unseen; the validation and test parts are the same whatever the seed.
"""

import functools

import numpy as np

from kerasdl.columns import PARTS
from kerasdl.data.handwriting import handwritten
from kerasdl.data.scene_texts import ANSWERS, COLORS, Digit, caption, question
from kerasdl.errors import UserError

__all__ = ["ANSWERS", "CLASS_NAMES", "COLORS", "COUNTS", "arrays", "scene"]

COUNTS = {"train": 4000, "validation": 500, "test": 1000}
CLASS_NAMES = ("background", *"0123456789")  # of the mask
SIZE = (48, 48)
MAX_DIGITS = 5  # M
MIN_SIDE, MAX_SIDE = 10, 22  # pixels of the longer side of a digit's box
MAX_OVERLAP = 0.3  # the intersection of two boxes, of the smaller one
INK = 80  # of 255: from here on a pixel belongs to a digit
BACKGROUND = 64  # of 255: the background stays below it, so every pixel of a digit is its own
COARSE = 5  # side of the random grid that the background is enlarged from
TRIES = 20  # random places for a digit before it is made smaller
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}


def scene(seed, part, index, size=SIZE, colors=1, maximum=MAX_DIGITS) -> dict:
    """One example.

    Args:
        seed: Of the training part, an int from 0 on; the other parts do not depend on it.
        part: "train", "validation" or "test".
        index: Of the example in its part, any int from 0 on.
        size: `(H, W)` of the canvas, at least 10 pixels a side; a small one holds fewer digits.
        colors: 1 for gray digits, 6 for digits in any of `COLORS`.
        maximum: Of digits, at most 5.

    Returns:
        `image` uint8 `(H, W, 1)`, or `(H, W, 3)` in colors; `mask` int32 `(H, W)` of `CLASS_NAMES`,
        the brightest digit's class where two overlap; `instances` uint8 `(M, H, W)`, 1 at
        every pixel of a digit, overlaps included; `boxes` float32 `(M, 4)`, `ymin xmin ymax
        xmax` in [0, 1], tight around the instances; `labels` int32 `(M,)`, 0 to 9; `valid` bool
        `(M,)`; `caption`, `question` and `answer`, strings. `M` is 5; rows that are not valid are
        0, their labels -1.

    Raises:
        ValueError: An unknown part, or an argument out of range.
    """
    height, width = _checked(seed, part, size, colors)
    if index < 0:
        raise ValueError(f"index {index}: must be at least 0")
    rng = np.random.default_rng((seed if part == "train" else 0, PARTS.index(part), index))
    digits, glyphs = _place(part, height, width, colors > 1, maximum, rng)
    ink = np.zeros((MAX_DIGITS, height, width), np.uint8)
    for layer, digit, glyph in zip(ink, digits, glyphs, strict=False):
        ymin, xmin, ymax, xmax = digit.box
        layer[ymin:ymax, xmin:xmax] = glyph
    brightest, owner = ink.max(0), ink.argmax(0)  # (H, W)
    labels = np.full(MAX_DIGITS, -1, np.int32)
    labels[: len(digits)] = [d.label for d in digits]
    boxes = np.zeros((MAX_DIGITS, 4), np.float32)
    boxes[: len(digits)] = [d.box for d in digits]
    question_text, answer = question(digits, rng)
    return {
        "image": _paint(brightest, owner, digits, rng),
        "mask": np.where(brightest >= INK, 1 + labels[owner], 0).astype(np.int32),
        "instances": (ink >= INK).view(np.uint8),
        "boxes": boxes / np.array([height, width, height, width], np.float32),
        "labels": labels,
        "valid": labels >= 0,
        "caption": caption(digits),
        "question": question_text,
        "answer": answer,
    }


def arrays(part, seed=0, count=None, size=SIZE, colors=1) -> dict[str, np.ndarray]:
    """The first examples of a part, column by column.

    Args:
        part, seed, size, colors: Of `scene`.
        count: How many; `COUNTS[part]` if None.

    Returns:
        `{column: array (count, ...)}` of the columns of `scene`.
    """
    _checked(seed, part, size, colors)
    count = COUNTS[part] if count is None else count
    if count < 1:
        raise ValueError(f"count {count}: must be at least 1")
    columns = {}
    for index in range(count):
        for name, value in scene(seed, part, index, size, colors).items():
            if isinstance(value, str):
                columns.setdefault(name, []).append(value)
            else:
                if name not in columns:
                    columns[name] = np.empty((count, *value.shape), value.dtype)
                columns[name][index] = value
    return {name: np.asarray(column) for name, column in columns.items()}


def _checked(seed, part, size, colors):
    """Height and width of the canvas, where all arguments are allowed."""
    if part not in PARTS:
        raise ValueError(f"part {part!r}: must be one of {', '.join(PARTS)}")
    if seed < 0:
        raise ValueError(f"seed {seed}: must be at least 0")
    if colors not in (1, len(COLORS)):
        raise ValueError(f"colors {colors}: must be 1 (gray) or {len(COLORS)}")
    size = tuple(size)
    if len(size) != 2 or min(size) < MIN_SIDE:
        raise UserError(
            f"--image-size {' '.join(map(str, size))}: scenes need a height and a width of at least"
            f" {MIN_SIDE} pixels, the side of the smallest digit"
        )
    return size


def _place(part, height, width, colored, maximum, rng):
    """One to `maximum` digits of a part, and the pixels of each.

    A digit that finds no place is made smaller; where even the smallest finds none, the scene has
    the digits before it.
    """
    labels = handwritten(part)[1]
    digits, glyphs = [], []
    for _ in range(rng.integers(1, maximum + 1)):
        row, color = int(rng.integers(len(labels))), COLORS[rng.integers(len(COLORS))]
        longest = int(rng.integers(MIN_SIDE, min(MAX_SIDE, height, width) + 1))
        for side in range(longest, MIN_SIDE - 1, -2):
            glyph = _glyph(part, row, side)
            h, w = glyph.shape
            for y, x in rng.integers((height - h + 1, width - w + 1), size=(TRIES, 2)).tolist():
                digit = Digit(int(labels[row]), color if colored else None, (y, x, y + h, x + w))
                if all(_apart(digit, other) for other in digits):
                    break
            else:
                continue
            digits.append(digit)
            glyphs.append(glyph)
            break
        else:
            break
    return digits, glyphs


def _apart(a, b):
    """Whether two digits cover little enough of each other, and have two centers."""
    (ymin, xmin, ymax, xmax), (y0, x0, y1, x1) = a.box, b.box
    h, w = min(ymax, y1) - max(ymin, y0), min(xmax, x1) - max(xmin, x0)
    if h <= 0 or w <= 0:
        return True
    return h * w <= MAX_OVERLAP * min(a.area, b.area) and a.center != b.center


@functools.cache
def _glyph(part, row, side):
    """A digit enlarged until its box's longer side is `side`: uint8 `(h, w)`, only that box."""
    image = 255.0 * handwritten(part)[0][row]
    enlarged = side  # nearly every digit fills its 8 pixels from edge to edge
    while True:
        weights = _bilinear(8, enlarged)
        pixels = np.rint(weights @ image @ weights.T).astype(np.uint8)
        inside = pixels >= INK
        ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = pixels[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        if max(box.shape) >= side:
            return box
        enlarged += 1


@functools.cache
def _bilinear(n, m):
    """Weights `(m, n)` that enlarge `n` pixels to `m`; beyond the edge all is 0."""
    at = (np.arange(m) + 0.5) * n / m - 0.5  # where each new pixel lies among the old ones
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(n)))


def _paint(brightest, owner, digits, rng):
    """The image uint8 `(H, W, C)`: the maximum of a soft background and of the digits."""
    height, width = brightest.shape
    channels = 3 if digits[0].color else 1
    grid = rng.random((channels, COARSE, COARSE), np.float32)
    rows, columns = (_bilinear(COARSE, n).astype(np.float32) for n in (height, width))
    texture = BACKGROUND * (rows @ grid @ columns.T).transpose(1, 2, 0)  # (H, W, C)
    if channels == 1:
        return np.maximum(texture.astype(np.uint8), brightest[..., None])
    lit = np.array([RGB[d.color] for d in digits], np.uint8)[owner] > 0  # (H, W, 3)
    return np.maximum(texture.astype(np.uint8), brightest[..., None] * lit)
