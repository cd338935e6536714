"""Augmentation of whole batches, random per example by `batch["key"]`.

Keras' own random layers do not repeat inside a parallel pipeline, or not from a stateless seed, so
these are own functions of the key: the same (seed, epoch, index) gives the same picture, bit for
bit, whatever the batch it stands in. MixUp, CutMix and mosaic alone depend on the other examples.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2 (shift and flip);
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552 (cutout);
        Zhong et al. 2017, https://arxiv.org/abs/1708.04896 (random erasing);
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A (blur);
        Zhang et al. 2017, https://arxiv.org/abs/1710.09412 (MixUp);
        Yun et al. 2019, https://arxiv.org/abs/1905.04899 (CutMix).
"""

from dataclasses import dataclass, field, replace

import tensorflow as tf

from kerasdl.columns import PIXELS
from kerasdl.data import mosaic, randaugment, warps
from kerasdl.data.moving import PLACED, move, per_frame, size_of
from kerasdl.data.pixels import blend, box_mask, gray, mean_gray
from kerasdl.errors import UserError
from kerasdl.ops import noise

# Streams of an example's key, apart from those of the tasks.
SCALARS, NOISE, ERASE, MIX = (2**16 + i for i in range(4))
VIEW_STREAMS = 128  # from the streams of one view to those of the next; the first are of no view
# Where each augmentation finds its numbers among an example's scalars: fixed, so that switching
# one on or off changes no other.
SLOTS = {"shift": 0, "flip": 2, "color": 3, "cutout": 6, "reprob": 8, "randaugment": 16}
SLOTS |= {"resized_crop": 20, "crop": 20, "rotate": 24, "vertical_flip": 25, "blur": 26}
SLOTS |= {"mosaic": 28}
COUNT = 32

CROP_SCALE = (0.4, 1.0)  # the papers' (0.08, 1) is of photographs
JITTER = 0.4  # of brightness, contrast and saturation
NOISE_STD = 0.05
BLUR_SIGMA = (0.1, 2.0)  # pixels
BLUR_RADIUS = 6
ERASE_AREA = (0.02, 0.4)  # fraction of the image; section 3.2 of the paper
ERASE_ASPECT = (0.3, 1 / 0.3)


def from_recipe(recipe, task, columns):
    """What the settings of a run and its task do to training batches.

    Args:
        recipe: The settings.
        task: The task or its class, or None.
        columns: `{name: Column}` of the data.

    Returns:
        An `Augment`, or `Views` where the task has views; None where there are no pixels.

    Raises:
        UserError: Settings that the columns do not allow.
    """
    made = Augment.from_recipe(recipe)
    if not any(column.kind in PIXELS for column in columns.values()):
        if made != Augment():
            raise UserError("--augment, --mixup, --cutmix and --reprob apply to image data only")
        return None
    if made.mixes:
        made.check_mixing(task, columns)
    if "mosaic" in made.names and not mosaic.applies(columns):
        others = [n for n, c in columns.items() if not mosaic.applies({n: c})]
        raise UserError(
            "--augment mosaic puts four pictures together: it can be used only for objects and "
            f"masks; the model's task uses {', '.join(others)}"
        )
    return views(recipe, task) or made


def views(recipe, task):
    """The `Views` that a task's batches have in evaluation as in training, or None.

    Args:
        recipe: The settings.
        task: The task or its class, or None.
    """
    settings = task.views_of(recipe) if task else {}
    made = {}
    for number, (name, changed) in enumerate(settings.items(), 1):
        augment = Augment.from_recipe(replace(recipe, **changed))
        made[name] = replace(augment, view=number, size=changed.get("image_size"))
    return Views(made) if made else None


