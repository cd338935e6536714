"""Prove that exported files answer as the trained model does, without Keras.

A stand-alone script, run by path in a process of its own: what a server or a device does not have,
it cannot import. `python proof.py FOLDER EXAMPLES.npz REPORT.json` loads the SavedModel and the
TFLite files of a version folder, runs every signature on the examples in batches, replays
the warm-up requests, and writes differences, latencies and test metrics. Without words it imports
TensorFlow, and takes them from its standard input, a line of JSON.

The examples hold `in/<signature>/<input>` and `out/<signature>/<output>` of 32 examples (the
trained model's own answers), or `in/<signature>/<input>/<i>` and `out/<signature>/<output>/<i>` of
whole requests, `test/<input>` and `test/<target>`, and `meta`, a JSON text.
"""

import gc
import json
import os
import runpy
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

FORBIDDEN = ("keras", "tf_keras", "kerasdl")
KINDS = ("float32", "float16", "dynamic", "int8", "int8_full")  # of TFLite files
LIMITS = {"savedmodel": 1e-5, "tflite/float32": 1e-4}
PIXELS = 0.999  # that must agree in their class; of two as likely ones rounding decides
BATCHES = (slice(0, 1), slice(1, 4), slice(None))  # of the examples: batch 1, 3 and 32
SINGLE = tuple(slice(i, i + 1) for i in range(4))  # where the batch must be 1
WARMUP = "assets.extra/tf_serving_warmup_requests"
NOT_LABELED = 255  # the class of pixels that do not count
SECONDS = 0.5  # maximum time of one latency measurement
AVERAGE_PRECISION = Path(__file__).parents[1] / "metrics" / "average_precision.py"


