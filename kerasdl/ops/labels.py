"""Which of many examples keep their labels, where few of them are used."""

import numpy as np


def balanced(label, count=None, per_class=None, seed=None) -> np.ndarray:
    """Positions of some labels, as equally many of each class as there are.

    Where `count` is no multiple of the classes, the lower classes have one more; where a class has
    too few, the others have more.

    Args:
        label: int `(M,)`.
        count: How many in all; all where it is more than `M`.
        per_class: How many of each class, instead; all of one that has fewer.
        seed: Of a random choice within each class; None takes the first ones.

    Returns:
        int `(n,)`, in ascending order.
    """
    order = np.arange(len(label))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    turn = np.zeros(len(label), np.int64)  # how many of its class come before it
    for c in np.unique(label):
        of_class = order[label[order] == c]
        turn[of_class] = np.arange(len(of_class))
    if per_class is not None:
        return np.flatnonzero(turn < per_class)
    return np.sort(np.lexsort((label, turn))[:count])
