"""What the DETR paper promises, and every step of the library that has its published weights."""

import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy.optimize import linear_sum_assignment

from kerasdl.columns import Column, DataInfo
from kerasdl.errors import UserError
from kerasdl.layers.core import ConvNorm, build_chain, pad2d
from kerasdl.layers.mlp import MLP
from kerasdl.models.cnn.resnet import Bottleneck
from kerasdl.models.detection import detr
from kerasdl.ops import boxes as bx
from kerasdl.recipe import Recipe
from kerasdl.tasks.detect import Detect
from tests.variants import example_batch, tiny

GOLDEN = Path(__file__).parents[1] / "goldens" / "detr.npz"


def test_parameters():
    with keras.StatelessScope(initialize_variables=False):
        model = detr.detr()
    counts = {v.path: math.prod(v.shape) for v in model.variables if "seed" not in v.path}
    assert sum(counts.values()) == 41_631_008
    # What the authors keep as ImageNet has left it
    frozen = re.compile("backbone/(stem|stage2)|backbone/.*(gamma|beta|moving)")
    assert sum(n for path, n in counts.items() if not frozen.search(path)) == 41_302_368
    assert model.backbone.strides["stage5"] == 32 and len(model.decoder) == 6


# -- every step of the golden file --------------------------------------------------------------

# Pattern of a name -> our path, one after the other; #1 is the number 2.
PATHS = (
    (r"^model\.", ""),
    (r"backbone\.model\.embedder\.embedder\.", "backbone/stem/"),
    (r"backbone\.model\.encoder\.stages\.(\d)\.layers\.(\d)\.", r"backbone/stage#\1_block#\2/"),
    (r"shortcut\.", "project/"),
    (r"layer\.(\d)\.", r"conv#\1/"),
    (r"convolution\.weight", "conv/kernel"),
    (r"normalization\.weight", "norm/gamma"),
    (r"normalization\.bias", "norm/beta"),
    (r"normalization\.running_mean", "norm/moving_mean"),
    (r"normalization\.running_var", "norm/moving_variance"),
    (r"query_position_embeddings\.weight", "query_positions"),
    (r"input_projection", "project"),
    (r"(encoder|decoder)\.layers\.(\d)\.", r"\1_block#\2/"),
    (r"self_attn_layer_norm", "norm1"),
    (r"encoder_attn_layer_norm", "norm2"),
    (r"(encoder_block#\d)/final_layer_norm", r"\1/norm2"),
    (r"(decoder_block#\d)/final_layer_norm", r"\1/norm3"),
    (r"decoder\.layernorm", "decoder_norm"),
    (r"self_attn\.", "attention/"),
    (r"encoder_attn\.", "cross/"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"o_proj", "project"),
    (r"mlp\.fc", "mlp/dense"),
    (r"class_labels_classifier", "classes"),
    (r"bbox_predictor\.layers\.(\d)", r"box#\1"),
    (r"(norm\d?)\.weight", r"\1/gamma"),
    (r"(norm\d?)\.bias", r"\1/beta"),
    (r"\.weight", "/kernel"),
    (r"\.bias", "/bias"),
)


def path_of(name):
    for pattern, path in PATHS:
        name = re.sub(pattern, path, name)
    return re.sub(r"#(\d)", lambda match: str(int(match[1]) + 1), name)


class Bottlenecks(keras.Model):
    """The ResNet of the golden file, whose stages do not double."""

    width = 20

    def __init__(self):
        super().__init__(name="backbone")
        self.stem = ConvNorm(6, 7, 2, activation="relu", name="stem")
        sizes = {"stage1_block1": (3, 1), "stage2_block1": (5, 2), "stage2_block2": (5, 1)}
        self.blocks = [Bottleneck(*size, True, name=name) for name, size in sizes.items()]

    def build(self, input_shape):
        build_chain(input_shape, self.stem, *self.blocks)

    def call(self, x, training=False):
        x = ops.max_pool(pad2d(self.stem(x, training=training), 1), 3, 2)
        for block in self.blocks:
            x = block(x, training=training)
        return {"stage2": x}


class Golden(detr.DETR):
    def make_backbone(self, **arguments):
        return Bottlenecks()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(golden):
    sizes = {"queries": 7, "dim": 24, "encoder_depth": 2, "decoder_depth": 3, "num_heads": 3}
    model = Golden((48, 56, 3), num_classes=5, mlp_dim=44, **sizes)
    for block in model.decoder:
        block.mlp = MLP(40, "relu", name="mlp")
    model.build((None, 48, 56, 3))
    own = {v.path.partition("/")[2]: v for v in model.variables if "seed" not in v.path}
    names = {path_of(k[8:]): v for k, v in golden.items() if k.startswith("weights/")}
    assert names.keys() == own.keys()
    for path, value in names.items():
        if path.startswith("box3"):  # x y width height
            value = value[[1, 0, 3, 2]]
        if path.endswith("kernel"):
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        own[path].assign(value)
    return model


@pytest.fixture(scope="module")
def predictions(golden, model):
    """Of two images of which each fills but a part of the padded one."""
    pixels = golden["inputs/pixel_values"].transpose(0, 2, 3, 1)
    return model(pixels, real=golden["inputs/pixel_mask"] > 0)


def turned(boxes):
    """x and y in the other order."""
    return boxes[..., [1, 0, 3, 2]]


def test_every_step_of_the_library(golden, model, predictions):
    maps = model.features(golden["inputs/pixel_values"].transpose(0, 2, 3, 1))
    expected = golden["outputs/features"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    memory, _, _ = model.encode(maps, golden["inputs/pixel_mask"] > 0)
    np.testing.assert_allclose(memory, golden["outputs/encoder_output"], atol=1e-4)
    logits, boxes = (predictions[k][:, -1] for k in ("logits", "boxes"))
    np.testing.assert_allclose(logits, golden["outputs/logits"], atol=1e-4)
    np.testing.assert_allclose(boxes, turned(golden["outputs/pred_boxes"]), atol=1e-4)


def test_losses_and_matching_of_the_library(golden, model, predictions):
    batch = {"boxes": np.zeros((2, 3, 4)), "labels": np.full((2, 3), -1)}
    batch["valid"], query = np.zeros((2, 3), bool), np.full((2, 3), -1)
    for i in range(2):
        boxes = turned(golden[f"inputs/targets{i}/boxes"])
        n = len(boxes)
        batch["boxes"][i, :n] = bx.corners(boxes[:, :2], boxes[:, 2:])
        batch["labels"][i, :n] = golden[f"inputs/targets{i}/class_labels"]
        batch["valid"][i, :n] = True
        matched = golden[f"outputs/matched_targets{i}"]
        query[i, matched] = golden[f"outputs/matched_queries{i}"]
    last = {k: v[:, -1:] for k, v in predictions.items()}
    sums = {k: np.asarray(v) for k, v in model.set_losses(last, batch).items()}
    np.testing.assert_array_equal(sums["query"][:, 0], query)
    total = {k: v.sum() for k, v in sums.items() if k != "query"}
    losses = {
        "loss_ce": total["class"] / total["weights"],
        "loss_bbox": total["l1"] / total["objects"],
        "loss_giou": total["giou"] / total["objects"],
    }
    for name, value in losses.items():
        assert abs(value - golden[f"outputs/loss_dict/{name}"]) < 1e-4, name
    sum_ = losses["loss_ce"] + 5 * losses["loss_bbox"] + 2 * losses["loss_giou"]
    assert abs(sum_ - golden["outputs/loss"]) < 1e-4
    found = (np.argmax(last["logits"][:, 0], -1) < 5).sum(-1)
    wrong = np.abs(found - batch["valid"].sum(-1)).mean()
    assert wrong == golden["outputs/loss_dict/cardinality_error"]


# -- the loss, object by object -----------------------------------------------------------------


def random_batch(rng, size=5, objects=4):
    """Objects of five classes; of the first image none, of the second as many as there can be."""
    boxes = np.sort(rng.random((size, objects, 2, 2)), axis=2).reshape(size, objects, 4)
    valid = rng.random((size, objects)) < 0.6
    valid[0], valid[1] = False, True
    labels = np.where(valid, rng.integers(0, 5, (size, objects)), -1)
    return {"boxes": boxes * valid[..., None], "valid": valid, "labels": labels}


def random_predictions(rng, size=5, depth=2, queries=6):
    boxes = 0.2 + 0.3 * rng.random((size, depth, queries, 4))
    return {"logits": rng.normal(size=(size, depth, queries, 6)), "boxes": boxes}


@pytest.fixture(scope="module")
def small():
    return detr.detr_small(**tiny("detr_small"))


def expected_losses(logits, boxes, batch, i):
    """Equation 2 of one example and one layer: of classes and of boxes."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    there = np.flatnonzero(batch["valid"][i])
    true, label = batch["boxes"][i][there], batch["labels"][i][there]
    cost, of_boxes = np.zeros((len(there), len(p))), np.zeros((len(there), len(p)))
    for m, (box, k) in enumerate(zip(true, label, strict=True)):
        for q, (y, x, h, w) in enumerate(boxes):
            center = np.array([*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2])])
            corners = np.array([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
            giou = float(bx.giou(corners[None], box[None])[0])
            of_boxes[m, q] = 5 * np.abs(center - [y, x, h, w]).sum() + 2 * (1 - giou)
            cost[m, q] = of_boxes[m, q] - p[q, k]
    rows, columns = linear_sum_assignment(cost)
    target = np.full(len(p), 5)
    target[columns] = label[rows]
    weight = np.where(target == 5, 0.1, 1)
    return -(weight * np.log(p[np.arange(len(p)), target])).sum(), of_boxes[rows, columns].sum()


def test_equation_2_in_every_layer(small, rng):
    batch, predictions = random_batch(rng), random_predictions(rng)
    (of_class, count), (of_box, again) = small.detection_losses(predictions, batch)
    np.testing.assert_array_equal(count, batch["valid"].sum(1))
    np.testing.assert_array_equal(count, again)
    for i in range(5):
        layers = [
            expected_losses(predictions["logits"][i, d], predictions["boxes"][i, d], batch, i)
            for d in range(2)
        ]
        expected = np.sum(layers, axis=0)
        np.testing.assert_allclose([of_class[i], of_box[i]], expected, rtol=1e-9)
    assert of_box[0] == 0 and of_class[0] > 0


def test_the_loss_is_a_mean_over_objects_under_xla_too(rng):
    """Whatever image they are in; in a graph that XLA compiles, with the gradient."""
    task = task_of(**tiny("detr_small"))
    model = detr.detr_small(**tiny("detr_small"))
    batch = example_batch(task, 4)

    def step(batch):
        with tf.GradientTape() as tape:
            loss, metrics = task.losses(model, batch, training=False)
            total = tf.reduce_sum(loss[0]) / tf.reduce_sum(loss[1])
        gradient = tape.gradient(total, model.positions.value)
        return loss, metrics["class_loss"], metrics["box_loss"], gradient

    plain = step(batch)
    compiled = tf.function(step, jit_compile=True, autograph=False)(batch)
    for a, b in zip(keras.tree.flatten(plain), keras.tree.flatten(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    loss, of_class, of_box, gradient = plain
    np.testing.assert_allclose(loss[0], of_class[0] + of_box[0], rtol=1e-6)
    assert np.abs(gradient).max() > 0


def task_of(num_classes, image_shape, **_):
    columns = {
        "image": Column("image", image_shape),
        "boxes": Column("boxes", (3, 4)),
        "labels": Column("label", (3,), tuple("abcdefgh"[:num_classes])),
        "valid": Column("valid", (3,)),
    }
    return Detect(DataInfo(columns), Recipe(model="detr_small", task_kwargs={"nms_iou": 1.0}))


# -- what is found ------------------------------------------------------------------------------


def test_each_query_answers_once_and_none_is_suppressed(small):
    """Though two boxes are alike, and there are fewer queries than places in the answer."""
    logits = np.full((1, 2, 6, 6), -9.0, "float32")
    logits[:, 0, :, 0] = 9  # of an earlier layer
    logits[:, 1, :, 5] = 9  # no object
    logits[0, 1, 2] = [0, 3, 2.9, 0, 0, 0]
    logits[0, 1, 4] = [0, 4, 0, 0, 0, 0]
    boxes = np.full((1, 2, 6, 4), 0.5, "float32")
    boxes[0, 1, 4] = [0.1, 0.5, 0.4, 0.2]  # beyond the edge

    class Fixed:
        candidates = small.candidates

        def __call__(self, x, training=False):
            return {"logits": logits, "boxes": boxes}

    task = task_of(**tiny("detr_small"))
    found = task.predict(Fixed(), {"image": np.zeros((1, 32, 40, 1))})
    found = {k: np.asarray(v)[0] for k, v in found.items()}
    assert found["num"] == 2 and found["boxes"].shape == (20, 4)
    assert found["label"].tolist() == [1, 1] + [-1] * 18
    np.testing.assert_allclose(found["boxes"][0], [0, 0.4, 0.3, 0.6], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][1], [0.25, 0.25, 0.75, 0.75], atol=1e-6)
    p = [np.exp(4) / (np.exp(4) + 5), np.exp(3) / (np.exp(3) + np.exp(2.9) + 4)]
    np.testing.assert_allclose(found["scores"][:2], p, rtol=1e-5)
    assert not found["scores"][2:].any() and not found["boxes"][2:].any()


def test_padding_changes_nothing_but_the_features_of_the_edge(small, rng):
    """Positions are those of the image alone, and no query looks beyond it."""
    maps = rng.normal(size=(2, 4, 5, 8)).astype("float32")
    padded = np.full((2, 7, 6, 8), 1e3, "float32")
    padded[:, :4, :5] = maps
    real = np.zeros((2, 7, 6), bool)
    real[:, :4, :5] = True
    alone, among = (
        small.decode(*small.encode(x, there)) for x, there in ((maps, None), (padded, real))
    )
    for key, value in alone.items():
        np.testing.assert_allclose(value, among[key], atol=1e-5, err_msg=key)


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="dim 90: must be a multiple of 4"):
        detr.detr_small(dim=90, num_heads=3)
    with pytest.raises(UserError, match="num_heads 5: must divide the 96 channels"):
        detr.detr_small(num_heads=5)
    with pytest.raises(UserError, match="queries 0: must be a whole number from 1 on"):
        detr.detr_small(queries=0)