def difference(a, b) -> float:
    """`max|a - b| / (1 + max|b|)`; infinite where they are of different shapes or not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / (1 + np.abs(b).max()))


def agreement(a, b) -> float:
    """Fraction of equal entries of two arrays of labels or names."""
    a, b = (np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x for x in map(_plain, (a, b)))
    return float(np.mean(a == b)) if a.shape == b.shape else 0.0


def metrics(logits, label, loss: str = "cross_entropy") -> dict:
    """`loss`, `top1` and `top5` as training reports them.

    Args:
        logits: float `(N, K)`.
        label: int `(N,)`.
        loss: "cross_entropy" (in nats, without smoothing) or "hinge".
    """
    logits, label = np.asarray(logits, np.float64), np.asarray(label)
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


def in_batches(answer, inputs: dict, size: int = 64) -> dict:
    """Join the answers to `inputs` `{name: (N, ...)}`, given in batches."""
    count = len(next(iter(inputs.values())))
    parts = [answer({k: v[i : i + size] for k, v in inputs.items()}) for i in range(0, count, size)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


class SavedModel:
    """A SavedModel's signatures on numpy arrays.

    Args:
        folder: The version folder.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self.loaded = tf.saved_model.load(str(folder))
        self.signatures = dict(self.loaded.signatures)

    def inputs(self, signature: str) -> list:
        """Names of a signature's inputs; none where there is no such signature."""
        function = self.signatures.get(signature)
        return list(function.structured_input_signature[1]) if function else []

    def answer(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of a batch."""
        import tensorflow as tf

        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {k: v.numpy() for k, v in self.signatures[signature](**tensors).items()}

    def interface(self) -> dict:
        """`{signature: {"inputs" | "outputs": {name: {"shape", "dtype"}}}}`."""
        return {
            name: {
                "inputs": _specs(function.structured_input_signature[1]),
                "outputs": _specs(function.structured_outputs),
            }
            for name, function in sorted(self.signatures.items())
        }


class TFLite:
    """A TFLite file's signatures on numpy arrays.

    Args:
        path: The file.
        threads: Of the interpreter.
    """

    def __init__(self, path, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=threads)
        self.signatures = self.interpreter.get_signature_list()
        self.runners = {n: self.interpreter.get_signature_runner(n) for n in self.signatures}
        self.details = {
            n: (r.get_input_details(), r.get_output_details()) for n, r in self.runners.items()
        }

    def inputs(self, signature: str) -> list:
        """Names of a signature's inputs; none where there is no such signature."""
        return self.signatures.get(signature, {}).get("inputs", [])

    def interface(self) -> dict:
        """`{signature: {"inputs" | "outputs": {name: {"shape", "dtype", "quantization"}}}}`.

        A free axis is None; `quantization` is `[scale, zero point]` where the number `q` stands
        for `scale * (q - zero point)`, else None.
        """
        return {
            name: dict(zip(("inputs", "outputs"), map(_lite_specs, sides), strict=True))
            for name, sides in self.details.items()
        }

    def answer(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of a batch; floats also where the file itself has 8-bit numbers."""
        accepted, given = self.details[signature]
        inputs = {name: _quantized(value, accepted[name]) for name, value in inputs.items()}
        outputs = self.runners[signature](**inputs)
        return {name: _real(value, given[name]) for name, value in outputs.items()}


def _lite_specs(details):
    return {
        name: {
            "shape": [None if n < 0 else int(n) for n in result["shape_signature"]],
            "dtype": np.dtype(result["dtype"]).name,
            "quantization": _scale(result),
        }
        for name, result in sorted(details.items())
    }


def _scale(details):
    """`[scale, zero point]` of an input or output of 8-bit numbers, else None."""
    scale, zero = details["quantization"]
    return [float(scale), int(zero)] if scale and details["dtype"] != np.float32 else None


def _quantized(value, details):
    """An array as an input of a TFLite file takes it."""
    if not (result := _scale(details)):
        return value
    scale, zero = result
    limits = np.iinfo(details["dtype"])
    exact = np.rint(np.asarray(value) / scale) + zero
    return np.clip(exact, limits.min, limits.max).astype(details["dtype"])


def _real(value, details):
    """The numbers that an output of a TFLite file stands for."""
    if not (result := _scale(details)):
        return value
    scale, zero = result
    return ((value.astype("float32") - zero) * scale).astype("float32")


def check(artifact, examples: dict, signatures: dict, without=(), batches=BATCHES) -> dict:
    """Run every signature in batches and compare with the trained model's answers.

    Args:
        artifact: A `SavedModel` or `TFLite`.
        examples: The arrays.
        signatures: Those promised, `{name: {"inputs": [...], "outputs": [...]}}`; `cases` besides
            is the number of whole requests, where there are such.
        without: Outputs that this format does not have.
        batches: Slices of the examples.

    Returns:
        `difference` and `agreement`, both `{"signature.output": number}`, and `of_pixels`, which of
        the latter are of pixels' classes.

    Raises:
        ValueError: Signatures or names are not those promised.
    """
    far, same, pixels = {}, {}, set()
    if set(artifact.signatures) != set(signatures):
        raise ValueError(f"has the signatures {sorted(artifact.signatures)}")
    for name, names in signatures.items():
        expected = [n for n in names["outputs"] if n not in without]
        for inputs, answers in requests(examples, name, names, batches):
            outputs = artifact.answer(name, inputs)
            if set(outputs) != set(expected):
                raise ValueError(f"{name} has the outputs {sorted(outputs)}, not {expected}")
            for output in expected:
                key, right = f"{name}.{output}", answers[output]
                if right.dtype.kind == "f":
                    far[key] = max(far.get(key, 0.0), difference(outputs[output], right))
                else:
                    same[key] = min(same.get(key, 1.0), agreement(outputs[output], right))
                    pixels |= {key} if right.ndim > 2 else set()
    return {"difference": far, "agreement": same, "of_pixels": sorted(pixels)}


def requests(examples: dict, name: str, names: dict, batches=BATCHES):
    """Yield inputs and answers of every request of a signature, both `{name: array}`.

    `names` is what is promised of it, `batches` are slices where there are no whole requests.
    """
    for at in range(names.get("cases", 0)) or batches:
        yield tuple(
            {
                n: examples[f"{side}/{name}/{n}/{at}"]
                if isinstance(at, int)
                else examples[f"{side}/{name}/{n}"][at]
                for n in names[f"{side}puts"]
            }
            for side in ("in", "out")
        )


def text_libraries() -> list[Path]:
    """The shared libraries that hold tensorflow-text's operations."""
    from importlib.util import find_spec

    folder = Path(find_spec("tensorflow_text").origin).parent / "python" / "ops"
    return sorted(folder.glob("*.so"))


def load_text_ops() -> None:
    """Register tensorflow-text's operations, without its Python part, which imports Keras."""
    import tensorflow as tf

    for library in text_libraries():
        tf.load_op_library(str(library))


def lite_files(folder) -> list[Path]:
    """The TFLite files of a version folder, from the most exact to the smallest."""
    return [p for k in KINDS if (p := Path(folder) / "tflite" / f"{k}.tflite").is_file()]


def latency(answer, seconds: float = SECONDS) -> float:
    """Median milliseconds of a call: of 3 to 200 in `seconds`, after five that do not count."""
    for _ in range(5):
        answer()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < 200 and time.perf_counter() < end):
        start = time.perf_counter()
        answer()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def warm_ups(path):
    """Yield `(signature, {input: array})` of every warm-up request of a file."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs


def replay(saved_model, path) -> int:
    """Answer every warm-up request of a file; returns how many there were."""
    return len([saved_model.answer(*request) for request in warm_ups(path)])


def failures(report: dict) -> list[str]:
    """The failures of a report, one line each."""
    lines = []
    for name, limit in LIMITS.items():
        metadata = report["artifacts"].get(name, {"difference": {}, "agreement": {}})
        lines += [
            f"{name}: {output} differs by {value:.2g}, the limit is {limit:g}"
            for output, value in metadata["difference"].items()
            if not value <= limit
        ]
        for output, value in metadata["agreement"].items():
            if value < (PIXELS if output in metadata.get("of_pixels", ()) else 1):
                lines.append(f"{name}: {output} agrees on {value:.0%} of the examples")
    return lines


def run(folder, examples: dict) -> dict:
    """Check every artifact of a version folder.

    Args:
        folder: The version folder.
        examples: The arrays, with `meta`.

    Returns:
        `signatures`, `warmup_requests`, `artifacts`: `{name: {"difference", "agreement",
        "latency_ms", "test"}}` with the names `savedmodel` and `tflite/<kind>`, and `omitted`:
        `{name: reason}` of quantized files that the interpreter refuses.
    """
    folder = Path(folder)
    meta = json.loads(str(examples["meta"]))
    if meta.get("text_ops"):
        load_text_ops()
    saved_model = SavedModel(folder)
    promised = meta["savedmodel"]
    metadata = check(saved_model, examples, promised["signatures"])
    call = ("serving_default", _first(promised["signatures"], "serving_default", examples))
    metadata["latency_ms"] = latency(partial(saved_model.answer, *call), meta["latency_seconds"])
    test = {k.removeprefix("test/"): v for k, v in examples.items() if k.startswith("test/")}
    metadata["test"] = evaluate(saved_model, split(test), _evaluated_by(promised))
    artifacts, omitted = {"savedmodel": metadata}, {}
    for path in lite_files(folder):
        name = f"tflite/{path.stem}"
        try:
            artifacts[name] = _check_lite(path, examples, test, meta)
        except (RuntimeError, ValueError) as error:
            if name in LIMITS:
                raise type(error)(f"{name}: {error}") from error
            omitted[name] = " ".join(str(error).split())
    return {
        "signatures": saved_model.interface(),
        "warmup_requests": replay(saved_model, folder / WARMUP),
        "artifacts": artifacts,
        "omitted": omitted,
    }


def _check_lite(path, examples, test, meta) -> dict:
    """The results of one TFLite file."""
    lites = {threads: TFLite(path, threads) for threads in sorted({1, os.cpu_count() or 1})}
    lite = lites[max(lites)]
    promised = dict(meta["tflite"]["signatures"])
    if path.stem in ("int8", "int8_full"):  # hold no loops
        promised = {n: promised[n] for n in promised if n in lite.signatures}
    evaluated_by = _evaluated_by({**meta["tflite"], "signatures": promised})
    batch, seconds = meta["lite_batch"], meta["latency_seconds"]
    batches = SINGLE if batch == 1 else BATCHES
    metadata = check(lite, examples, promised, meta["tflite"]["without"], batches)
    metadata["signatures"] = lite.interface()
    main = next(iter(promised))
    calls = {n: partial(lites[n].answer, main, _first(promised, main, examples)) for n in lites}
    metadata["latency_ms"] = {str(n): latency(answer, seconds) for n, answer in calls.items()}
    metadata["test"] = evaluate(lite, split(test), evaluated_by, batch or 64)
    return metadata


def _evaluated_by(promised):
    """The value of `Task.evaluated_by`, where the file has the signature that it names."""
    how = promised["evaluated_by"]
    there = how and promised["signatures"].get(how["signature"])
    return how if there and set(how["inputs"]) <= set(there["inputs"]) else None


def split(examples: dict, size: int = 64):
    """Yield `{name: (N, ...)}` in batches."""
    for start in range(0, max(map(len, examples.values()), default=0), size):
        yield {name: values[start : start + size] for name, values in examples.items()}


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
            sums.update({k: len(target) * v for k, v in _means(result, target, how).items()})
    result = mean_iou(pairs) if how == "iou" else {k: v / count for k, v in sums.items()}
    return {**(objects.result() if objects else result), "examples": count} if count else None


def _means(result, target, how) -> dict:
    """Means of the metrics of a batch."""
    if how == "mse":
        return {"mse": float(np.square(result - target).mean())}
    if how:
        return {k: v for k, v in metrics(result, target, how).items() if k != "examples"}
    result, target = (np.asarray(x) for x in (result, target))
    if result.dtype.kind in "OS":
        result, target = (np.char.decode(_plain(x), "utf-8") for x in (result, target))
    rows = (len(target), -1)
    right = (result.reshape(rows) == target.reshape(rows)).all(-1)
    return {"exact_match": float(right.mean())}


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


def _first(signatures, name, examples):
    return next(requests(examples, name, signatures[name]))[0]


def _specs(specs):
    return {  # no shape: a number, or one per example
        name: {"shape": s.shape.dims and s.shape.as_list(), "dtype": s.dtype.name}
        for name, s in sorted(specs.items())
    }


def _plain(array):
    """An array of bytes where it is one of Python objects."""
    array = np.asarray(array)
    return array.astype("S") if array.dtype.kind == "O" else array


def main(*words):
    """Check the artifacts of a folder where neither Keras nor kerasdl can be imported."""
    for name in FORBIDDEN:
        sys.modules[name] = None  # what makes an import of it fail
    gc.disable()  # of imports there is no garbage, and looking for it takes as long as they do
    import tensorflow  # noqa: F401

    gc.freeze()
    gc.enable()
    if not (words := words or json.loads(sys.stdin.readline() or "[]")):
        return  # there is nothing to prove after all
    folder, examples, report = words
    with np.load(examples) as arrays:
        result = run(folder, dict(arrays))
    if present := [m for m in sys.modules if m.split(".")[0] in FORBIDDEN and sys.modules[m]]:
        raise RuntimeError(f"imported {', '.join(sorted(present))}")
    Path(report).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
