"""Augmentation of whole batches, drawn per example from `batch["key"]`.

Keras' own random layers do not repeat inside a parallel pipeline, or not from a stateless seed, so
these are own functions of the key: the same (seed, epoch, index) gives the same picture, bit for
bit, whatever the batch it stands in. MixUp and CutMix alone depend on the other examples.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2 (shift and flip);
        DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552 (cutout);
        Zhong et al. 2017, https://arxiv.org/abs/1708.04896 (random erasing);
        Zhang et al. 2017, https://arxiv.org/abs/1710.09412 (MixUp);
        Yun et al. 2019, https://arxiv.org/abs/1905.04899 (CutMix).
"""

from dataclasses import dataclass

import tensorflow as tf

from kerasdl.data.pixels import blend, box_mask, gray, mean_gray, warp
from kerasdl.data.randaugment import randaugment
from kerasdl.ops import noise

# Streams of an example's key, apart from those of the tasks.
SCALARS, NOISE, ERASE, MIX = (2**16 + i for i in range(4))
# Where each augmentation finds its numbers among an example's scalars: fixed, so that switching
# one on or off changes no other.
SLOTS = {"shift": 0, "flip": 2, "color": 3, "cutout": 6, "reprob": 8, "randaugment": 16}
COUNT = 32

JITTER = 0.4  # of brightness, contrast and saturation
NOISE_STD = 0.05
ERASE_AREA = (0.02, 0.4)  # share of the image; section 3.2 of the paper
ERASE_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Augment:
    """Augmentations in a fixed order; calling it maps a batch to a batch.

    Attributes:
        names: Any of shift, flip, color, randaugment, noise, cutout.
        reprob: Probability of erasing a rectangle.
        mixup: Alpha of MixUp's Beta law; 0 is off.
        cutmix: Alpha of CutMix's; with both, every batch draws one of them.
    """

    names: tuple = ()
    reprob: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @classmethod
    def from_recipe(cls, recipe) -> "Augment":
        """The augmentations that the settings of a run ask for."""
        return cls(tuple(recipe.augment), recipe.reprob, recipe.mixup, recipe.cutmix)

    @property
    def mixes(self) -> bool:
        """Whether labels must be float `(B, K)`."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, batch: dict) -> dict:
        """Augment a batch.

        Args:
            batch: `image` float32 `(B, H, W, C)` in [0, 1], `key` uint32 `(B, 2)`, and `label`,
                float `(B, K)` where it `mixes`.

        Returns:
            The batch with other images, and labels where it mixes.
        """
        image, key = batch["image"], batch["key"]
        names = set(self.names)
        if names or self.reprob:
            u = noise.uniform(key, (COUNT,), SCALARS, "float32")
            slots = {name: u[:, start:] for name, start in SLOTS.items()}
            if names & {"shift", "flip"}:
                image = shift_flip(
                    image,
                    slots["shift"] if "shift" in names else None,
                    slots["flip"] if "flip" in names else None,
                )
            if "color" in names:
                image = color_jitter(image, slots["color"])
            if "randaugment" in names:
                image = randaugment(image, slots["randaugment"])
            if "noise" in names:
                z = noise.normal(key, tuple(image.shape[1:]), NOISE, "float32")
                image = tf.clip_by_value(image + NOISE_STD * z, 0.0, 1.0)
            if "cutout" in names:
                image = cutout(image, slots["cutout"])
            if self.reprob:
                fill = noise.uniform(key, tuple(image.shape[1:]), ERASE, "float32")
                image = random_erasing(image, slots["reprob"], fill, self.reprob)
        batch = {**batch, "image": image}
        return self._mix(batch) if self.mixes else batch

    def _mix(self, batch):
        """MixUp or CutMix, both drawn from the first example's key."""
        key = batch["key"][:1]
        u = noise.uniform(key, (3,), MIX, "float32")[0]

        def mixed():
            lam = beta(key[0], self.mixup)
            return mixup(batch["image"], batch["label"], lam)

        def cut():
            lam = beta(key[0], self.cutmix)
            return cutmix(batch["image"], batch["label"], lam, u[1], u[2])

        if not self.cutmix:
            image, label = mixed()
        elif not self.mixup:
            image, label = cut()
        else:
            image, label = tf.cond(u[0] < 0.5, mixed, cut)
        return {**batch, "image": image, "label": label}


