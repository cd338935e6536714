"""Our detection against torchvision's on the CPU, of the same sizes; for those who have it."""

from importlib.util import find_spec

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog
from kerasdl.ops import nms, roi

OPS = {"side": 400, "stride": 8, "channels": 256, "regions": 256, "boxes": 1000, "kept": 100}
NETWORKS = {"faster_rcnn_fpn": "fasterrcnn_resnet50_fpn", "mask_rcnn": "maskrcnn_resnet50_fpn"}
TRAINING = {"batch": 1, "side": 160, "objects": 3, "classes": 90}
BINS = 7
OVERLAP = 0.5


def ops_cases(size=None):
    """Yield `(name, steps)` for `paired.compare`: suppression, and what regions hold; none without
    torchvision.

    Args:
        size: As `OPS`, which it is if None.
    """
    if find_spec("torchvision") is None:
        return
    import torch
    import torchvision.ops

    side, stride, channels, regions, count, kept = (size or OPS).values()
    boxes, scores = _boxes(count, side), np.random.default_rng(1).random(count).astype("float32")
    corners, theirs = torch.from_numpy(_xyxy(boxes)), torch.from_numpy(scores)
    yield (
        f"Suppression of {count} boxes, {kept} kept / torchvision.ops.nms",
        {
            **_ours(lambda b, s: nms.nms(b, s, OVERLAP, kept), boxes[None], scores[None]),
            ("peer", False): lambda: torchvision.ops.nms(corners, theirs, OVERLAP)[:kept],
        },
    )
    cells = side // stride
    maps = np.random.default_rng(2).normal(size=(1, cells, cells, channels)).astype("float32")
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(maps, -1, 1)))
    chosen = boxes[:regions]
    rows = torch.from_numpy(np.pad(_xyxy(chosen), ((0, 0), (1, 0))))
    for name, ours, peer in (
        (
            "RoI align",
            lambda m, b: roi.roi_align(m, b, (BINS, BINS), 1 / stride),
            lambda: torchvision.ops.roi_align(planes, rows, BINS, 1 / stride, 2, True),
        ),
        (
            "RoI pooling",
            lambda m, b: roi.roi_pool(m, b, (BINS, BINS), 1 / stride),
            lambda: torchvision.ops.roi_pool(planes, rows, BINS, 1 / stride),
        ),
    ):
        yield (
            f"{name}, {len(chosen)} regions of {cells} x {cells} x {channels} / torchvision.ops",
            {**_ours(ours, maps, chosen[None]), ("peer", False): peer},
        )


def training_cases(size=None, arguments=None):
    """Yield `(name, steps)` for `paired.compare`: training steps of detectors, with all weights
    and plain gradient descent; none without torchvision.

    Args:
        size: As `TRAINING`, which it is if None.
        arguments: `{row: more arguments of ours}`, for tests.
    """
    if find_spec("torchvision") is None:
        return
    batch, side, objects, classes = (size or TRAINING).values()
    for name, peer in NETWORKS.items():
        given = (arguments or {}).get(name, {})
        model = catalog.build(name, image_shape=(side, side, 3), num_classes=classes, **given)
        examples = _examples(batch, side, objects, classes)
        yield (
            f"A training step of {name}, {batch} images of {side} x {side} / torchvision's {peer}",
            {
                ("ours", False): _training_step(model, examples),
                ("peer", False): _torch_step(peer, side, classes, examples),
            },
        )


def _ours(function, *arrays):
    tensors = [tf.constant(array) for array in arrays]

    def side(xla):
        compiled = tf.function(function, jit_compile=xla)
        return lambda: compiled(*tensors).numpy()

    return {("ours", xla): side(xla) for xla in (False, True)}


def _boxes(count, side):
    """float32 `(count, 4)`, `ymin xmin ymax xmax` in pixels."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 0.7, (count, 2)), rng.uniform(0.05, 0.3, (count, 2))
    return (side * np.concatenate([corner, corner + size], -1)).astype("float32")


def _xyxy(boxes):
    return np.ascontiguousarray(boxes[..., [1, 0, 3, 2]])


def _examples(batch, side, objects, classes):
    """What the models' losses take."""
    rng = np.random.default_rng(3)
    boxes = _boxes(batch * objects, side).reshape(batch, objects, 4)
    place = (np.arange(side) + 0.5)[:, None], (np.arange(side) + 0.5)[None]
    top, left, bottom, right = (boxes[..., k, None, None] for k in range(4))
    inside = (top <= place[0]) & (place[0] < bottom) & (left <= place[1]) & (place[1] < right)
    return {
        "image": rng.random((batch, side, side, 3), "float32"),
        "boxes": boxes / side,
        "labels": rng.integers(0, classes, (batch, objects)).astype("int32"),
        "valid": np.ones((batch, objects), bool),
        "instances": inside,
        "key": rng.integers(0, 2**32, (batch, 2), "uint32"),
    }


def _training_step(model, examples):
    batch = {name: tf.constant(value) for name, value in examples.items()}
    weights = model.trainable_variables
    optimizer = keras.optimizers.SGD(1e-4)
    optimizer.build(weights)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            predictions = model(batch["image"], training=True)
            losses = model.detection_losses(predictions, batch, training=True)
            loss = keras.ops.mean(sum(losses))
        gradients = tape.gradient(loss, [w.value for w in weights])
        pairs = [(g, w) for g, w in zip(gradients, weights, strict=True) if g is not None]
        optimizer.apply([g for g, _ in pairs], [w for _, w in pairs])
        return loss

    return lambda: float(step(batch))


def _torch_step(name, side, classes, examples):
    import torch
    import torchvision.models.detection

    model = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=classes + 1, min_size=side, max_size=side
    )
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    images = list(torch.from_numpy(np.ascontiguousarray(np.moveaxis(examples["image"], -1, 1))))
    targets = [
        {
            "boxes": torch.from_numpy(_xyxy(boxes) * np.float32(side)),
            "labels": torch.from_numpy(labels.astype("int64") + 1),
            "masks": torch.from_numpy(masks.astype("uint8")),
        }
        for boxes, labels, masks in zip(
            *(examples[key] for key in ("boxes", "labels", "instances")), strict=True
        )
    ]

    def step():
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
