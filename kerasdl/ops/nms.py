"""Non-maximum suppression, in a fixed number of steps: exact, and of static shapes.

Source: Girshick et al. 2014, https://arxiv.org/abs/1311.2524, section 2.2 (greedy, class by class).
"""

from keras import ops

from kerasdl.columns import ABSENT
from kerasdl.ops.boxes import ends, iou_of_ends

NEVER = 0.0  # the score of what is not there; one below would be this in 8-bit numbers
UNROLLED = 128  # steps written one by one; converted files with 8-bit numbers have no loops


def nms(boxes, scores, threshold, count, labels=None):
    """The boxes that no better one covers, the best first.

    Each step takes the best box that is left and removes it and what it overlaps too much, so
    `count` steps give exactly the first `count` boxes of the greedy algorithm.

    Args:
        boxes: float `(B, N, 4)`.
        scores: float `(B, N)`, in [0, 1]; boxes that score 0 are not there.
        threshold: A box that overlaps a better one by more than this is removed.
        count: How many boxes are kept, an int.
        labels: int `(B, N)`; boxes of different labels do not remove each other.

    Returns:
        int32 `(B, count)` indices, `ABSENT` where there are no more boxes.
    """
    number = ops.arange(boxes.shape[1], dtype="int32")
    all_ends = ends(boxes)

    def step(left):
        value, index = ops.top_k(left, 1)  # (B, 1); of equal ones the first
        index = ops.cast(index, "int32")
        here = number == index  # (B, N)
        box = ops.sum(ops.where(here[..., None], boxes, 0), axis=1, keepdims=True)  # (B, 1, 4)
        covered = iou_of_ends(all_ends, ends(box)) > threshold
        if labels is not None:
            label = ops.sum(ops.where(here, labels, 0), axis=1, keepdims=True)
            covered = covered & (labels == label)
        kept = ops.where(value > NEVER, index, ABSENT)
        return ops.where(here | covered, NEVER, left), kept

    if count <= UNROLLED:
        left, kept = scores, []
        for _ in range(count):
            left, one = step(left)
            kept.append(one)
        return ops.concatenate(kept, axis=-1)

    def body(i, carry):
        left, kept = carry
        left, one = step(left)
        return left, ops.where(ops.arange(count, dtype="int32") == i, one, kept)

    start = ops.zeros_like(scores[:, :1], dtype="int32") + ops.zeros((count,), "int32")
    return ops.fori_loop(0, count, body, (scores, start))[1]


def best(scores, count):
    """The highest of scores `(B, N, K)` over all places and classes.

    Returns:
        `(B, count)` scores, int32 places and int32 classes, the highest first.
    """
    _, n, k = scores.shape
    value, index = ops.top_k(ops.reshape(scores, (-1, n * k)), min(count, n * k))
    index = ops.cast(index, "int32")
    return value, index // k, index % k


def rows(values, index):
    """`values[b, index[b, i]]` of `(B, N, ...)` and int32 `(B, R)`; 0 where the index is `ABSENT`.

    Returns:
        `(B, R, ...)`.
    """
    _, n, *shape = values.shape
    start = n * ops.arange(ops.shape(values)[0], dtype="int32")[:, None]
    flat = ops.reshape(values, (-1, *shape))
    taken = ops.take(flat, ops.maximum(index, 0) + start, axis=0)
    there = ops.reshape(index >= 0, (-1, index.shape[1], *[1] * len(shape)))
    return ops.where(there, taken, ops.zeros_like(taken))


def detections(boxes, scores, count, threshold=0.5, min_score=0.05, candidates=200):
    """Objects of boxes with a score for every class: suppressed class by class.

    Args:
        boxes: float `(B, N, 4)`, or `(B, N, K, 4)` where each class has its own.
        scores: float `(B, N, K)`.
        count: How many objects there are room for, `M`.
        threshold: Of `nms`; at 1 nothing is suppressed.
        min_score: What scores less is no object.
        candidates: How many pairs of a box and a class are looked at, the best ones.

    Returns:
        `boxes` `(B, M, 4)`, `scores` `(B, M)`, `label` int32 `(B, M)`, the best first, and `num`
        int32 `(B,)`, how many there are; beyond them boxes and scores are 0, labels `ABSENT`.
    """
    value, place, label = best(scores, candidates)
    if len(boxes.shape) == 4:
        _, n, k, _ = boxes.shape
        boxes, place = ops.reshape(boxes, (-1, n * k, 4)), place * k + label
    boxes = rows(boxes, place)
    if threshold < 1:
        value = ops.where(value >= min_score, value, NEVER)
        index = nms(boxes, value, threshold, count, label)
    else:  # nothing is covered: `best` has put them in order
        number = ops.arange(value.shape[1], dtype="int32")
        index = ops.where(value >= min_score, number, ABSENT)[:, :count]
        more = max(count - value.shape[1], 0)
        index = ops.pad(index, ((0, 0), (0, more)), constant_values=ABSENT)
    there = index >= 0
    return {
        "boxes": rows(boxes, index),
        "scores": rows(value, index),
        "label": ops.where(there, rows(label, index), ABSENT),
        "num": ops.sum(ops.cast(there, "int32"), axis=-1),
    }
