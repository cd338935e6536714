"""Average precision and recall of boxes and masks: COCO's by `pycocotools`, and PASCAL VOC's.

The proof of an export runs this file by its path, where nothing of the project can be imported.

Source: Lin et al. 2014, https://arxiv.org/abs/1405.0312, and its `pycocotools` (COCO's metrics);
        Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) Challenge, section 4.2.
"""

import contextlib
import io

import numpy as np

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
STATS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # in `COCOeval`'s order
VOC_IOU = 0.5


class Objects:
    """Takes in true and detected objects, batch by batch."""

    def __init__(self):
        self.images, self.parts, self.masks, self.size = 0, [], [], None

    def add(self, outputs: dict, batch: dict) -> None:
        """Add a batch of `rows`, and of `masks` where there are such."""
        count = len(batch["boxes"])
        self.parts.append(rows(self.images + np.arange(count), outputs, batch))
        if "masks" in outputs and "instances" in batch:
            self.masks.append(masks(outputs, batch))
            self.size = outputs["masks"].shape[-2:]
        self.images += count

    def result(self) -> dict:
        """`ap` and `ap50`, and of masks `mask_ap` and `mask_ap50`; nan without an object."""
        true, found = map(np.concatenate, zip(*self.parts, strict=True))
        classes = int(max([0, *true[:, 1], *found[:, 1]])) + 1
        given = (np.arange(self.images), true, found, classes)
        stats, _ = coco(*given)
        result = {name: stats[name] for name in ("ap", "ap50")}
        if self.masks:
            stats, _ = coco(*given, *map(np.concatenate, zip(*self.masks, strict=True)), self.size)
            result |= {f"mask_{name}": stats[name] for name in ("ap", "ap50")}
        return result


def rows(index, outputs: dict, batch: dict):
    """Objects of a batch of images.

    Args:
        index: int `(B,)`, numbers of the images.
        outputs: `boxes` `(B, N, 4)`, `scores` `(B, N)` and `label` `(B, N)`, negative where there
            is no detection.
        batch: `boxes` `(B, M, 4)`, `labels` `(B, M)`, `valid` `(B, M)`, and where there are such
            `crowd` `(B, M)`: which of those that are not valid are ignored.

    Returns:
        float64 `(t, 7)` of the true ones, image, label, box and whether it is ignored, and `(f, 7)`
        of those detected, the same and the score.
    """

    def those(label, boxes, there, *more):
        image = np.broadcast_to(np.asarray(index)[:, None], there.shape)
        columns = [image[..., None], label[..., None], boxes, *(x[..., None] for x in more)]
        return np.concatenate([np.asarray(c[there], np.float64) for c in columns], -1)

    valid, crowd = _valid_and_crowd(batch)
    true = those(batch["labels"], batch["boxes"], valid | crowd, crowd)
    label = outputs["label"]
    return true, those(label, outputs["boxes"], label >= 0, outputs["scores"])


def _valid_and_crowd(batch):
    """Which objects are right to find, and which are ignored: bool `(B, M)`."""
    valid = np.asarray(batch["valid"]).astype(bool)
    return valid, np.asarray(batch.get("crowd", ~valid & valid)).astype(bool) & ~valid


def masks(outputs: dict, batch: dict):
    """Masks of the `rows` of a batch, run-length encoded as COCO does.

    Args:
        outputs: `masks` uint8 `(B, N, H, W)` and `label`.
        batch: `instances` uint8 `(B, M, H, W)`, `valid`, and `crowd` where there is such.

    Returns:
        bytes `(t,)` of the true ones, and `(f,)` of those detected.
    """
    there = np.logical_or(*_valid_and_crowd(batch)), np.asarray(outputs["label"]) >= 0
    pixels = np.asarray(batch["instances"]), np.asarray(outputs["masks"])
    return tuple(run_lengths(one[where]) for one, where in zip(pixels, there, strict=True))


def run_lengths(pixels):
    """Masks `(n, H, W)`, not 0 inside, in COCO's compressed run lengths: bytes `(n,)`."""
    from pycocotools.mask import encode

    pixels = np.asfortranarray((pixels > 0).astype(np.uint8).transpose(1, 2, 0))
    codes = encode(pixels) if pixels.shape[-1] else []
    return np.array([one["counts"] for one in codes], np.bytes_)


