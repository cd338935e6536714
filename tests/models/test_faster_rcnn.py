"""What the Faster R-CNN paper promises, and every step of torchvision's."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl.data import images
from kerasdl.layers.core import BatchNorm, Conv, Normalize
from kerasdl.models.detection import faster_rcnn
from kerasdl.ops import boxes as bx
from kerasdl.ops.nms import detections

GOLDEN = Path(__file__).parents[1] / "goldens" / "faster_rcnn.npz"


def test_parameters():
    with keras.StatelessScope():
        model = faster_rcnn.faster_rcnn()
    counts = {v.path: math.prod(v.shape) for v in model.trainable_variables}
    assert sum(counts.values()) == 137_078_239
    assert sum(n for path, n in counts.items() if "proposing" in path) == 2_387_510
    assert model.proposing.objectness.filters == 18 and model.codes.units == 84


class Golden(faster_rcnn.FasterRCNN):
    """With the network that the golden file has, and anchors at the corners of the places."""

    offset = 0.0

    def make_backbone(self, image_shape, stages, norm, input_mean, input_std):
        layers = []
        for filters, stride in zip((6, 8, 10), (2, 2, 1), strict=True):
            layers += [Conv(filters, 3, stride, use_bias=False), BatchNorm()]
            layers.append(keras.layers.ReLU())
        model = keras.Sequential([keras.Input(image_shape), *layers])
        model.image_shape, model.width = image_shape, 10
        return model


def turned(boxes):
    """x and y in the other order, of boxes or codes along the last axis."""
    return boxes.reshape(*boxes.shape[:-1], 2, 2)[..., ::-1].reshape(boxes.shape)


def transformed(golden, i):
    """What becomes of one image: normalized, resized and padded with zeros."""
    config = json.loads(str(golden["config"]))["init"]
    image = golden[f"inputs/image{i}"].transpose(1, 2, 0)[None]
    x = Normalize(config["image_mean"], config["image_std"])(image)
    sides = np.array(image.shape[1:3])
    scale = min(config["min_size"] / min(sides), config["max_size"] / max(sides))
    size = [int(side * scale) for side in sides]
    resized = images._sampled(x, np.zeros(2, "float32"), sides.astype("float32"), size)
    canvas = golden["outputs/transformed"].shape[2:]
    padding = [(0, 0), *((0, whole - side) for whole, side in zip(canvas, size, strict=True))]
    return np.pad(resized, [*padding, (0, 0)])


def given(golden):
    """The images as the network takes them, which are those that torchvision makes of them."""
    x = np.concatenate([transformed(golden, i) for i in range(2)])
    np.testing.assert_allclose(x, golden["outputs/transformed"].transpose(0, 2, 3, 1), atol=1e-4)
    return x


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(golden):
    sizes = {"stages": ((10,),), "sizes": (12, 24), "bins": 3, "fc_dim": 18, "drop_rate": 0.0}
    sizes |= {"before": 150, "after": 40, "high": 0.6, "roi": "align", "objects_sampled": 1.0}
    sizes |= {"anchors_sampled": 100_000, "regions_sampled": 100_000}
    model = Golden((96, 64, 3), num_classes=3, **sizes)
    model.build((None, 96, 64, 3))
    w = {k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")}
    for i in range(3):
        conv, norm = model.backbone.layers[3 * i : 3 * i + 2]
        conv.kernel.assign(w[f"backbone.{3 * i}.weight"].transpose(2, 3, 1, 0))
        names = ("weight", "bias", "running_mean", "running_var")
        own = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        for name, variable in zip(names, own, strict=True):
            variable.assign(w[f"backbone.{3 * i + 1}.{name}"])
    rpn = model.proposing
    rpn.conv.kernel.assign(w["rpn.head.conv.0.0.weight"].transpose(2, 3, 1, 0))
    rpn.conv.bias.assign(w["rpn.head.conv.0.0.bias"])
    for name in ("weight", "bias"):
        logits = w[f"rpn.head.cls_logits.{name}"]
        pairs = np.stack([0 * logits, logits], 1).reshape(-1, *logits.shape[1:])  # nothing, object
        codes = w[f"rpn.head.bbox_pred.{name}"].reshape(6, 4, -1)[:, [1, 0, 3, 2]].reshape(24, -1)
        if name == "weight":
            rpn.objectness.kernel.assign(pairs.transpose(2, 3, 1, 0))
            rpn.codes.kernel.assign(codes.T[None, None])
        else:
            rpn.objectness.bias.assign(pairs)
            rpn.codes.bias.assign(codes[:, 0])
    head = "roi_heads.box_head.fc"
    first = w[f"{head}6.weight"].reshape(18, 10, 3, 3).transpose(2, 3, 1, 0).reshape(90, 18)
    codes = w["roi_heads.box_predictor.bbox_pred.weight"].reshape(4, 4, 18)[:, [1, 0, 3, 2]]
    shift = turned(w["roi_heads.box_predictor.bbox_pred.bias"].reshape(4, 4))
    for layer, kernel, bias in (
        (model.dense[0], first, w[f"{head}6.bias"]),
        (model.dense[1], w[f"{head}7.weight"].T, w[f"{head}7.bias"]),
        (
            model.classes,
            w["roi_heads.box_predictor.cls_score.weight"].T,
            w["roi_heads.box_predictor.cls_score.bias"],
        ),
        (model.codes, codes.reshape(16, 18).T, shift.ravel()),
    ):
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    return model


@pytest.fixture(scope="module")
def steps(golden, model):
    """Maps, logits and codes of the anchors."""
    maps = model.backbone(given(golden))
    return (maps, *model.proposing(maps))


def proposals(golden, model, steps, i, training=False):
    """Those of one image, which fills only a part of the padded one."""
    maps, logits, codes = (x[i : i + 1] for x in steps)
    size = golden["outputs/transformed_sizes"][i].tolist()
    return model.propose(logits, codes, model.anchors(maps), size, training)


def test_the_first_stage_of_torchvision(golden, model, steps):
    maps, logits, codes = steps
    features = golden["outputs/features"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(maps, features, atol=1e-4)
    expected = golden["outputs/rpn_objectness"].transpose(0, 2, 3, 1).reshape(2, -1)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    expected = golden["outputs/rpn_offsets"].transpose(0, 2, 3, 1).reshape(2, -1, 4)
    np.testing.assert_allclose(codes, turned(expected), atol=1e-4)
    for i in range(2):
        boxes, there = proposals(golden, model, steps, i)
        assert np.all(there)
        np.testing.assert_allclose(boxes[0], turned(golden[f"outputs/proposals{i}"]), atol=1e-4)


def test_the_second_stage_of_torchvision(golden, model, steps):
    maps = steps[0]
    boxes = np.stack([turned(golden[f"outputs/proposals{i}"]) for i in range(2)])
    logits, codes = model.regions(maps, boxes)
    expected = golden["outputs/class_logits"].reshape(2, 40, 4)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    expected = golden["outputs/box_regression"].reshape(2, 40, 4, 4)
    np.testing.assert_allclose(codes, turned(expected), atol=1e-4)
    for i in range(2):
        size = golden["outputs/transformed_sizes"][i]
        found = bx.decode(codes[i : i + 1, :, 1:], boxes[i : i + 1, :, None], faster_rcnn.WEIGHTS)
        scores = ops.softmax(logits[i : i + 1], axis=-1)[..., 1:]
        result = detections(bx.clip(found, size.tolist()), scores, 12)
        result = {k: np.asarray(v)[0] for k, v in result.items()}
        real = np.array(golden[f"inputs/image{i}"].shape[1:]) / size  # of the image that was given
        expected = turned(golden[f"outputs/detections{i}/boxes"])
        np.testing.assert_allclose(result["boxes"] * np.tile(real, 2), expected, atol=1e-4)
        labels = golden[f"outputs/detections{i}/labels"]
        np.testing.assert_array_equal(result["label"] + 1, labels)
        scores = golden[f"outputs/detections{i}/scores"]
        np.testing.assert_allclose(result["scores"], scores, atol=1e-4)


def test_the_losses_of_torchvision(golden, model, steps):
    model.before, model.after = 200, (40, 80)
    totals = {}
    for i in range(2):
        boxes, there = proposals(golden, model, steps, i, training=True)
        maps, logits, codes = (x[i : i + 1] for x in steps)
        predictions = {"maps": maps, "objectness": logits, "codes": codes, "proposals": boxes}
        predictions["there"] = np.asarray(there).astype("int32")
        size = golden["outputs/transformed_sizes"][i] / golden[f"inputs/image{i}"].shape[1:]
        true = turned(golden[f"inputs/targets{i}/boxes"]) * np.tile(size, 2) / (96, 64, 96, 64)
        batch = {"boxes": true[None].astype("float32"), "valid": np.ones((1, 3), bool)}
        batch["labels"] = golden[f"inputs/targets{i}/labels"][None] - 1
        batch["key"] = np.array([[1, i]], "uint32")
        for name, pair in model.losses_of_stages(predictions, batch, training=True).items():
            totals[name] = totals.get(name, 0) + np.array([float(x[0]) for x in pair])
    model.before, model.after = 150, (40, 2000)
    names = {"objectness": "objectness", "proposal_box": "rpn_box_reg"}
    names |= {"class": "classifier", "box": "box_reg"}
    for name, theirs in names.items():
        expected = golden[f"outputs/loss_dict/loss_{theirs}"]
        total, count = totals[name]
        np.testing.assert_allclose(total / count, expected, atol=1e-4, err_msg=name)
        assert expected > 1e-3


@pytest.mark.parametrize(("name", "scale"), [("smooth_l1_beta0.5", 1.0), ("huber_delta0.5", 0.5)])
def test_the_smooth_loss_of_torch(monkeypatch, name, scale):
    """Of 0.5; Huber's is that much smaller."""
    with np.load(GOLDEN.with_name("torch_pieces.npz")) as file:
        logits, expected = file["inputs/logits"], file[f"outputs/{name}"]
    monkeypatch.setattr(faster_rcnn, "BETA", 0.5)
    result = faster_rcnn._smooth(logits[:3] - logits[3:]) / logits.shape[1]  # a mean over classes
    np.testing.assert_allclose(scale * np.mean(result), expected, rtol=1e-5)


