"""Write one version of an exported model, prove it, and publish it."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl import catalog
from kerasdl.errors import ExportError, UserError
from kerasdl.export import (
    CALIBRATED,
    QUANTIZED,
    card,
    saved_model,
    serving,
    serving_page,
    tflite,
    warmup,
)
from kerasdl.export.parts import Parts
from kerasdl.inference import explain, proof, runtimes
from kerasdl.inference.signatures import functions, interface, tokenizer_of
from kerasdl.ops.text import Specials
from kerasdl.recipe import CHOICES
from kerasdl.store import load, pretrained
from kerasdl.system import files, processes
from kerasdl.system.names import nearest
from kerasdl.weights.places import CONFIG

EXAMPLES = 32  # that every signature answers; see `proof.BATCHES`
KERAS_METADATA = "metadata.json"  # of a .keras archive
CONVERTERS = 2  # side by side; they share a computer's cores


class Helpers:
    """The processes of an export, which import what they need while something else is done.

    Args:
        lite: Whether TFLite files are to be written.
        pause: Called between their starts with what the last one says once it is ready.

    Attributes:
        converters: Of `tflite.Converter`.
        proof: The `processes.Process` of `proof.py`.
    """

    def __init__(self, lite: bool, pause=lambda lines: None):
        count = min(CONVERTERS, os.cpu_count() or 1) if lite else 0
        self.converters = []
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                self.converters.append(stack.enter_context(tflite.Converter()))
                pause(self.converters[-1].lines)
            # -P keeps this folder's modules from shadowing others.
            command = [sys.executable, "-P", proof.__file__]
            variables = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
            self.proof = stack.enter_context(processes.Process(command, variables=variables))
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.close()


def export(
    parts: Parts,
    formats,
    export_dir,
    name: str | None = None,
    say=print,
    quantized=QUANTIZED,
    signatures=(),
    version: int | None = None,
    helpers: Helpers | None = None,
    batch: int | None = 1,
) -> dict:
    """Write `export_dir/name/<version>/` and `models.config`.

    The SavedModel is always written, since a server fails on a version without one; "tflite" adds
    the TFLite files, "safetensors" the weights as the library has them that they are from, or one
    that has such a model. The folder has a temporary name until all of it is written and proven.

    Args:
        parts: What to export.
        formats: Any of "savedmodel", "tflite" and "safetensors".
        export_dir: Folder of the exported models.
        name: Name of the exported model; the catalogue's if None.
        say: Called with a line of progress.
        quantized: Kinds of TFLite files besides float32; see `tflite.write`.
        signatures: Names of those that are written; all if empty.
        version: The next one if None; never one that is there.
        helpers: Its processes, if they have been started already.
        batch: Examples that a TFLite file takes at once; None is any number of them, and of tokens.

    Returns:
        The card, as in `assets.extra/card.json`, with its `folder`.

    Raises:
        ValueError: An unknown format or signature, a bad name, a version that is there, or a folder
            that cannot be written.
        ExportError: A converter failed, or a file does not answer as the model does.
    """
    for value in formats:
        if value not in CHOICES["export"]:
            near = nearest(value, CHOICES["export"])
            raise UserError(f"--export {value}: not one of {', '.join(CHOICES['export'])}{near}")
    name = name or parts.model_name
    if parts.model.compute_dtype != "float32":
        raise UserError(
            f"{parts.model_name} must compute in float32, not {parts.model.compute_dtype}"
        )
    serving.check_version(export_dir, name, version)
    if signatures:
        _check_signatures(parts, signatures)
    if batch != 1 and (why := catalog.row(parts.model_name).tflite_static_batch):
        raise UserError(f"--tflite-batch: that of {parts.model_name} must be 1, as {why}")
    lite = "tflite" in formats and not catalog.row(parts.model_name).no_tflite
    with serving.making(export_dir, name) as folder, contextlib.ExitStack() as stack:
        helpers = helpers or stack.enter_context(Helpers(lite))
        try:
            metadata = _write(
                parts, formats, name, folder, say, quantized, signatures, helpers, batch
            )
            published = _publish(folder, metadata, version)
        except OSError as error:
            raise ExportError(f"{folder.parent}: cannot be written: {error}") from error
    serving.write_configs(export_dir)
    say(f"exported to {published}")
    return {**metadata, "folder": str(published)}


def save_keras(model, metadata: load.Metadata, path) -> None:
    """Save a model with the metadata that Keras does not keep, as `load_info` reads them.

    The same model has the same bytes: no time is kept.
    """
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as work:
        by_keras = Path(work) / "model.keras"
        model.save(by_keras)
        with zipfile.ZipFile(by_keras) as saved, zipfile.ZipFile(path, "w") as archive:
            for member in saved.infolist():
                if member.filename != KERAS_METADATA:
                    name, large = zipfile.ZipInfo(member.filename), member.file_size >= 2**31
                    with saved.open(member) as source:
                        with archive.open(name, "w", force_zip64=large) as target:
                            shutil.copyfileobj(source, target)
            described = json.loads(saved.read(KERAS_METADATA))
            described.pop("date_saved", None)
            archive.writestr(zipfile.ZipInfo(KERAS_METADATA), json.dumps(described))
            archive.writestr(zipfile.ZipInfo(load.MEMBER), metadata.to_json())


def _check_signatures(parts, names):
    served = functions(parts.task, parts.model, "savedmodel", tokenizer_of(parts.task))
    served = [*served, *["explain"] * explain.applies(parts.task)]
    for name in names:
        if name not in served:
            raise UserError(
                f"--signatures {name}: {parts.model_name} has {', '.join(served)}"
                f"{nearest(name, served)}"
            )


def _write(parts, formats, name, folder, say, quantized, only, helpers, batch) -> dict:
    """Write and prove all files but the card; return the card's values."""
    extra = folder / "assets.extra"
    extra.mkdir()
    say("model.keras")
    metadata = load.Metadata(parts.model_name, parts.info, parts.recipe)
    save_keras(parts.model, metadata, extra / "model.keras")
    say("SavedModel")
    tokenizer = tokenizer_of(parts.task)
    served = functions(parts.task, parts.model, "savedmodel", tokenizer, only=only)
    saved_model.write(saved_model.traced(served), folder, tokenizer)
    reloaded = load.load_keras(extra / "model.keras")
    targets = ("savedmodel", "tflite") if "tflite" in formats else ("savedmodel",)
    examples, meta = examples_of(parts, reloaded, only, batch, targets)
    requests = [
        (signature, next(proof.requests(examples, signature, names))[0])
        for signature, names in meta["savedmodel"]["signatures"].items()
    ]
    warmup.write(extra / warmup.FILE, name, requests)
    serving_page.write_requests(extra / serving_page.REQUESTS, requests)
    omitted, row = {}, catalog.row(parts.model_name)
    described = interface(parts.task, parts.model, only, batch)
    if "tflite" in formats and row.no_tflite:
        omitted["tflite"] = row.no_tflite
    elif "tflite" in formats and not meta["tflite"]["signatures"]:
        omitted["tflite"] = f"{', '.join(only)}: not in TFLite files"
    elif "tflite" in formats:
        lite = folder / "tflite"
        if parts.made_up:
            omitted = {
                f"tflite/{kind}": "calibration needs data: --dataset"
                for kind in quantized
                if kind in CALIBRATED
            }
            quantized = [kind for kind in quantized if kind not in CALIBRATED]
        omitted |= tflite.write(
            parts.task,
            parts.model,
            parts.train,
            lite,
            say,
            batch,
            quantized,
            only,
            helpers.converters,
        )
        tflite.describe(lite, parts.model_name, row.paper, described["tflite"])
    theirs = {}
    if "safetensors" in formats:
        theirs, missing = _write_theirs(parts, folder, say)
        omitted |= missing
    say("comparing with the trained model, without Keras")
    report = prove(folder, examples, meta, helpers.proof)
    lost = card.inaccurate(report["artifacts"])
    for name in lost:
        del report["artifacts"][name]
    omitted |= report["omitted"] | lost
    for missing, reason in omitted.items():
        if missing.startswith("tflite/"):
            (folder / f"{missing}.tflite").unlink(missing_ok=True)
        say(f"without {missing}: {reason}")
    for line in card.losses(report["artifacts"]):
        say(f"note: {line}")
    metadata = card.contents(parts, name, folder, report, omitted, described, batch)
    card.write_metadata(metadata, folder / "tflite")
    return metadata | theirs | {"sha256": files.checksums(folder)}


