"""The colors that classes are shown in."""

import numpy as np

# Neighbors are far apart on the color circle; what goes beyond begins again a little further on.
HUES = np.array([0.0, 0.6, 0.33, 0.13, 0.8, 0.5, 0.93, 0.22, 0.7, 0.42])


def class_colors(num_classes: int) -> np.ndarray:
    """Red, green and blue in [0, 1] of each class, float64 `(num_classes, 3)`."""
    k = np.arange(num_classes)
    hue = (HUES[k % len(HUES)] + 0.05 * (k // len(HUES))) % 1.0
    return np.clip(np.abs((6 * hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
