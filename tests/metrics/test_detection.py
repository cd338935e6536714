"""Average precision against a computation from its definition, detection by detection."""

import numpy as np
import pytest

from kerasdl.metrics.average_precision import average_precision
from kerasdl.metrics.detection import DetectionAP

NAMES = ("cat", "dog", "never")
SIZE = (200, 100)
MASKS = (31, 43)
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def batches(rng, count=4, size=4):
    """Objects, and detections of which some are near them; scores never agree."""
    for b in range(count):
        center, sides = rng.random((size, 6, 2)), 0.05 + 0.5 * rng.random((size, 6, 2))
        boxes = np.concatenate([center - sides / 2, center + sides / 2], -1)
        labels, valid = rng.integers(0, 2, (size, 6)), rng.random((size, 6)) < 0.6
        near = boxes + 0.12 * np.tile(sides, 2) * rng.standard_normal((size, 6, 4))
        twice = boxes + 0.05 * np.tile(sides, 2) * rng.standard_normal((size, 6, 4))
        kind = rng.integers(0, 2, (size, 12))
        same = np.concatenate([labels, labels], 1)
        label = np.where(rng.random((size, 12)) < 0.8, same, kind)
        label = np.where(rng.random((size, 12)) < 0.3, -1, label)
        if b == 1:
            valid[0], label[1] = False, -1  # no object in one image, no detection in another
        outputs = {
            "boxes": np.concatenate([near, twice], 1).astype(np.float32),
            "scores": rng.permutation(size * 12).reshape(size, 12).astype(np.float32) * 7 + b,
            "label": label,
        }
        batch = {
            "boxes": boxes.astype(np.float32),
            "labels": np.where(valid, labels, -1),
            "valid": valid,
            "index": b * size + np.arange(size),
            "weight": np.array([1, 1, 1, 0], np.float32)[:size],
        }
        yield outputs, batch


def overlap(a, b):
    """Of two boxes, or of two masks."""
    if a.ndim == 2:
        return (a & b).sum() / max((a | b).sum(), 1)
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = height * width
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return shared / (sum(areas) - shared)


def flat(data, names=("boxes", "boxes")):
    """Objects `[(image, class, box)]` and detections `[(score, image, class, box)]`, or masks
    instead of boxes."""
    dtype = np.float64 if names[0] == "boxes" else bool
    objects, found = [], []
    for outputs, batch in data:
        for i, index in enumerate(batch["index"].tolist()):
            if not batch["weight"][i]:
                continue
            for m in np.flatnonzero(batch["valid"][i]):
                box = batch[names[0]][i, m].astype(dtype)
                objects.append((index, int(batch["labels"][i, m]), box))
            for n in np.flatnonzero(outputs["label"][i] >= 0):
                box = outputs[names[1]][i, n].astype(dtype)
                found.append((outputs["scores"][i, n], index, int(outputs["label"][i, n]), box))
    return objects, sorted(found, key=lambda one: -one[0])


def right(objects, found, threshold, best_of_all=False, per_image=100):
    """Which detections of a class are right, the highest score first."""
    taken, result, seen = set(), [], {}
    for _, image, _, box in found:
        seen[image] = seen.get(image, 0) + 1
        if seen[image] > per_image:
            continue
        here = [j for j, one in enumerate(objects) if one[0] == image]
        here = [j for j in here if best_of_all or j not in taken]
        values = [(overlap(box, objects[j][2]), -j) for j in here]
        value, j = max(values, default=(0.0, 0))
        hit = value >= threshold and -j not in taken
        if hit:
            taken.add(-j)
        result.append(hit)
    return result


def precision_at(hits, count, recalls, slack=0.0):
    """The highest precision at each recall or more."""
    done = np.cumsum(hits)
    pairs = [(n / count, n / (i + 1)) for i, n in enumerate(done)]
    return [max([p for r, p in pairs if r >= recall - slack], default=0.0) for recall in recalls]


