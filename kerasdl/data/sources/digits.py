"""`digits`: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn."""

import numpy as np

from kerasdl.data.splits import from_arrays
from kerasdl.errors import UserError

TEST, VALIDATION = 360, 180  # the last in file order: other people wrote them


def load(where, options):
    """The digits; the last 360 are the test part, the 180 before them validation."""
    from sklearn.datasets import load_digits

    if where:
        raise UserError(f"{options.name}: takes nothing after a colon")
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)
    ends = (0, len(images) - TEST - VALIDATION, len(images) - TEST, len(images))
    parts = {
        part: (images[a:b], data.target[a:b])
        for part, a, b in zip(("train", "validation", "test"), ends, ends[1:], strict=False)
    }
    return from_arrays(parts, options, class_names=tuple("0123456789"))