def shift_flip(image, shift, flip):
    """Crop at random from the zero-padded image, and mirror half of the images.

    Args:
        image: float32 `(B, H, W, C)`; padded by 1 pixel where a side is under 16, else an eighth.
        shift: uniform `(B, >= 2)`, or None for no shift.
        flip: uniform `(B, >= 1)`, or None for no flip.
    """
    _, height, width, _ = image.shape
    zero = tf.zeros_like(image[:, 0, 0, 0])
    one = zero + 1.0
    dy, dx = zero, zero
    if shift is not None:
        py, px = (1 if n < 16 else n // 8 for n in (height, width))
        dy = tf.floor(shift[:, 0] * (2 * py + 1)) - py
        dx = tf.floor(shift[:, 1] * (2 * px + 1)) - px
    scale = one
    if flip is not None:
        mirror = flip[:, 0] < 0.5
        scale = tf.where(mirror, -one, one)
        dx = tf.where(mirror, width - 1.0 - dx, dx)
    # Output pixel (x, y) is input pixel (scale x + dx, y + dy): whole numbers, so a pure copy.
    transforms = tf.stack([scale, zero, dx, zero, one, dy, zero, zero], axis=1)
    return warp(image, transforms, "NEAREST", 0.0)


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


def random_erasing(image, u, fill, probability):
    """Replace a random rectangle by noise in a share of the examples.

    Args:
        image: float32 `(B, H, W, C)`.
        u: uniform `(B, >= 5)`: whether, area, aspect, top, left.
        fill: uniform, the shape of `image`.
        probability: Of erasing.
    """
    _, height, width, _ = image.shape
    low, high = ERASE_AREA
    area = (low + (high - low) * u[:, 1]) * (height * width)
    low, high = ERASE_ASPECT
    aspect = low + (high - low) * u[:, 2]
    h = tf.clip_by_value(tf.round(tf.sqrt(area * aspect)), 1.0, float(height))
    w = tf.clip_by_value(tf.round(tf.sqrt(area / aspect)), 1.0, float(width))
    top = tf.floor(u[:, 3] * (height - h + 1.0))
    left = tf.floor(u[:, 4] * (width - w + 1.0))
    mask = box_mask(image.shape, top, left, h, w)
    return tf.where(mask & (u[:, 0, None, None, None] < probability), fill, image)


def beta(key, alpha):
    """One draw from Beta(alpha, alpha).

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
        image: float `(B, H, W, C)`.
        label: float `(B, K)`.
        lam: float scalar in [0, 1].
    """
    mix = [lam * x + (1.0 - lam) * tf.reverse(x, [0]) for x in (image, label)]
    return mix[0], mix[1]


def cutmix_box(height, width, lam, y, x):
    """The box that CutMix pastes, clipped to the image, and the share that is left.

    Args:
        height, width: Of the image.
        lam: Share of the image to keep, before clipping.
        y, x: Center, as shares of height and width.

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
    return top, left, h, w, kept_share(h, w, height, width)


def kept_share(box_height, box_width, height, width):
    """CutMix's label weight, 1 minus the share of the image under the box."""
    return 1.0 - box_height * box_width / (height * width)


def cutmix(image, label, lam, y, x):
    """Paste a box of each example's partner, the batch in reverse order.

    Args:
        image: float `(B, H, W, C)`.
        label: float `(B, K)`.
        lam: Share to keep, a float scalar.
        y, x: Center of the box, as shares of height and width.
    """
    _, height, width, _ = image.shape
    top, left, h, w, lam = cutmix_box(height, width, lam, y, x)
    mask = box_mask(image.shape, top, left, h, w)
    image = tf.where(mask, tf.reverse(image, [0]), image)
    return image, lam * label + (1.0 - lam) * tf.reverse(label, [0])
