"""What the Fast R-CNN paper promises, and what its kin share with it."""

import math

import keras
import numpy as np
import pytest

from kerasdl.columns import Column, DataInfo
from kerasdl.models.detection import fast_rcnn, rcnn, sppnet
from kerasdl.models.detection.faster_rcnn import BETA, WEIGHTS
from kerasdl.ops import boxes as bx
from kerasdl.recipe import Recipe
from kerasdl.tasks.detect_proposals import DetectProposals

H, W = 16, 24
MODELS = {
    "fast_rcnn": fast_rcnn.fast_rcnn,
    "sppnet": sppnet.sppnet,
    "rcnn": rcnn.rcnn,
}
TINIES = {**fast_rcnn.TINY, **sppnet.TINY, **rcnn.TINY}


def test_parameters():
    with keras.StatelessScope():
        model = fast_rcnn.fast_rcnn()
    counts = {v.path: math.prod(v.shape) for v in model.trainable_variables}
    assert sum(counts.values()) == 134_690_729
    assert sum(n for path, n in counts.items() if "stage" in path) == 14_714_688  # VGG-16's
    assert model.dense[0].kernel.shape == (25_088, 4096)
    assert model.classes.units == 21 and model.codes.units == 84
    assert model.samples[1] == 64 and model.fraction == 0.25 and model.background_from == 0.1


@pytest.fixture(params=MODELS)
def model(request):
    keras.utils.set_random_seed(0)
    name = request.param
    return MODELS[name](**{**TINIES[name], "drop_rate": 0.0})


@pytest.fixture
def batch(rng):
    """Images with none, one and two objects; proposals near them, anywhere, and absent ones."""
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[1, 0], boxes[2] = (0.1, 0.2, 0.6, 0.7), ((0, 0, 0.5, 0.5), (0.4, 0.5, 1, 1))
    labels = np.array([[-1, -1], [3, -1], [0, 4]])
    near = np.repeat(boxes, 6, 1) + 0.1 * rng.standard_normal((3, 12, 4))
    low = 0.6 * rng.random((3, 8, 2))
    proposals = np.concatenate([near, np.concatenate([low, low + 0.3], -1)], 1).clip(0, 1)
    proposals = np.where(
        (proposals[..., 2:] > proposals[..., :2]).all(-1, keepdims=True), proposals, 0
    )
    proposals[:, ::7] = 0
    image = rng.random((3, H, W, 3)).astype("float32")
    key = rng.integers(0, 2**31, (3, 2)).astype("uint32")
    proposals = proposals.astype("float32")
    given = {"image": image, "proposals": proposals, "boxes": boxes, "labels": labels}
    return given | {"valid": labels >= 0, "key": key}


def overlaps(a, b):
    return np.asarray(bx.pairwise(bx.iou, a, b))


def test_the_multi_task_loss(model, batch):
    """Equation 1 for every region that may be sampled, one by one."""
    model.samples, model.fraction = (None, 1000), 1.0
    predictions = model({k: batch[k] for k in ("image", "proposals")})
    size = np.array([H, W, H, W], np.float32)
    true, given = batch["boxes"] * size, batch["proposals"] * size
    sums = model.losses_of_regions(predictions, batch)
    counted = 0
    for i in range(3):
        regions = np.concatenate([given[i][given[i].any(-1)], true[i][batch["valid"][i]]])
        logits, codes = (
            np.asarray(x)[0] for x in model.regions(predictions["maps"][i : i + 1], regions[None])
        )
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        of_class = of_box = count = 0
        for r, region in enumerate(regions):
            overlap = np.where(batch["valid"][i], overlaps(region[None], true[i])[0], 0)
            best = overlap.argmax()
            if overlap[best] < model.background_from:
                continue
            count += 1
            u = 1 + batch["labels"][i][best] if overlap[best] >= 0.5 else 0
            of_class -= log_p[r, u]
            if u:
                center, side = (region[:2] + region[2:]) / 2, region[2:] - region[:2]
                goal = true[i][best]
                at = ((goal[:2] + goal[2:]) / 2 - center) / side
                v = np.concatenate([at, np.log((goal[2:] - goal[:2]) / side)]) * WEIGHTS
                far = np.abs(codes[r, u] - v)
                of_box += np.where(far < BETA, far**2 / (2 * BETA), far - BETA / 2).sum()
                counted += 1
        for name, expected in (("class", of_class), ("box", of_box)):
            np.testing.assert_allclose(sums[name][0][i], expected, rtol=1e-4, atol=1e-5)
            assert float(sums[name][1][i]) == count
    assert counted > 8
    pair = model.detection_losses(predictions, batch)
    mean = np.asarray(sums["class"][0]) / np.maximum(sums["class"][1], 1)
    np.testing.assert_allclose(pair[0], mean, rtol=1e-6)