def _write_theirs(parts, folder, say) -> tuple[dict, dict]:
    """Write `safetensors/`; returns what the card says of it, and why it is not there."""
    say("safetensors")
    target = folder / pretrained.FOLDER
    try:
        described = pretrained.save_pretrained(parts.model, target, parts.source, parts.info)
    except UserError as error:
        shutil.rmtree(target, ignore_errors=True)
        return {}, {pretrained.FOLDER: str(error)}
    if len(described["files"]) == 1:
        say(f"note: safetensors has no {CONFIG}: no file beside the weights describes this model")
    return {pretrained.FOLDER: described}, {}


def _publish(folder, metadata, version) -> Path:
    while True:
        metadata["version"] = version or serving.next_version(folder.parent)
        card.write(metadata, folder / "assets.extra")
        try:
            return serving.publish(folder, metadata["version"])
        except FileExistsError:  # another export took the number
            if version:
                raise


def examples_of(
    parts, model, only=(), batch=None, targets=("savedmodel", "tflite")
) -> tuple[dict, dict]:
    """Inputs, the answers of `model` to them, and the metadata of `proof`.

    `model` is the reloaded `model.keras`, so a weight that it lost shows as a difference. TFLite
    files of a `batch` of 1 are asked fewer examples.
    """
    arrays, meta = {f"test/{k}": v for k, v in parts.test.items()}, {}
    tokenizer = tokenizer_of(parts.task)
    described = parts.task.signatures(model)
    columns = parts.test | {k: v for s in described for k, v in s.examples.items()}
    pad = Specials.of(parts.info).pad
    for target in ("savedmodel", "tflite"):
        if target not in targets:
            meta[target] = {"signatures": {}, "evaluated_by": None, "without": []}
            continue
        signatures, count = {}, EXAMPLES
        if target == "tflite" and batch == 1:
            count = len(proof.SINGLE)
        served = functions(parts.task, model, target, tokenizer, batch=None, only=only)
        for signature, (function, specs) in served.items():
            one = meta.get("savedmodel", {}).get("signatures", {}).get(signature)
            if one and set(one["inputs"]) == {spec.name for spec in specs}:
                signatures[signature] = one
                continue
            key = f"{target}.{signature}" if one else signature
            same = [n for n in signatures if served[n] is served[signature]]
            if same:  # another name of it
                for side in ("in", "out"):
                    start = f"{side}/{same[0]}/"
                    own = {k: v for k, v in arrays.items() if k.startswith(start)}
                    start = f"{side}/{signature}/"
                    arrays |= {start + k.split("/", 2)[2]: v for k, v in own.items()}
                signatures[signature] = signatures[same[0]]
                continue
            names = [spec.name for spec in specs]
            requested = {
                str(i): {n: _input(n, case) for n in names}
                for i, case in enumerate(_cases(signature, names, described, target))
            }
            requested = requested or {
                "": {s.name: _wide(_some(_input(s.name, columns), count), s, pad) for s in specs}
            }
            traced = tf.function(function, input_signature=specs, autograph=False)
            for at, inputs in requested.items():
                inputs = {name: np.asarray(inputs[name]) for name in names}
                outputs = traced(*(tf.constant(v) for v in inputs.values()))
                for side, values in (("in", inputs), ("out", outputs)):
                    keys = {k: "/".join(filter(None, (side, key, k, at))) for k in values}
                    arrays |= {keys[k]: np.asarray(v) for k, v in values.items()}
            signatures[signature] = {"inputs": list(inputs), "outputs": list(outputs)}
            signatures[signature] |= {"key": key} if one else {}
            if "0" in requested:
                signatures[signature]["cases"] = len(requested)
        meta[target] = {
            "signatures": signatures,
            "evaluated_by": None if parts.made_up else parts.task.evaluated_by(target),
            "without": [] if target == "savedmodel" else _names_of_classes(parts.task, model),
        }
    meta["latency_seconds"] = runtimes.SECONDS
    meta["text_ops"] = bool(tokenizer and tokenizer.needs_text_ops)
    return {k: _bytes(v) for k, v in arrays.items()}, meta


