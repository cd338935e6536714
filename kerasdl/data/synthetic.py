"""`synthetic`: made-up examples that any machine has, to try things out."""

import numpy as np

from kerasdl.data.splits import ArraySplit, from_arrays, source

CLASSES = 10
COUNTS = {"train": 512, "validation": 128, "test": 128}
SIZE = (32, 32)
FREE = 16  # length of an axis that a spec leaves free


def load(where, options):
    """Ten patterns in noise, each a class; for a task without images whatever its specs say."""
    if where:
        raise ValueError(f"{options.name}: synthetic takes nothing after a colon")
    rng = np.random.default_rng(options.seed)
    task = options.task
    specs = {**getattr(task, "inputs", {}), **getattr(task, "targets", {})}
    if set(specs) - {"image", "label"}:
        return _from_specs(specs, options, rng)
    height, width = options.image_size or SIZE
    # Smooth patterns, so that they survive a shift by a few pixels.
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = rng.integers(1, 4, (CLASSES, 3, 2))
    phase = rng.uniform(0, 2 * np.pi, (CLASSES, 3))
    angle = 2 * np.pi * (waves[..., 0, None, None] * y + waves[..., 1, None, None] * x)
    patterns = 0.5 + 0.25 * np.sin(angle + phase[..., None, None])  # (K, C, H, W)
    patterns = patterns.transpose(0, 2, 3, 1)
    parts = {}
    for part, n in COUNTS.items():
        labels = rng.permutation(np.arange(n) % CLASSES)
        images = patterns[labels] + 0.1 * rng.standard_normal((n, height, width, 3))
        parts[part] = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8), labels
    return from_arrays(parts, options, class_names=tuple("0123456789"))


def _from_specs(specs, options, rng):
    """Random examples of the named specs: integers below 10, floats in [0, 1)."""

    def column(spec, n):
        shape = (n, *(axis if isinstance(axis, int) else FREE for axis in spec.shape))
        if "int" in spec.dtype:
            return rng.integers(0, CLASSES, shape).astype(spec.dtype)
        return rng.random(shape).astype(spec.dtype)

    splits = {
        part: ArraySplit({name: column(spec, n) for name, spec in specs.items()})
        for part, n in COUNTS.items()
    }
    shape = splits["train"].arrays["image"].shape[1:] if "image" in specs else ()
    return source(options, splits, shape, tuple("0123456789"), ())