def expected(data, names=("boxes", "boxes")):
    """The metrics from their definitions."""
    objects, found = flat(data, names)
    tables, voc, recalls = {}, [], {1: [], 10: [], 100: []}
    for k in sorted({one[1] for one in objects}):
        of = [one for one in objects if one[1] == k], [one for one in found if one[2] == k]
        for t in THRESHOLDS:
            hits = right(*of, t)
            tables[k, round(t, 2)] = np.mean(precision_at(hits, len(of[0]), np.linspace(0, 1, 101)))
            for n, values in recalls.items():
                values.append(sum(right(*of, t, per_image=n)) / len(of[0]))
        hits = right(*of, 0.5, best_of_all=True)
        points = sorted({0.0} | {n / len(of[0]) for n in np.cumsum(hits)})
        steps = zip(points, points[1:], strict=False)
        area = sum((b - a) * precision_at(hits, len(of[0]), [b])[0] for a, b in steps)
        voc.append((area, np.mean(precision_at(hits, len(of[0]), np.linspace(0, 1, 11), 1e-12))))
    area, eleven = np.mean(voc, axis=0)
    return {
        "ap": np.mean(list(tables.values())),
        "ap50": np.mean([v for (_, t), v in tables.items() if t == 0.5]),
        "ap75": np.mean([v for (_, t), v in tables.items() if t == 0.75]),
        **{f"ar{n}": np.mean(values) for n, values in recalls.items()},
        "voc_ap50": area,
        "voc11_ap50": eleven,
    }


def evaluated(data):
    one = DetectionAP(NAMES, SIZE)
    for outputs, batch in data:
        one.update(outputs, batch)
    return one


@pytest.mark.parametrize("seed", range(4))
def test_the_definition(seed):
    data = list(batches(np.random.default_rng(seed)))
    result = evaluated(data).result()
    assert set(result["test"]) == set(DetectionAP.metrics)
    for name, value in expected(data).items():
        assert result["test"][name] == pytest.approx(value, abs=1e-9), name
    assert 0.05 < result["test"]["ap"] < result["test"]["ap50"] < 0.95
    assert result["by_class"]["never"] is None and result["by_class"]["cat"] > 0
    assert np.mean(result["precision_recall"]) == pytest.approx(result["test"]["ap50"])


def test_any_order_and_any_parts_give_the_same():
    data = list(batches(np.random.default_rng(5)))
    whole = evaluated(data).result()
    merged = DetectionAP(NAMES, SIZE)
    for part in (data[3:], data[1:3], data[:1]):
        merged.merge(evaluated(part).state())
    assert merged.result() == whole


def with_masks(data, rng):
    """Pixels of a few objects: each is an ellipse in its box, or found as one with holes."""
    height, width = MASKS
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    for outputs, batch in data:
        for values, name in ((batch, "instances"), (outputs, "masks")):
            ymin, xmin, ymax, xmax = (values["boxes"][..., i, None, None] for i in range(4))
            dy, dx = (2 * y - ymin - ymax) / (ymax - ymin), (2 * x - xmin - xmax) / (xmax - xmin)
            values[name] = (dy**2 + dx**2 < 1).astype(np.uint8)
        outputs["masks"] *= rng.random(outputs["masks"].shape) < 0.9
        yield outputs, batch


@pytest.mark.parametrize("seed", range(3))
def test_the_definition_of_masks(seed):
    rng = np.random.default_rng(seed)
    data = list(with_masks(batches(rng), rng))
    parts = [DetectionAP(NAMES, MASKS, masks=True) for _ in range(3)]
    for i, one in enumerate(data):
        parts[i % 2].update(*one)
    for part in (1, 0):
        parts[2].merge(parts[part].state())
    result = parts[2].result()["test"]
    for name, value in expected(data, ("instances", "masks")).items():
        if f"mask_{name}" in result:
            assert result[f"mask_{name}"] == pytest.approx(value, abs=1e-9), name
    assert 0.01 < result["mask_ap"] < result["mask_ap50"] < 0.9
    assert set(result) == set(parts[2].metrics) and "mask_ap" not in DetectionAP.metrics


