"""What the YOLO paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.detection import yolo_v1
from kerasdl.ops import boxes as bx


def count(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def test_figure_3():
    with keras.StatelessScope():
        model = yolo_v1.yolo_v1()
    assert count(model) == 271_703_550 and len(model.convs) == 24
    assert model.grid == (7, 7) and model.grid[0] * model.grid[1] * model.depth == 1470
    with keras.StatelessScope():
        model = yolo_v1.yolo_v1(boxes=3)  # as the authors' configuration
    assert model.head.units == 1715


@pytest.fixture
def model():
    """Two boxes and three classes on a grid of 2x3 cells."""
    stages = (((3, 4, 1),), ((3, 4, 1),))
    return yolo_v1.yolo_v1((4, 6, 1), num_classes=3, stages=stages, dense=None)


def truth(rng, size=4, objects=5):
    """Boxes whose centers are in cells of their own, and those that are not there."""
    cells = np.stack([rng.permutation(6)[:objects] for _ in range(size)])
    center = (np.stack([cells // 3, cells % 3], -1) + rng.random((size, objects, 2))) / (2, 3)
    sides = 0.1 + 0.4 * rng.random((size, objects, 2))
    valid = rng.random((size, objects)) < 0.7
    valid[0], valid[1] = False, True  # no object, and as many as there is room for
    boxes = np.concatenate([center - sides / 2, center + sides / 2], -1) * valid[..., None]
    labels = np.where(valid, rng.integers(0, 3, (size, objects)), -1)
    return {"boxes": boxes, "valid": valid, "labels": labels}


def expected(model, predictions, boxes, valid, labels):
    """Equation 3 of one example, cell by cell: what is of boxes, and the rest."""
    of_box = rest = 0.0
    responsible = set()
    h, w = model.grid
    for box, label in zip(boxes[valid], labels[valid], strict=True):
        center, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        row, column = int(center[0] * h), int(center[1] * w)
        cell = predictions[row, column]
        overlaps = []
        for j in range(model.num_boxes):
            y, x, root_h, root_w, _ = cell[5 * j : 5 * j + 5]
            at = np.array([(row + y) / h, (column + x) / w])
            half = np.maximum([root_h, root_w], 0) ** 2 / 2
            one = np.concatenate([at - half, at + half])
            overlaps.append(float(bx.iou(one[None], box[None])[0]))
        j = int(np.argmax(overlaps))
        responsible.add((row, column, j))
        y, x, root_h, root_w, confidence = cell[5 * j : 5 * j + 5]
        of_box += 5 * ((y - (center[0] * h - row)) ** 2 + (x - (center[1] * w - column)) ** 2)
        of_box += 5 * ((root_h - sides[0] ** 0.5) ** 2 + (root_w - sides[1] ** 0.5) ** 2)
        rest += (confidence - overlaps[j]) ** 2
        rest += ((cell[5 * model.num_boxes :] - np.eye(3)[label]) ** 2).sum()
    for row in range(h):
        for column in range(w):
            for j in range(model.num_boxes):
                if (row, column, j) not in responsible:
                    rest += 0.5 * predictions[row, column, 5 * j + 4] ** 2
    return rest, of_box


def test_equation_3(model, rng):
    data = truth(rng)
    predictions = rng.random((4, 2, 3, 13))
    of_class, of_box = model.detection_losses(predictions, data)
    for i in range(4):
        rest, box = expected(model, predictions[i], *(data[k][i] for k in data))
        np.testing.assert_allclose([of_class[i], of_box[i]], [rest, box], rtol=1e-9)
    assert of_box[0] == 0 and of_class[0] > 0


def test_a_perfect_prediction_costs_nothing_and_is_found(model, rng):
    data = truth(rng)
    predictions = np.zeros((4, 2, 3, 13))
    for i, valid in enumerate(data["valid"]):
        for box, label in zip(data["boxes"][i][valid], data["labels"][i][valid], strict=True):
            center, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            at = center * (2, 3)
            row, column = at.astype(int)
            code = [*(at - (row, column)), *np.sqrt(sides), 1]
            predictions[i, row, column] = [*code, *[0] * 5, *np.eye(3)[label]]
    of_class, of_box = model.detection_losses(predictions, data)
    np.testing.assert_allclose(of_class + of_box, 0, atol=1e-9)
    boxes, scores = map(np.asarray, model.candidates(predictions))
    for i, valid in enumerate(data["valid"]):
        place, label = np.nonzero(scores[i] > 0.5)
        order = np.lexsort(boxes[i, place].T)
        true = np.asarray(bx.clip(data["boxes"][i][valid]))
        wanted = np.lexsort(true.T)
        np.testing.assert_allclose(boxes[i, place][order], true[wanted], atol=1e-6)
        np.testing.assert_array_equal(label[order], data["labels"][i][valid][wanted])


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="large enough to be halved 2 times"):
        yolo_v1.yolo_v1_small((2, 48, 1))
    with pytest.raises(UserError, match="norm 'layer': not one of batch, none"):
        yolo_v1.yolo_v1_small(norm="layer")