def test_sampling_is_decided_by_the_key(rng):
    match = np.array([[0, 1, -1, -1, -1, -2, 2, -1], [-1] * 8, [-2] * 7 + [0]], np.int32)
    for _ in range(5):
        chosen = np.asarray(bx.sample(match, rng.random((3, 8)), 4))
        assert chosen.sum(1).tolist() == [4, 4, 1]
        assert chosen[0, match[0] >= 0].sum() == 2 and not chosen[match == -2].any()
    random = rng.random((3, 8))
    once, again = (np.asarray(bx.sample(match, random, 4)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    alone = np.asarray(bx.sample(match[1:2], random[1:2], 4))
    np.testing.assert_array_equal(alone[0], once[1])
    assert np.asarray(bx.sample(match, random, 8, fraction=0.25)).sum(1).tolist() == [6, 8, 1]


def test_absent_objects_and_proposals_cost_nothing(rng):
    """A scene without an object, and one that is full: the losses are finite and as they should."""
    keras.utils.set_random_seed(0)
    model = faster_rcnn.faster_rcnn_small(**faster_rcnn.TINY["faster_rcnn_small"])
    x = rng.random((2, 16, 24, 3), np.float32)
    low = 0.5 * rng.random((2, 4, 2), np.float32)
    batch = {"boxes": np.concatenate([low, low + 0.4], -1), "labels": np.full((2, 4), 3)}
    batch |= {"valid": np.array([[False] * 4, [True] * 4]), "key": np.ones((2, 2), "uint32")}
    sums = model.losses_of_stages(model(x, training=True), batch, training=True)
    sums = {k: np.asarray(ops.stack(v)) for k, v in sums.items()}
    assert all(np.isfinite(v).all() for v in sums.values())
    assert sums["proposal_box"][0, 0] == 0 and sums["box"][0, 0] == 0
    assert (sums["objectness"][0] > 0).all() and (sums["box"][0, 1] > 0).all()
    predictions = model(x)
    predictions["there"] = predictions["there"] * 0
    boxes, scores = model.candidates(predictions)
    assert boxes.shape == (2, 6, 5, 4) and not np.any(scores)