def test_an_image_without_a_detection_counts():
    """One of two objects is in an image where nothing is detected: half of them are missed."""
    box = np.array([[[0.1, 0.1, 0.5, 0.5]], [[0.2, 0.2, 0.6, 0.6]]], np.float32)
    batch = {
        "boxes": box,
        "labels": np.zeros((2, 1), int),
        "valid": np.ones((2, 1), bool),
        "index": np.arange(2),
        "weight": np.ones(2),
    }
    outputs = {"boxes": box, "scores": np.ones((2, 1)), "label": np.array([[0], [-1]])}
    result = evaluated([(outputs, batch)]).result()["test"]
    assert result["ar100"] == pytest.approx(0.5) and result["voc_ap50"] == pytest.approx(0.5)
    assert result["ap"] == pytest.approx(51 / 101)  # of 101 points of recall
    outputs["label"][:] = -1
    result = evaluated([(outputs, batch)]).result()["test"]
    assert set(result.values()) == {0.0}


def test_areas_are_in_pixels():
    boxes = np.array([[[0, 0, 0.1, 0.2], [0, 0, 0.3, 0.6], [0, 0, 1, 1]]], np.float32)
    batch = {"boxes": boxes, "labels": np.zeros((1, 3), int), "valid": np.ones((1, 3), bool)}
    batch |= {"index": np.arange(1), "weight": np.ones(1)}
    outputs = {"boxes": boxes, "scores": np.ones((1, 3)), "label": np.array([[-1, 0, 0]])}
    result = evaluated([(outputs, batch)]).result()["by_area"]  # 20x20, 60x60, 200x100 pixels
    assert [result[name]["ar"] for name in ("small", "medium", "large")] == [0, 1, 1]


def test_a_known_average_precision():
    area, eleven = average_precision(np.array([1, 0, 1, 0, 1], bool), 3)
    assert area == pytest.approx((1 + 2 / 3 + 0.6) / 3)
    assert eleven == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 0.6) / 11)


def test_what_is_taken_for_what():
    boxes = np.array([[[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1], [0, 0.6, 0.2, 1]]], np.float32)
    batch = {"boxes": boxes, "labels": np.array([[0, 1, 1]]), "valid": np.ones((1, 3), bool)}
    batch |= {"index": np.arange(1), "weight": np.ones(1)}
    # The first twice, once as another class; the second nowhere, the third with too little score.
    found = np.stack([boxes[0, 0], boxes[0, 0], boxes[0, 1] - 0.4, boxes[0, 2]])[None]
    outputs = {"boxes": found, "scores": np.array([[0.9, 0.8, 0.7, 0.1]])}
    outputs["label"] = np.array([[1, 0, 2, 1]])
    matrix = evaluated([(outputs, batch)]).result()["objects"]
    assert matrix == [[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0], [1, 0, 1, 0]]


def test_no_object_at_all_has_no_precision():
    outputs = {"boxes": np.zeros((1, 1, 4)), "scores": np.ones((1, 1)), "label": np.zeros((1, 1))}
    batch = {"boxes": np.zeros((1, 2, 4)), "labels": -np.ones((1, 2)), "valid": np.zeros((1, 2))}
    batch |= {"index": np.arange(1), "weight": np.ones(1)}
    result = evaluated([(outputs, batch)]).result()
    assert np.isnan(result["test"]["ap"]) and not result["by_area"]


