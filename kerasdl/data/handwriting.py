"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels, divided by who wrote them.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository.
"""

import functools

import numpy as np

from kerasdl.columns import PARTS

TEST, VALIDATION = 360, 180  # the last in file order: other people wrote them


@functools.cache
def handwritten(part) -> tuple[np.ndarray, np.ndarray]:
    """The digits of one part: the last 360 are the test part, the 180 before them validation.

    Args:
        part: "train", "validation" or "test".

    Returns:
        Images float32 `(n, 8, 8)` in [0, 1] and labels int32 `(n,)`, both read-only.

    Raises:
        ValueError: An unknown part.
    """
    from sklearn.datasets import load_digits

    if part not in PARTS:
        raise ValueError(f"part {part!r}: must be one of {', '.join(PARTS)}")
    data = load_digits()
    n = len(data.target)
    ends = {"train": (0, n - TEST - VALIDATION), "validation": (n - TEST - VALIDATION, n - TEST)}
    rows = slice(*ends.get(part, (n - TEST, n)))
    images = (data.images[rows] / 16.0).astype(np.float32)
    labels = data.target[rows].astype(np.int32)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels
