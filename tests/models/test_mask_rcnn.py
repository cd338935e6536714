"""What the Mask R-CNN paper promises, and every step of torchvision's."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl import catalog
from kerasdl.layers.core import BatchNorm, Conv
from kerasdl.models.detection import faster_rcnn, mask_rcnn
from kerasdl.ops import boxes as bx
from kerasdl.ops.masks import paste
from kerasdl.ops.nms import detections
from tests.models.test_faster_rcnn import given, turned

GOLDEN = Path(__file__).parents[1] / "goldens" / "mask_rcnn.npz"
# Names of torchvision's weights and of ours, and how the former become the latter
WEIGHTS = {
    r"backbone\.(\d+)\.weight": (r"backbone/\1/(kernel|gamma)", "conv"),
    r"backbone\.(\d+)\.bias": (r"backbone/\1/beta", ""),
    r"backbone\.(\d+)\.running_mean": (r"backbone/\1/moving_mean", ""),
    r"backbone\.(\d+)\.running_var": (r"backbone/\1/moving_variance", ""),
    r"rpn\.head\.conv\.0\.0\.(.*)": (r"proposing/conv/\1", "conv"),
    r"rpn\.head\.cls_logits\.(.*)": (r"proposing/objectness/\1", "conv"),
    r"rpn\.head\.bbox_pred\.(.*)": (r"proposing/codes/\1", "codes conv"),
    r"roi_heads\.box_head\.fc6\.(.*)": (r"fc6/\1", "bins dense"),
    r"roi_heads\.box_head\.fc7\.(.*)": (r"fc7/\1", "dense"),
    r"roi_heads\.box_predictor\.cls_score\.(.*)": (r"classes/\1", "dense"),
    r"roi_heads\.box_predictor\.bbox_pred\.(.*)": (r"codes/\1", "codes dense"),
    r"roi_heads\.mask_head\.0\.0\.(.*)": (r"mask_head/conv1/\1", "conv"),
    r"roi_heads\.mask_head\.1\.0\.(.*)": (r"mask_head/conv2/\1", "conv"),
    r"roi_heads\.mask_predictor\.conv5_mask\.(.*)": (r"mask_head/enlarge/\1", "transposed"),
    r"roi_heads\.mask_predictor\.mask_fcn_logits\.(.*)": (r"mask_head/logits/\1", "conv"),
}


def renamed(name, value):
    """The pattern of our path, and the value as we hold it."""
    (match,) = filter(None, (re.fullmatch(pattern, name) for pattern in WEIGHTS))
    path, how = WEIGHTS[match.re.pattern]
    if "codes" in how:  # four numbers of each anchor or class, x before y
        value = value.reshape(-1, 4, *value.shape[1:])[:, [1, 0, 3, 2]].reshape(value.shape)
    if "bins" in how and value.ndim == 2:  # channels behind the bins
        value = value.reshape(len(value), -1, 3, 3).transpose(0, 2, 3, 1).reshape(value.shape)
    if value.ndim > 1:
        kinds = {"conv": (2, 3, 1, 0), "transposed": (2, 3, 1, 0), "dense": (1, 0)}
        value = value.transpose(kinds[how.split()[-1]])
    return match.expand(path).replace("weight", "kernel"), value


class Golden(mask_rcnn.MaskRCNN):
    """With the network that the golden file has: one map, of three convolutions."""

    def make_backbone(self, image_shape, stages, norm, input_mean, input_std):
        layers = []
        for i, (filters, stride) in enumerate(zip((6, 8, 10), (2, 2, 1), strict=True)):
            layers.append(Conv(filters, 3, stride, use_bias=False, name=str(3 * i)))
            layers += [BatchNorm(name=str(3 * i + 1)), keras.layers.ReLU(name=str(3 * i + 2))]
        model = keras.Sequential([keras.Input(image_shape), *layers], name="backbone")
        model.image_shape, self.frozen = image_shape, False
        return model

    map_width = 10

    def maps(self, x, training=False):
        return [self.backbone(x)]

    def build(self, input_shape):
        faster_rcnn.FasterRCNN.build(self, input_shape)
        self.mask_head.build((None, None, self.mask_bins, self.mask_bins, self.map_width))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(golden):
    sizes = {"sizes": ((12, 24),), "bins": 3, "fc_dim": 18, "canonical": (224, 4)}
    sizes |= {"before": 150, "after": 40, "high": 0.6, "objects_sampled": 1.0}
    sizes |= {"anchors_sampled": 100_000, "regions_sampled": 100_000}
    masks = {"mask_filters": (9, 7), "mask_dim": 6, "mask_bins": 5}
    model = Golden((96, 64, 3), num_classes=3, **masks, **sizes)
    model.build((None, 96, 64, 3))
    given = {k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")}
    paths = {v.path: v for v in model.weights if "seed" not in v.path}
    for name, value in given.items():
        pattern, value = renamed(name, value)
        (path,) = [path for path in paths if re.fullmatch(f"(.*/)?{pattern}", path)]
        paths.pop(path).assign(value)
    assert not paths
    return model


@pytest.fixture(scope="module")
def steps(golden, model):
    """The map, logits and codes of the anchors."""
    (maps,) = model.maps(given(golden))
    return (maps, *model.proposing(maps))


def proposals(golden, model, steps, i, training=False):
    """Those of one image, which fills only a part of the padded one."""
    maps, logits, codes = (x[i : i + 1] for x in steps)
    size = golden["outputs/transformed_sizes"][i].tolist()
    return model.propose(logits, codes, model.anchors([maps]), size, training)


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


def test_boxes_and_masks_of_torchvision(golden, model, steps):
    maps = steps[0]
    boxes = np.stack([turned(golden[f"outputs/proposals{i}"]) for i in range(2)])
    logits, codes = model.regions([maps], boxes)
    expected = golden["outputs/class_logits"].reshape(2, 40, 4)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    expected = golden["outputs/box_regression"].reshape(2, 40, 4, 4)
    np.testing.assert_allclose(codes, turned(expected), atol=1e-4)
    for i in range(2):
        size = golden["outputs/transformed_sizes"][i]
        found = bx.decode(codes[i : i + 1, :, 1:], boxes[i : i + 1, :, None], faster_rcnn.WEIGHTS)
        scores = ops.softmax(logits[i : i + 1], axis=-1)[..., 1:]
        result = detections(bx.clip(found, size.tolist()), scores, 12)
        theirs = f"outputs/detections{i}"
        np.testing.assert_array_equal(result["label"][0] + 1, golden[f"{theirs}/labels"])
        np.testing.assert_allclose(result["scores"][0], golden[f"{theirs}/scores"], atol=1e-4)
        real = golden[f"inputs/image{i}"].shape[1:]  # of the image that was given
        own = result["boxes"] * np.tile(np.array(real) / size, 2).astype("float32")
        np.testing.assert_allclose(own[0], turned(golden[f"{theirs}/boxes"]), atol=1e-4)
        masks = model.mask_logits([maps[i : i + 1]], result["boxes"], result["label"])
        pasted = paste(ops.sigmoid(masks), own, real)
        np.testing.assert_allclose(pasted[0], golden[f"{theirs}/masks"][:, 0], atol=1e-4)
        assert np.max(pasted) > 0.5


def enlarged(masks, size):
    """Masks `(M, h, w)` as torchvision enlarges them: the nearest pixel."""
    sides = zip(size, masks.shape[1:], strict=True)
    y, x = (np.floor(np.arange(n) * m / n).astype(int) for n, m in sides)
    return masks[:, y][:, :, x]


def test_the_losses_of_torchvision(golden, model, steps):
    model.before, model.after = 200, (40, 80)
    totals = {}
    for i in range(2):
        boxes, there = proposals(golden, model, steps, i, training=True)
        maps, logits, codes = (x[i : i + 1] for x in steps)
        predictions = {"maps": [maps], "objectness": logits, "codes": codes, "proposals": boxes}
        predictions["there"] = np.asarray(there).astype("int32")
        size = golden["outputs/transformed_sizes"][i]
        scale = np.tile(size / golden[f"inputs/image{i}"].shape[1:], 2)
        true = turned(golden[f"inputs/targets{i}/boxes"]) * scale / (96, 64, 96, 64)
        batch = {"boxes": true[None].astype("float32"), "valid": np.ones((1, 3), bool)}
        batch["labels"] = golden[f"inputs/targets{i}/labels"][None] - 1
        batch["key"] = np.array([[1, i]], "uint32")
        batch["instances"] = np.zeros((1, 3, 96, 64), "uint8")
        masks = enlarged(golden[f"inputs/targets{i}/masks"], size)
        batch["instances"][0, :, : size[0], : size[1]] = masks
        for name, pair in model.losses_of_stages(predictions, batch, training=True).items():
            totals[name] = totals.get(name, 0) + np.array([float(x[0]) for x in pair])
    model.before, model.after = 150, (40, 2000)
    names = {"objectness": "objectness", "proposal_box": "rpn_box_reg", "mask": "mask"}
    names |= {"class": "classifier", "box": "box_reg"}
    assert set(names) == set(totals)
    for name, theirs in names.items():
        expected = golden[f"outputs/loss_dict/loss_{theirs}"]
        total, count = totals[name]
        np.testing.assert_allclose(total / count, expected, atol=1e-4, err_msg=name)
        assert expected > 1e-3


def test_parameters():
    """Those of torchvision's with 91 classes; its batch norm is not trained."""
    with keras.StatelessScope(initialize_variables=False):
        model = catalog.build("mask_rcnn", frozen=True)
    keras.backend.clear_session()
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 44_401_393


def test_absent_objects_cost_nothing(rng):
    """A scene without an object, and one that is full."""
    keras.utils.set_random_seed(0)
    model = mask_rcnn.mask_rcnn_small(**mask_rcnn.TINY["mask_rcnn_small"])
    x = rng.random((2, 24, 32, 1), np.float32)
    low = 0.5 * rng.random((2, 4, 2), np.float32)
    batch = {"boxes": np.concatenate([low, low + 0.4], -1), "labels": np.full((2, 4), 3)}
    batch |= {"valid": np.array([[False] * 4, [True] * 4]), "key": np.ones((2, 2), "uint32")}
    batch["instances"] = rng.integers(0, 2, (2, 4, 24, 32)).astype("uint8")
    of_class, of_box, of_mask = model.detection_losses(model(x, training=True), batch, True)
    assert np.isfinite([of_class, of_box, of_mask]).all()
    assert of_box[0] == 0 and of_mask[0] == 0
    assert of_box[1] > 0 and 0.3 < of_mask[1] < 3
    full = {**batch, "instances": np.ones_like(batch["instances"])}
    assert model.detection_losses(model(x), full)[2][1] != of_mask[1]
    masks = model.object_masks(model(x), batch["boxes"], np.array([[3, 1, -1, -1]] * 2))
    assert masks.shape == (2, 4, 24, 32) and 0 < np.max(masks) < 1
