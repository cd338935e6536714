"""Metrics of the outputs of exported files, in numpy alone: where they are proven is no Keras.

Run by path, as `kerasdl.inference.proof` is.
"""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np

NOT_LABELED = 255  # the class of pixels that do not count
AVERAGE_PRECISION = Path(__file__).parent / "average_precision.py"


def evaluate(artifact, batches, evaluated_by: dict | None, size=64, watch=lambda *_: None):
    """Metrics of an artifact: of logits those of training, of masks their mean intersection over
    union, of boxes average precision, of images the mean squared error, else how many are exact.

    Args:
        artifact: Something with `answer(signature, inputs)`.
        batches: Yields `{input or target: (n, ...)}`; no more than one of them is held at once.
        evaluated_by: Of `Task.evaluated_by`; without it, or its target, there are none.
        size: Examples per call.
        watch: Called with the outputs and the batch, each time.

    Returns:
        `loss`, `top1`, `top5`, or `mse`, or `mean_iou` and `pixel_accuracy`, or `ap` and `ap50`, or
        `exact_match`; and `examples`, their number.
    """
    if not evaluated_by:
        return None
    how, count, sums, pairs = evaluated_by.get("loss"), 0, Counter(), Counter()
    weight = 0  # of what the means are of: examples, or the labels that there are
    objects = runpy.run_path(str(AVERAGE_PRECISION))["Objects"]() if how == "ap" else None
    for batch in batches:
        if evaluated_by["target"] not in batch:
            return None
        target = batch[evaluated_by["target"]]
        inputs = {name: batch[name] for name in evaluated_by["inputs"]}
        outputs = in_batches(lambda x: artifact.answer(evaluated_by["signature"], x), inputs, size)
        result = outputs[evaluated_by["output"]]
        watch(outputs, batch)
        count += len(target)
        if how == "iou":
            pairs.update(pixel_pairs(target, result))
        elif how == "ap":
            objects.add(outputs, batch)
        else:
            means = _means(result, target, how)
            number = means.pop("examples", len(target))
            weight += number
            sums.update({k: number * v for k, v in means.items()})
    result = mean_iou(pairs) if how == "iou" else {k: v / weight for k, v in sums.items()}
    return {**(objects.result() if objects else result), "examples": count} if count else None


def _means(result, target, how) -> dict:
    """Means of the metrics of a batch."""
    if how == "mse":
        return {"mse": float(np.square(result - target).mean())}
    if how:
        return metrics(result, target, how)
    result, target = (np.asarray(x) for x in (result, target))
    if result.dtype.kind in "OS":
        result, target = (np.char.decode(plain(x), "utf-8") for x in (result, target))
    rows = (len(target), -1)
    right = (result.reshape(rows) == target.reshape(rows)).all(-1)
    return {"exact_match": float(right.mean())}


def metrics(logits, label, loss: str = "cross_entropy") -> dict:
    """`loss`, `top1` and `top5` as training reports them.

    Args:
        logits: float `(N, K)`, or of tokens `(N, M, K)`.
        label: int `(N,)`, or of tokens `(N, M)`, -1 of those that do not count.
        loss: "cross_entropy" (in nats, without smoothing) or "hinge".
    """
    logits, label = np.asarray(logits), np.asarray(label)
    if label.ndim == 2:
        logits, label = logits[label >= 0], label[label >= 0]
    logits = logits.astype(np.float64)
    score = np.take_along_axis(logits, label[:, None], axis=-1)  # (N, 1)
    if loss == "hinge":
        losses = np.maximum(logits - score + 1, 0).sum(-1) - 1  # the class itself gives 1
    else:
        high = logits.max(-1, keepdims=True)
        losses = (high + np.log(np.exp(logits - high).sum(-1, keepdims=True)) - score)[:, 0]
    # Of equal scores the lower label stands first, and what is no number counts as wrong.
    behind = (score > logits) | ((score == logits) & (np.arange(logits.shape[1]) > label[:, None]))
    above = logits.shape[1] - 1 - behind.sum(-1)  # classes ranked before the true one
    return {
        "loss": float(losses.mean()),
        "top1": float((above < 1).mean()),
        "top5": float((above < 5).mean()),
        "examples": len(label),
    }


def pixel_pairs(target, result) -> dict:
    """`{(true class, predicted class): pixels}`, of those that are labeled and predicted."""
    labeled = (np.asarray(target) != NOT_LABELED) & (np.asarray(result) != NOT_LABELED)
    both = np.stack([np.asarray(x)[labeled].astype(np.int64) for x in (target, result)], -1)
    values, counts = np.unique(both, axis=0, return_counts=True)
    return {tuple(v): int(n) for v, n in zip(values.tolist(), counts, strict=True)}


def mean_iou(pairs: dict) -> dict:
    """`mean_iou`, over the classes that occur, and `pixel_accuracy`, of `pixel_pairs`."""
    whole = sum(pairs.values())
    true, predicted = Counter(), Counter()
    for (a, b), n in pairs.items():
        true[a] += n
        predicted[b] += n
    if not whole:
        return {"mean_iou": float("nan"), "pixel_accuracy": float("nan")}
    right = {k: pairs.get((k, k), 0) for k in {*true, *predicted}}
    ious = [n / (true[k] + predicted[k] - n) for k, n in right.items()]
    return {"mean_iou": sum(ious) / len(ious), "pixel_accuracy": sum(right.values()) / whole}


def in_batches(answer, inputs: dict, size: int = 64) -> dict:
    """Join the answers to `inputs` `{name: (N, ...)}`, given in batches."""
    count = len(next(iter(inputs.values())))
    parts = [answer({k: v[i : i + size] for k, v in inputs.items()}) for i in range(0, count, size)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def split(examples: dict, size: int = 64):
    """Yield `{name: (N, ...)}` in batches."""
    for start in range(0, max(map(len, examples.values()), default=0), size):
        yield {name: values[start : start + size] for name, values in examples.items()}


def plain(array):
    """An array of bytes where it is one of Python objects."""
    array = np.asarray(array)
    return array.astype("S") if array.dtype.kind == "O" else array