def coco(images, true, found, classes: int, true_masks=None, found_masks=None, size=None):
    """COCO's metrics, of boxes or of masks.

    Args:
        images: int `(n,)`, all images that count.
        true: float `(t, 7)`: image, label, `ymin xmin ymax xmax` in pixels, and 1 where it is
            ignored: as COCO's crowds, which any number of detections may lie in.
        found: float `(f, 7)`: the same with the score instead.
        classes: How many there are.
        true_masks, found_masks: Of `masks`, row by row; if they are given, the areas and overlaps
            are theirs.
        size: `(H, W)` of the masks.

    Returns:
        `{name of STATS: float}`, nan where there is no object, and precision at IoU 0.5 where
        recall is 0, 0.01, ..., 1, a list, empty without objects.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from pycocotools.mask import area

    height, width = map(int, size) if size is not None else (0, 0)  # boxes need none

    def of(rows, codes, ignored=False):
        boxes = np.concatenate([rows[:, [3, 2]], rows[:, [5, 4]] - rows[:, [3, 2]]], -1)
        one = COCO()
        one.dataset = {
            "images": [{"id": int(i), "height": height, "width": width} for i in images],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": [
                {
                    "id": number,
                    "image_id": int(row[0]),
                    "category_id": int(row[1]),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignored and row[-1]),
                    "score": row[-1],
                }
                for number, (row, box) in enumerate(
                    zip(rows.tolist(), boxes.tolist(), strict=True), 1
                )
            ],
        }
        for annotation, code in zip(one.dataset["annotations"], codes or (), strict=bool(codes)):
            mask = {"size": [height, width], "counts": code}
            annotation |= {"segmentation": mask, "area": float(area(mask))}
        one.createIndex()
        return one

    with contextlib.redirect_stdout(io.StringIO()):
        codes = [None if m is None else m.tolist() for m in (true_masks, found_masks)]
        kind = "bbox" if size is None else "segm"
        evaluation = COCOeval(of(true, codes[0], ignored=True), of(found, codes[1]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(v) if v >= 0 else float("nan") for v in evaluation.stats]
    curves = evaluation.eval["precision"][0, :, :, 0, -1]  # (101, K)
    curves = curves[:, (curves >= 0).all(0)]
    return dict(zip(STATS, values, strict=True)), curves.mean(1).tolist() if curves.size else []


def voc(true, found, threshold: float = VOC_IOU):
    """VOC's average precision of one class: a detection is right where the object that it overlaps
    best is not taken yet, and does not count where that is ignored: as VOC's difficult ones are.

    Args:
        true, found: Rows of the class, of `coco`.
        threshold: The intersection over union from which on they belong together.

    Returns:
        The area under the curve, and the mean of eleven points; None without objects.
    """
    count = int((true[:, 6] == 0).sum())
    if not count:
        return None
    order = np.argsort(-found[:, 6], kind="stable")
    by_image = {image: true[true[:, 0] == image, 2:] for image in np.unique(true[:, 0])}
    taken, right = set(), np.zeros(len(found), bool)
    counted = np.ones(len(found), bool)
    for rank, row in enumerate(found[order]):
        objects = by_image.get(row[0])
        if objects is None:
            continue
        overlap = _iou(row[2:6], objects[:, :4])
        best = int(overlap.argmax())
        if overlap[best] >= threshold and objects[best, 4]:
            counted[rank] = False
        elif overlap[best] >= threshold and (row[0], best) not in taken:
            taken.add((row[0], best))
            right[rank] = True
    return average_precision(right[counted], count)


def confusion(true, found, classes: int, min_score: float = 0.3):
    """What is taken for what: the class of each object and of the detection that overlaps it best.

    Args:
        true, found, classes: Of `coco`.
        min_score: Of the detections that count.

    Returns:
        int64 `(K + 1, K + 1)`, rows the true classes and columns those detected; the last column
        are objects that no detection overlaps by half, the last row detections without an object,
        but for those that lie by half in what is ignored.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    found = found[found[:, 6] >= min_score]
    found = found[np.argsort(-found[:, 6], kind="stable")]
    for image in np.unique(np.concatenate([true[:, 0], found[:, 0]])):
        objects, rest = true[true[:, 0] == image], found[found[:, 0] == image]
        objects, ignored = objects[objects[:, 6] == 0], objects[objects[:, 6] > 0]
        left = np.ones(len(objects), bool)
        for row in rest:
            overlap = np.append(_iou(row[2:6], objects[:, 2:6]) * left, 0.0)
            best = int(overlap.argmax())
            hit = overlap[best] >= VOC_IOU
            if not hit and _inside(row[2:6], ignored[:, 2:6]).max(initial=0) >= VOC_IOU:
                continue
            matrix[int(objects[best, 1]) if hit else classes, int(row[1])] += 1
            left[best : best + hit] = False
        np.add.at(matrix, (objects[left, 1].astype(int), classes), 1)
    return matrix


def average_precision(right, count: int):
    """Average precision of detections in the order of their scores.

    Args:
        right: bool `(n,)`, which of them are right, the highest score first.
        count: How many objects there are.

    Returns:
        The area under precision over recall, where precision is the highest at that recall or more;
        and its mean at recall 0, 0.1, ..., 1.
    """
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(right) + 1), hits / count
    best = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    at = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-12)
    points = np.append(best, 0.0)[at]
    return float((steps * best).sum()), float(points.mean())


def _shared(box, boxes):
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return np.maximum(high - low, 0).prod(-1)


def _inside(box, boxes):
    """The fraction of one box that lies in each of `(n, 4)`."""
    return _shared(box, boxes) / max((box[2:] - box[:2]).prod(), 1e-12)


def _iou(box, boxes):
    """Intersection over union of one box with `(n, 4)`."""
    shared = _shared(box, boxes)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)