def test_a_class_without_a_name_is_refused():
    outputs, batch = next(batches(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"classes 0\.\.1: must be 0\.\.0"):
        DetectionAP(("cat",), SIZE).update(outputs, batch)


def with_ignored(crowd, found):
    """Metrics of one object that is detected, one ignored region, and more detections."""
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.4, 0.4, 1, 1]]], np.float32)
    batch = {"boxes": boxes, "labels": np.zeros((1, 2), int), "index": np.arange(1)}
    batch |= {"valid": np.array([[True, False]]), "weight": np.ones(1)}
    batch |= {"crowd": np.array([crowd])} if crowd else {}
    found = np.array([[boxes[0, 0], *found]], np.float32)
    count = found.shape[1]
    scores = np.linspace(0.5, 1, count)[None]  # the right one is the last
    outputs = {"boxes": found, "scores": scores, "label": np.zeros((1, count), int)}
    return evaluated([(outputs, batch)]).result()


IN_CROWD = [[0.5, 0.5, 0.7, 0.7], [0.4, 0.6, 0.6, 0.9], [0.4, 0.4, 1, 1]]


def test_detections_of_what_is_ignored_do_not_count():
    for crowd, right in (
        ([False, True], True),
        ([True, True], True),
        ([False, False], False),
        ((), False),
    ):
        result = with_ignored(crowd, IN_CROWD)
        test = result["test"]
        assert (test["ap"] > 0.999) == (test["ap50"] > 0.999) == right
        assert test["ar100"] == 1  # it is no object that is missed
        assert result["objects"][0][0] == 1 and result["objects"][0][3] == 0
        assert (result["objects"][3][0] == 0) == right
    # VOC's: those that overlap it by half, as one object that may be found many times.
    assert with_ignored([False, True], IN_CROWD[2:] * 2)["test"]["voc_ap50"] == 1
    assert with_ignored([False, True], IN_CROWD[:1])["test"]["voc_ap50"] < 1
    assert with_ignored([False, False], IN_CROWD[2:])["test"]["voc_ap50"] < 1
    # Beside the region, and what lies in it by less than half, is wrong.
    beside = with_ignored([False, True], [[0.3, 0.3, 0.5, 0.5]])
    assert beside["test"]["ap50"] < 1 and beside["objects"][3][0] == 1


def test_ignored_objects_stay_so_when_evaluators_are_merged():
    rng = np.random.default_rng(3)
    data = list(batches(rng))
    for _, batch in data:
        batch["crowd"] = rng.random(batch["valid"].shape) < 0.5
        batch["labels"] = np.maximum(batch["labels"], 0)
    whole, merged = evaluated(data), DetectionAP(NAMES, SIZE)
    for part in (data[2:], data[:2]):
        merged.merge(evaluated(part).state())
    assert merged.result() == whole.result()
    plain = evaluated([(o, {k: v for k, v in b.items() if k != "crowd"}) for o, b in data])
    assert plain.result()["test"] != whole.result()["test"]


def test_masks_of_what_is_ignored_do_not_count():
    pixels = np.zeros((1, 3, *SIZE), np.uint8)
    pixels[0, 0, :40, :20], pixels[0, 1, 80:, 40:], pixels[0, 2, 100:140, 50:70] = 1, 1, 1
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.4, 0.4, 1, 1], [0.5, 0.5, 0.7, 0.7]]], np.float32)
    batch = {"boxes": boxes[:, :2], "labels": np.zeros((1, 2), int), "index": np.arange(1)}
    batch |= {"valid": np.array([[True, False]]), "weight": np.ones(1), "instances": pixels[:, :2]}
    outputs = {"boxes": boxes[:, ::2], "masks": pixels[:, ::2], "label": np.zeros((1, 2), int)}
    outputs["scores"] = np.array([[0.5, 0.9]])
    for crowd in (False, True):
        one = DetectionAP(NAMES, SIZE, masks=True)
        one.update(outputs, batch | {"crowd": np.array([[False, crowd]])})
        test = one.result()["test"]
        assert (test["mask_ap50"] > 0.999) == (test["ap50"] > 0.999) == crowd
