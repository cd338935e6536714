"""Made-up columns of every kind, which agree with each other: what `synthetic` gives a task."""

import numpy as np

from kerasdl.columns import ABSENT, VOID, Column, DataInfo
from kerasdl.data.sources.text import tokenizer_for
from kerasdl.ops.text import BOS, EOS, PAD

CLASSES = 10
NAMES = tuple("0123456789")
LETTERS = "abcdefgh"
OBJECTS = 4  # maximum per example
FREE = 16  # length of an axis that a spec leaves free
RATE = 16_000  # of audio, samples per second


def patterns(height, width, channels, rng):
    """One image per class `(K, H, W, C)`: waves, so smooth that they survive a small shift."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = rng.integers(1, 4, (CLASSES, channels, 2))
    phase = rng.uniform(0, 2 * np.pi, (CLASSES, channels))
    angle = 2 * np.pi * (waves[..., 0, None, None] * y + waves[..., 1, None, None] * x)
    return (0.5 + 0.25 * np.sin(angle + phase[..., None, None])).transpose(0, 2, 3, 1)


def to_bytes(images):
    """Floats in about [0, 1] as uint8."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def word(rng):
    """A word of three to eight letters."""
    return "".join(rng.choice(list(LETTERS), rng.integers(3, 9)))


class Maker:
    """Makes examples of given specs.

    Objects are rectangles of a class each: boxes, instances, masks, their labels and the pixels of
    images and videos show the same ones. A label of a whole example is the pattern behind them.

    Args:
        specs: `{column: Spec}`.
        size: `(H, W)` of images, videos and masks whose spec leaves them free.
        options: Of `open_source`.
        rng: A numpy `Generator`.

    Attributes:
        info: What the columns are.
    """

    def __init__(self, specs, size, options, rng):
        self.specs, self.rng = specs, rng
        free = {"H": size[0], "W": size[1], "C": 3, "M": OBJECTS}
        kinds = {spec.kind for spec in specs.values()}
        if "tokens" in kinds:
            free["N"] = options.max_length or FREE
        self.shapes = {
            name: tuple(a if isinstance(a, int) else free.get(a, FREE) for a in spec.shape)
            for name, spec in specs.items()
        }
        self.objects = bool(kinds & {"mask", "instances", "boxes", "valid"}) or any(
            spec.kind == "label" and spec.shape for spec in specs.values()
        )
        self.behind = {}  # patterns by the shape of the image
        self.words = [word(rng) for _ in range(100)]
        self.tokenizer = tokenizer_for(options, self.words, "char") if "tokens" in kinds else None
        columns = {name: self._column(name, spec.kind) for name, spec in specs.items()}
        tokenizers = {"text": self.tokenizer.to_json()} if self.tokenizer else {}
        self.info = DataInfo(columns, tokenizers)

    def _column(self, name, kind):
        shape, metadata = self.shapes[name], {}
        if kind in ("label", "mask"):
            metadata = {"class_names": NAMES}
        elif kind == "tokens":
            metadata = {"tokenizer": "text", "max_length": shape[0]}
        elif kind == "audio":
            metadata = {"rate": RATE}
        return Column(kind, shape, **metadata)

    def arrays(self, n) -> dict[str, np.ndarray]:
        """`{column: array (n, ...)}`."""
        label = self.rng.permutation(np.arange(n) % CLASSES)  # of the whole example
        objects = self._objects(n)
        return {
            name: getattr(self, f"_{spec.kind}")(n, name, label, objects).astype(
                np.uint8
                if spec.kind in ("image", "video")
                else object
                if spec.kind == "text"
                else spec.dtype
            )
            for name, spec in self.specs.items()
        }

    def _objects(self, n):
        """Boxes `(n, M, 4)`, and labels `(n, M)`, `ABSENT` from some place on."""
        maximum = max([s[0] for n_, s in self.shapes.items() if self._lists(n_)], default=OBJECTS)
        sides = self.rng.uniform(0.2, 0.5, (n, maximum, 2))
        start = self.rng.uniform(0, 1 - sides)
        labels = self.rng.integers(0, CLASSES, (n, maximum))
        absent = np.arange(maximum) >= self.rng.integers(1, maximum + 1, (n, 1))
        boxes = np.where(absent[..., None], 0.0, np.concatenate([start, start + sides], -1))
        return boxes, np.where(absent, ABSENT, labels)

    def _lists(self, name):
        """Whether a column has a row per object."""
        kind = self.specs[name].kind
        return kind in ("instances", "boxes", "valid") or (kind == "label" and self.shapes[name])

    def _inside(self, objects, height, width):
        """Which pixels are an object's, bool `(n, M, H, W)`."""
        ymin, xmin, ymax, xmax = (objects[0][..., i, None] for i in range(4))
        y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        rows, columns = (y >= ymin) & (y < ymax), (x >= xmin) & (x < xmax)
        return rows[..., None] & columns[..., None, :]

    def _pixels(self, shape, label, objects, frame):
        """One frame uint8 `(n, H, W, C)`; the pattern behind moves on with the frames."""
        if shape not in self.behind:
            self.behind[shape] = patterns(*shape, self.rng)
        image = np.roll(self.behind[shape][label], frame, axis=2)
        if self.objects:
            inside = self._inside(objects, *shape[:2])
            for m in range(inside.shape[1]):
                shade = (objects[1][:, m, None, None, None] + 1.0) / (CLASSES + 1)
                image = np.where(inside[:, m, ..., None], shade, image)
        return to_bytes(image + 0.05 * self.rng.standard_normal(image.shape))

    def _image(self, n, name, label, objects):
        return self._pixels(self.shapes[name], label, objects, 0)

    def _video(self, n, name, label, objects):
        frames, *shape = self.shapes[name]
        made = [self._pixels(tuple(shape), label, objects, t) for t in range(frames)]
        return np.stack(made, axis=1)

    def _mask(self, n, name, label, objects):
        inside = self._inside(objects, *self.shapes[name])
        mask = np.zeros((n, *self.shapes[name]), np.int32)
        for m in range(inside.shape[1]):
            mask = np.where(inside[:, m], objects[1][:, m, None, None], mask)
        mask[:, 0] = VOID  # the uppermost row is not labeled
        return mask

    def _instances(self, n, name, label, objects):
        count, *size = self.shapes[name]
        return self._inside(objects, *size)[:, :count]

    def _boxes(self, n, name, label, objects):
        return objects[0][:, : self.shapes[name][0]]

    def _regions(self, n, name, label, objects):
        """The objects' boxes, and others anywhere."""
        sides = self.rng.uniform(0.2, 0.5, (n, self.shapes[name][0], 2))
        start = self.rng.uniform(0, 1 - sides)
        others = np.concatenate([start, start + sides], -1)
        return np.concatenate([objects[0], others], 1)[:, : self.shapes[name][0]]

    def _valid(self, n, name, label, objects):
        return objects[1][:, : self.shapes[name][0]] != ABSENT

    def _label(self, n, name, label, objects):
        return objects[1][:, : self.shapes[name][0]] if self.shapes[name] else label

    def _tokens(self, n, name, label, objects):
        (length,) = self.shapes[name]
        ids = np.full((n, length), PAD, np.int32)
        for row, text in zip(ids, self.tokenizer.encode(self._drawn(n)), strict=True):
            text = [BOS, *text[: length - 2], EOS]
            row[: len(text)] = text
        return ids

    def _text(self, n, name, label, objects):
        return np.array([text.encode() for text in self._drawn(n)], object)

    def _drawn(self, n):
        return [self.words[i] for i in self.rng.integers(0, len(self.words), n)]

    def _audio(self, n, name, label, objects):
        time = np.arange(self.shapes[name][0]) / RATE
        tone = 220.0 * 2.0 ** (label[:, None] / 12)  # one note per class
        return 0.5 * np.sin(2 * np.pi * tone * time + self.rng.uniform(0, 2 * np.pi, (n, 1)))

    def _number(self, n, name, label, objects):
        shape = (n, *self.shapes[name])
        if "int" in self.specs[name].dtype:
            return self.rng.integers(0, CLASSES, shape)
        return self.rng.random(shape)

    _vector = _number