@dataclass(frozen=True)
class Augment:
    """Augmentations in a fixed order; calling it maps a batch to a batch.

    What moves pixels moves all columns of an example alike, by their kind, see
    `kerasdl.data.moving`; all else changes images and videos alone, and all frames of a video by
    the same amount.

    Attributes:
        names: Any of `kerasdl.recipe.AUGMENTATIONS`.
        reprob: Probability of erasing a rectangle.
        mixup: Alpha of MixUp's Beta distribution; 0 is off.
        cutmix: Alpha of CutMix's; with both, every batch has one of them at random.
        crop_scale: `(min, max)` area of crop and resized_crop, as a fraction of the image.
        view: Number of the view whose streams of the key it uses; 0 is none.
        crop_ratio: `(min, max)` of their width to their height.
        size: `(H, W)` of the images that it makes, where they have another size.
    """

    names: tuple = ()
    reprob: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_scale: tuple = CROP_SCALE
    view: int = 0
    crop_ratio: tuple = warps.RATIO
    size: tuple | None = None

    @classmethod
    def from_recipe(cls, recipe) -> "Augment":
        """The augmentations that the settings of a run name."""
        r = recipe
        return cls(
            tuple(r.augment),
            r.reprob,
            r.mixup,
            r.cutmix,
            tuple(r.crop_scale),
            crop_ratio=tuple(r.crop_ratio),
        )

    @property
    def mixes(self) -> bool:
        """Whether labels must be float `(B, K)`."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def couples(self) -> bool:
        """Whether an example is made of others of its batch too."""
        return self.mixes or "mosaic" in self.names

    def check_mixing(self, task, columns):
        """UserError where the columns, or the task's views, do not allow MixUp or CutMix."""
        flags = " and ".join(f"--{name}" for name in ("mixup", "cutmix") if getattr(self, name))
        if getattr(task, "views", {}):
            raise UserError(
                f"{flags} cannot be used here: the model's task compares views of the same example"
            )
        labels = [n for n, c in columns.items() if c.kind == "label" and not c.shape]
        others = {n: c.kind for n, c in columns.items() if c.kind not in PIXELS}
        if len(labels) != 1 or list(others) != labels:
            result = ", ".join(n if n == k else f"{n} ({k})" for n, k in others.items()) or "none"
            raise UserError(
                f"{flags} can be used only with images that have one class label each and nothing "
                f"else; besides images the model's task uses: {result}"
            )

    def __call__(self, batch: dict, columns: dict) -> dict:
        """Augment a batch.

        Args:
            batch: `{name: tensor (B, ...)}`: images and videos float32 in [0, 1], `key` uint32
                `(B, 2)`, and where it `mixes` the label float `(B, K)`.
            columns: `{name: Column}` of the batch.

        Returns:
            The batch with other pixels and what goes with them, and labels where it mixes.
        """
        batch = dict(batch)
        pixels = [name for name, column in columns.items() if column.kind in PIXELS]
        if self.names or self.reprob or self.size:
            u = noise.uniform(batch["key"], (COUNT,), self._stream(SCALARS), "float32")
            slots = {name: u[:, start:] for name, start in SLOTS.items()}
            batch = self._moved(batch, columns, slots)
            for name in pixels:
                batch[name] = self._changed(batch[name], slots, batch["key"])
        return self._mix(batch, columns, pixels) if self.mixes else batch

    def on_files(self, split):
        """A split whose files are read as `crop` says, and the augmentation that is left.

        Args:
            split: A `Split`; kept as it is where there is no `crop` or it cannot be so read.
        """
        cropped = split.cropped(self.crop) if "crop" in self.names else None
        if cropped is None:
            return split, self
        return cropped, replace(self, names=tuple(n for n in self.names if n != "crop"))

    def crop(self, key, size):
        """The random box of one image.

        Args:
            key: uint32 `(2,)`, of the example.
            size: float32 `(2,)`, height and width.

        Returns:
            See `kerasdl.data.warps.crop_box`.
        """
        u = noise.uniform(key[None], (COUNT,), self._stream(SCALARS), "float32")[0]
        return warps.crop_box(size, u[SLOTS["crop"] :], self.crop_scale, self.crop_ratio)

    def _stream(self, stream):
        return stream + VIEW_STREAMS * self.view

    def _moved(self, batch, columns, slots):
        """What moves pixels; RandAugment's part of it is done to all else here."""
        size = size_of(columns)
        if "mosaic" in self.names:
            batch = mosaic.mosaic(batch, columns, slots["mosaic"])
        if {"resized_crop", "crop"} & set(self.names):
            area = self.crop_scale, self.crop_ratio
            transforms = warps.resized_crop(size, slots["crop"], *area, self.size)
            batch = move(batch, columns, transforms, "BILINEAR", edge="NEAREST", to=self.size)
        elif self.size:
            transforms = warps.resized(size, self.size, slots["crop"])
            batch = move(batch, columns, transforms, "BILINEAR", edge="NEAREST", to=self.size)
        size = self.size or size
        if "rotate" in self.names:
            transforms = warps.rotate(size, slots["rotate"])
            batch = move(batch, columns, transforms, "BILINEAR")
        copied = ("shift", "flip", "vertical_flip")
        if set(copied) & set(self.names):
            sampled = (slots[name] if name in self.names else None for name in copied)
            batch = move(batch, columns, warps.shift_flip(size, *sampled), "NEAREST")
        placed = {column.kind for column in columns.values()} & set(PLACED)
        if "randaugment" in self.names and not placed <= set(PIXELS):
            for operation, sign in randaugment.layers(slots["randaugment"]):
                transforms = randaugment.transforms(size, operation, sign)
                batch = move(batch, columns, transforms, "BILINEAR", pixels=False)
        return batch

    def _changed(self, value, slots, key):
        """Images `(B, H, W, C)` or videos `(B, T, H, W, C)` in other colors, or partly hidden."""

        def each(function, *more):
            nonlocal value
            video = len(value.shape) == 5
            value = per_frame(value, function, *more) if video else function(value, *more)

        names, shape = self.names, tuple(value.shape[1:])
        if "color" in names:
            each(color_jitter, slots["color"])
        if "blur" in names:
            each(blur, slots["blur"])
        if "randaugment" in names:
            each(randaugment.randaugment, slots["randaugment"])
        if "noise" in names:
            z = noise.normal(key, shape, self._stream(NOISE), "float32")
            value = tf.clip_by_value(value + NOISE_STD * z, 0.0, 1.0)
        if "cutout" in names:
            each(cutout, slots["cutout"])
        if self.reprob:
            fill = noise.uniform(key, shape, self._stream(ERASE), "float32")
            erased = erased_mask((1, *shape[-3:]), slots["reprob"], self.reprob)
            erased = tf.expand_dims(erased, 1) if len(shape) == 4 else erased
            value = tf.where(erased, fill, value)
        return value

    def _mix(self, batch, columns, pixels):
        """MixUp or CutMix, both random by the first example's key."""
        key = batch["key"][:1]
        u = noise.uniform(key, (3,), MIX, "float32")[0]
        label = next(name for name, column in columns.items() if column.kind == "label")

        def mixed():
            lam = beta(key[0], self.mixup)
            return [mixup(batch[name], batch[label], lam) for name in pixels]

        def pasted():
            lam = beta(key[0], self.cutmix)
            return [cutmix(batch[name], batch[label], lam, u[1], u[2]) for name in pixels]

        if not self.cutmix:
            result = mixed()
        elif not self.mixup:
            result = pasted()
        else:
            result = tf.cond(u[0] < 0.5, mixed, pasted)
        images = {name: image for name, (image, _) in zip(pixels, result, strict=True)}
        return {**batch, **images, label: result[0][1]}