def prove(folder, examples: dict, meta: dict, process) -> dict:
    """Prove a version folder in a process without Keras; return its report.

    Args:
        folder: The version folder.
        examples: The arrays, of `examples_of`.
        meta: Its metadata.
        process: `Helpers.proof`.

    Raises:
        ExportError: It failed, or a difference exceeds its limit.
    """
    with tempfile.TemporaryDirectory() as work:
        arrays, report = Path(work) / "examples.npz", Path(work) / "report.json"
        np.savez(arrays, meta=json.dumps(meta), **examples)
        process.send([str(path) for path in (folder, arrays, report)])
        status, output = process.wait()
        if status:
            why = processes.why(status, output)
            raise ExportError(f"the files do not run without Keras: {why}")
        result = json.loads(report.read_text())
    lines = proof.failures(result)
    if lines:
        raise ExportError(f"not exported: {'; '.join(lines)}")
    return result


def _names_of_classes(task, model):
    """Outputs that only a SavedModel has."""
    served = interface(task, model)["savedmodel"].values()
    outputs = {
        name: one["kind"] for signature in served for name, one in signature["outputs"].items()
    }
    return [name for name, kind in outputs.items() if kind == "text"]


def _cases(name, inputs, described, target):
    """Whole requests of a served signature; of encoded images, those of the signature that they are
    served for."""
    for one in described:
        if target in one.formats and one.cases:
            given = {n.removesuffix("_bytes") for n in inputs}
            if one.name == name or (name == "serve_bytes" and given <= set(one.cases[0])):
                return one.cases
    return ()


def _input(name, test):
    """Test examples of an input; pictures are encoded where it is `<image>_bytes`."""
    if name in test:
        return test[name]
    pictures = np.asarray(test[name.removesuffix("_bytes")][:EXAMPLES])
    pixels = np.clip(np.rint(pictures * 255), 0, 255).astype("uint8")
    # A PNG's last byte is not 0, so numpy's bytes keep it whole.
    return np.array([tf.io.encode_png(p).numpy() for p in pixels])


def _some(values, count):
    return np.resize(values, (count, *values.shape[1:]))  # the first ones, or repeated


def _wide(values, spec, pad):
    """Values filled up where the input has a fixed size that is larger: that of texts."""
    sizes = spec.shape[1:] if spec.shape.rank == values.ndim else ()
    more = [max(0, (n or 0) - m) for n, m in zip(sizes, values.shape[1:], strict=False)]
    sides = [(0, 0), *((0, n) for n in more)]
    return np.pad(values, sides, constant_values=pad) if any(more) else values


def _bytes(array):
    return array.astype("S") if array.dtype.kind == "O" else array
