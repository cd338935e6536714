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
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FORBIDDEN = ("keras", "tf_keras", "kerasdl")
KINDS = ("float32", "float16", "dynamic", "int8", "int8_full")  # of TFLite files
MEDIAPIPE = "mediapipe"  # a classifier's file of color images and probabilities alone
LIMITS = {"savedmodel": 1e-5, "tflite/float32": 1e-4, f"tflite/{MEDIAPIPE}": 1e-4}
PIXELS = 0.999  # that must agree in their class; of two as likely ones rounding decides
BATCHES = (slice(0, 1), slice(1, 4), slice(None))  # of the examples: batch 1, 3 and 32
SINGLE = tuple(slice(i, i + 1) for i in range(4))  # where the batch must be 1
WARMUP = "assets.extra/tf_serving_warmup_requests"


def _beside(*parts):
    """A module of the package by its path: no import finds it where this runs."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1].joinpath(*parts))))


exported = _beside("metrics", "exported.py")
runtimes = _beside("inference", "runtimes.py")


def difference(a, b) -> float:
    """`max|a - b| / (1 + max|b|)`; infinite where they are of different shapes or not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / (1 + np.abs(b).max()))


def agreement(a, b) -> float:
    """Fraction of equal entries of two arrays of labels or names."""
    a, b = (
        np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x
        for x in map(exported.plain, (a, b))
    )
    return float(np.mean(a == b)) if a.shape == b.shape else 0.0


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
            result = artifact.answer(name, inputs)
            if set(result) != set(expected):
                raise ValueError(f"{name} has the outputs {sorted(result)}, not {expected}")
            for output in expected:
                key, right = f"{name}.{output}", answers[output]
                if right.dtype.kind == "f":
                    far[key] = max(far.get(key, 0.0), difference(result[output], right))
                else:
                    same[key] = min(same.get(key, 1.0), agreement(result[output], right))
                    pixels |= {key} if right.ndim > 2 else set()
    return {"difference": far, "agreement": same, "of_pixels": sorted(pixels)}


def requests(examples: dict, name: str, names: dict, batches=BATCHES):
    """Yield inputs and answers of every request of a signature, both `{name: array}`.

    `names` is what is promised of it, and `key` where its examples are, if not at its name;
    `batches` are slices where there are no whole requests.
    """
    name = names.get("key", name)
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


def lite_files(folder) -> list[Path]:
    """The TFLite files of a version folder, from the most exact to the smallest."""
    return [p for k in KINDS if (p := Path(folder) / "tflite" / f"{k}.tflite").is_file()]


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
        "latency_ms", "test", "operations", "compiled_model"}}` with the names `savedmodel` and
        `tflite/<kind>`, and `omitted`: `{name: reason}` of quantized files that the interpreter
        refuses.
    """
    folder = Path(folder)
    meta = json.loads(str(examples["meta"]))
    if meta.get("text_ops"):
        runtimes.load_text_ops()
    saved_model = runtimes.SavedModel(folder)
    promised = meta["savedmodel"]
    metadata = check(saved_model, examples, promised["signatures"])
    call = ("serving_default", _first(promised["signatures"], "serving_default", examples))
    seconds = meta["latency_seconds"]
    metadata["latency_ms"] = runtimes.latency(partial(saved_model.answer, *call), seconds)
    test = {k.removeprefix("test/"): v for k, v in examples.items() if k.startswith("test/")}
    metadata["test"] = exported.evaluate(saved_model, exported.split(test), _evaluated_by(promised))
    artifacts, omitted = {"savedmodel": metadata}, {}
    for path in lite_files(folder):
        name = f"tflite/{path.stem}"
        try:
            artifacts[name] = _check_lite(path, examples, test, meta)
        except (RuntimeError, ValueError) as error:
            if name in LIMITS:
                raise type(error)(f"{name}: {error}") from error
            omitted[name] = " ".join(str(error).split())
    path = folder / "tflite" / f"{MEDIAPIPE}.tflite"
    if path.is_file():
        artifacts[f"tflite/{MEDIAPIPE}"] = _check_mediapipe(path, examples, meta)
    return {
        "signatures": saved_model.interface(),
        "warmup_requests": replay(saved_model, folder / WARMUP),
        "artifacts": artifacts,
        "omitted": omitted,
    }


def _check_lite(path, examples, test, meta) -> dict:
    """The results of one TFLite file."""
    lites = _by_threads(path)
    lite = lites[max(lites)]
    promised = dict(meta["tflite"]["signatures"])
    if path.stem in ("int8", "int8_full"):  # hold no loops
        promised = {n: promised[n] for n in promised if n in lite.signatures}
    evaluated_by = _evaluated_by({**meta["tflite"], "signatures": promised})
    batches = SINGLE if lite.batch == 1 else BATCHES
    metadata = check(lite, examples, promised, meta["tflite"]["without"], batches)
    main = next(iter(promised))
    inputs = _first(promised, main, examples)
    metadata |= _measured(lites, main, inputs, meta)
    if lite.batch:  # a compiled model takes no other sizes
        compiled = _by_threads(path, runtimes.Compiled)
        ran = check(compiled[max(lites)], examples, promised, meta["tflite"]["without"], batches)
        for key, worst in (("difference", max), ("agreement", min)):
            both = (metadata[key], ran[key])
            metadata[key] = {name: worst(one[name] for one in both) for name in ran[key]}
        metadata["compiled_model"] = {
            "latency_ms": _latencies(compiled, main, inputs, meta),
            "all_on_gpu": runtimes.on_gpu(path),
        }
    metadata["test"] = exported.evaluate(lite, exported.split(test), evaluated_by)
    return metadata


def _check_mediapipe(path, examples, meta) -> dict:
    """The results of the file for MediaPipe, whose images have three channels."""
    lites = _by_threads(path)
    lite = lites[max(lites)]
    ((name, names),) = lite.signatures.items()
    (image,) = names["inputs"]
    promised = {name: names}
    pixels = examples[f"in/{name}/{image}"]
    colored = np.repeat(pixels, 3 // pixels.shape[-1], axis=-1)
    metadata = check(lite, {**examples, f"in/{name}/{image}": colored}, promised, (), SINGLE)
    return metadata | _measured(lites, name, {image: colored[:1]}, meta) | {"test": None}


def _measured(lites, signature, inputs, meta) -> dict:
    """What a file has and takes, and how long it takes to answer, by threads."""
    lite = lites[max(lites)]
    return {
        "signatures": lite.interface(),
        "operations": lite.operations(),
        "latency_ms": _latencies(lites, signature, inputs, meta),
    }


def _by_threads(path, runtime=runtimes.TFLite) -> dict:
    """A file as a runtime opens it, for one thread and for all."""
    return {n: runtime(path, n) for n in sorted({1, os.cpu_count() or 1})}


def _latencies(by_threads, signature, inputs, meta) -> dict:
    """`{threads: milliseconds}` of what answers with so many."""
    calls = {str(n): partial(one.answer, signature, inputs) for n, one in by_threads.items()}
    return {n: runtimes.latency(call, meta["latency_seconds"]) for n, call in calls.items()}


def _evaluated_by(promised):
    """The value of `Task.evaluated_by`, where the file has the signature that it names."""
    how = promised["evaluated_by"]
    there = how and promised["signatures"].get(how["signature"])
    return how if there and set(how["inputs"]) <= set(there["inputs"]) else None


def _first(signatures, name, examples):
    return next(requests(examples, name, signatures[name]))[0]


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