@dataclass(frozen=True)
class Views:
    """Several augmented views of each example, beside the example as it is.

    Attributes:
        of: `{view: Augment}`, each with a number of its own.
    """

    of: dict = field(default_factory=dict)
    mixes = False

    @property
    def couples(self) -> bool:
        """Whether an example is made of others of its batch too."""
        return any(augment.couples for augment in self.of.values())

    def on_files(self, split):
        """The split and the views as they are: each view has a box of its own."""
        return split, self

    def __call__(self, batch: dict, columns: dict) -> dict:
        """The batch, and `<column>_<view>` of each column that has a place in the picture, and of
        those with a row per object; see `Augment`."""
        out = dict(batch)
        for view, augment in self.of.items():
            seen = augment(batch, columns)
            for name, column in columns.items():
                if column.kind in (*PLACED, "valid") or (column.kind == "label" and column.shape):
                    out[f"{name}_{view}"] = seen[name]
        return out


def color_jitter(image, u):
    """Brightness, contrast and saturation times a factor in `1 -+ JITTER`.

    Args:
        image: float32 `(B, H, W, C)`; only color images have a saturation.
        u: uniform `(B, >= 3)`.
    """
    factor = 1.0 - JITTER + 2.0 * JITTER * u[:, :3, None, None, None]
    image = tf.clip_by_value(image * factor[:, 0], 0.0, 1.0)
    image = blend(image, mean_gray(image), factor[:, 1])
    return blend(image, gray(image), factor[:, 2]) if image.shape[-1] == 3 else image


def blur(image, u):
    """Half of the images convolved with a Gaussian, their edges going on outside.

    Args:
        image: float32 `(B, H, W, C)`.
        u: uniform `(B, >= 2)`: whether, and its deviation in `BLUR_SIGMA`.
    """
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * u[:, 1:2]
    # In vectors of their own: exponentials at the end of an array may differ in their last bit.
    reached = tf.range(noise.LANES, dtype=tf.float32)
    weights = tf.unstack(tf.exp(-0.5 * tf.square(reached / sigma)), axis=1)[: BLUR_RADIUS + 1]
    whole = weights[0] + 2.0 * sum(weights[1:])
    weights = [tf.reshape(w / whole, (-1, 1, 1, 1)) for w in weights]

    def along(values, axis):
        length = values.shape[axis]
        reached = tf.range(-BLUR_RADIUS, length + BLUR_RADIUS)
        wide = tf.gather(values, tf.clip_by_value(reached, 0, length - 1), axis=axis)

        def part(offset):
            start = BLUR_RADIUS + offset
            at = slice(start, start + length)
            return wide[:, at] if axis == 1 else wide[:, :, at]

        result = weights[0] * part(0)
        for i, weight in enumerate(weights[1:], 1):
            result += weight * (part(-i) + part(i))
        return result

    blurred = tf.clip_by_value(along(along(image, 1), 2), 0.0, 1.0)
    hit = tf.reshape(u[:, 0] < 0.5, (-1, 1, 1, 1))
    return tf.where(hit, blurred, image)