def test_the_sample_is_decided_by_the_key(model, batch):
    model.samples, model.fraction = (None, 8), 0.25
    inputs = {k: batch[k] for k in ("image", "proposals")}
    sums = model.losses_of_regions(model(inputs), batch)
    again = model.losses_of_regions(model(inputs), batch)
    other = model.losses_of_regions(model(inputs), {**batch, "key": batch["key"] + 1})
    assert np.asarray(sums["class"][1]).max() <= 8
    np.testing.assert_array_equal(sums["class"][0], again["class"][0])
    assert (np.asarray(sums["class"][0]) != np.asarray(other["class"][0])).any()
    # Whatever the batch that an image stands in
    one = {k: v[2:] for k, v in batch.items()}
    alone = model.losses_of_regions(model({k: one[k] for k in inputs}), one)
    np.testing.assert_allclose(alone["class"][0], sums["class"][0][2:], rtol=1e-5)


def test_only_proposals_are_candidates(model, batch):
    predictions = model({k: batch[k] for k in ("image", "proposals")})
    boxes, scores = (np.asarray(x) for x in model.candidates(predictions))
    there = batch["proposals"].any(-1)
    assert boxes.shape == (3, 20, 5, 4) and scores.shape == (3, 20, 5)
    assert not scores[~there].any() and (scores[there] > 0).all()
    assert boxes.min() >= 0 and boxes.max() <= 1
    logits, codes = model.regions(predictions["maps"], batch["proposals"] * [H, W, H, W])
    np.testing.assert_array_equal(codes.shape, (3, 20, 6, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(scores[there], p[there][:, 1:], rtol=1e-5)


@pytest.mark.parametrize("way", ["search", "windows"])
def test_the_recall_of_the_proposals(way, batch):
    columns = {
        "image": Column("image", (H, W, 3)),
        "boxes": Column("boxes", (2, 4)),
        "labels": Column("label", (2,), tuple("abcde")),
        "valid": Column("valid", (2,)),
        "proposals": Column("regions", (20, 4)),
    }
    recipe = Recipe(task_kwargs={"proposals": way, "max_proposals": 20})
    task = DetectProposals(DataInfo(columns), recipe)
    model = fast_rcnn.fast_rcnn(**fast_rcnn.TINY["fast_rcnn"])
    batch["proposals"][1] = (0.1, 0.2, 0.3, 0.7)  # two fifths of the object
    batch["proposals"][2, 4] = (0, 0, 0.5, 0.45)
    batch["proposals"][2, :4] = batch["proposals"][2, 5:] = 0
    loss, metrics = task.losses(model, batch)
    hits, objects = (np.asarray(x) for x in metrics["proposal_recall"])
    expected = [0, 0, 1]
    if way == "windows":
        best = overlaps(bx.windows((H, W), 20), batch["boxes"].reshape(-1, 4)).max(0)
        expected = ((best >= 0.5).reshape(3, 2) & batch["valid"]).sum(1).tolist()
    assert hits.tolist() == expected and objects.tolist() == [0, 1, 2]
    assert set(task.inputs) == ({"image"} if way == "windows" else {"image", "proposals"})