def cutout(image, u):
    """Zero a square of half the shorter side; its center may be any pixel.

    Args:
        image: float32 `(B, H, W, C)`.
        u: uniform `(B, >= 2)`.
    """
    _, height, width, _ = image.shape
    side = min(height, width) // 2
    top = tf.floor(u[:, 0] * height) - side // 2
    left = tf.floor(u[:, 1] * width) - side // 2
    return tf.where(box_mask(image.shape, top, left, side, side), 0.0, image)


def erased_mask(shape, u, probability):
    """Which pixels of a random rectangle are erased, in a fraction of the examples.

    Args:
        shape: `(1, H, W, C)` of the images.
        u: uniform `(B, >= 5)`: whether, area, aspect, top, left.
        probability: Of erasing.

    Returns:
        bool `(B, H, W, 1)`.
    """
    _, height, width, _ = shape
    low, high = ERASE_AREA
    area = (low + (high - low) * u[:, 1]) * (height * width)
    low, high = ERASE_ASPECT
    aspect = low + (high - low) * u[:, 2]
    h = tf.clip_by_value(tf.round(tf.sqrt(area * aspect)), 1.0, float(height))
    w = tf.clip_by_value(tf.round(tf.sqrt(area / aspect)), 1.0, float(width))
    top = tf.floor(u[:, 3] * (height - h + 1.0))
    left = tf.floor(u[:, 4] * (width - w + 1.0))
    hit = (u[:, 0] < probability)[:, None, None, None]
    return hit & box_mask(shape, top, left, h, w)


def beta(key, alpha):
    """One sample of Beta(alpha, alpha).

    Args:
        key: uint32 `(2,)`.
        alpha: A positive float.
    """
    seed = tf.bitcast(key, tf.int32)
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha, dtype=tf.float64))
    # Both underflow where alpha is tiny, to the smallest normal number; 0 or 1 are then as likely.
    either = tf.cast(seed[0] < 0, tf.float64)
    return tf.cast(tf.where(a + b > 1e-300, a / (a + b), either), tf.float32)


def mixup(image, label, lam):
    """`lam` of each example and `1 - lam` of its partner, in the batch in reverse order.

    Args:
        image: float `(B, H, W, C)`, or videos `(B, T, H, W, C)`.
        label: float `(B, K)`.
        lam: float scalar in [0, 1].
    """
    mix = [lam * x + (1.0 - lam) * tf.reverse(x, [0]) for x in (image, label)]
    return mix[0], mix[1]


def cutmix_box(height, width, lam, y, x):
    """The box that CutMix pastes, clipped to the image, and the fraction that is left.

    Args:
        height, width: Of the image.
        lam: Fraction of the image to keep, before clipping.
        y, x: Center, as fractions of height and width.

    Returns:
        `(top, left, box_height, box_width, lam)`, float scalars; `lam` is
        `1 - box_height box_width / (height width)` of the clipped box.
    """
    side = tf.sqrt(1.0 - lam)
    cy, cx = tf.floor(y * height), tf.floor(x * width)
    half_h, half_w = tf.floor(side * height / 2.0), tf.floor(side * width / 2.0)
    top, bottom = (tf.clip_by_value(cy + s * half_h, 0.0, float(height)) for s in (-1.0, 1.0))
    left, right = (tf.clip_by_value(cx + s * half_w, 0.0, float(width)) for s in (-1.0, 1.0))
    h, w = bottom - top, right - left
    return top, left, h, w, kept_fraction(h, w, height, width)


def kept_fraction(box_height, box_width, height, width):
    """CutMix's label weight, 1 minus the fraction of the image under the box."""
    return 1.0 - box_height * box_width / (height * width)


def cutmix(image, label, lam, y, x):
    """Paste a box of each example's partner, the batch in reverse order.

    Args:
        image: float `(B, H, W, C)`, or videos `(B, T, H, W, C)`.
        label: float `(B, K)`.
        lam: Fraction to keep, a float scalar.
        y, x: Center of the box, as fractions of height and width.
    """
    height, width, channels = image.shape[-3:]
    top, left, h, w, lam = cutmix_box(height, width, lam, y, x)
    mask = box_mask((1, height, width, channels), top, left, h, w)
    image = tf.where(mask, tf.reverse(image, [0]), image)
    return image, lam * label + (1.0 - lam) * tf.reverse(label, [0])
