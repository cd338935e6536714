"""Convert a model to TFLite files that hold builtin operations only, in processes of their own."""

import contextlib
import json
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kerasdl.errors import ExportError
from kerasdl.export import (
    CALIBRATED,
    CALIBRATION,
    EIGHT_BITS,
    QUANTIZED,
    mediapipe,
    saved_model,
    tflite_metadata,
)
from kerasdl.inference.proof import MEDIAPIPE
from kerasdl.inference.signatures import functions
from kerasdl.layers import attention
from kerasdl.system import processes

HIDDEN = 16.0  # of attention's scores; e^-16 of a weight is nothing in 8 bits
SIDE_BY_SIDE = 2**28  # bytes of a SavedModel; larger ones are converted to one file after the other


class Converter:
    """A process that converts, and another one where the converter died of what it read."""

    def __init__(self):
        self._process = None
        self.start()

    def start(self) -> None:
        """Let it import what it needs, before there is something to convert."""
        if not self._process:
            command = [sys.executable, "-m", "kerasdl.export.convert"]
            self._process = processes.Process(command, variables=processes.environment())

    @property
    def lines(self):
        """What it says: a line once it is ready, and one for each file."""
        return self._process.lines

    def convert(self, folder: Path, kind: str) -> str | None:
        """Write `<kind>.tflite`, as `convert.write`; return why there is none, or None."""
        self.start()
        self._process.send({"folder": str(folder), "kind": kind})
        if any(line.strip() == kind for line in self._process.lines):
            reason = folder / f"{kind}.txt"
            return reason.read_text() if reason.exists() else None
        status, output = self._process.wait()
        self.close()
        return f"the converter died: {processes.why(status, output)}"

    def kill(self) -> None:
        """End what it is doing."""
        self._process.kill()

    def close(self) -> None:
        """End it."""
        if self._process:
            self._process.close()
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def write(
    task,
    model,
    examples: dict,
    folder,
    say,
    batch: int | None = 1,
    quantized=QUANTIZED,
    only=(),
    converters=(),
) -> dict:
    """Write `float32.tflite`, and one file per kind of quantization.

    `float16` has 16-bit weights, `dynamic` 8-bit weights, `int8` 8-bit weights and activations;
    inputs and outputs stay float but in `int8_full`. 8-bit weights have a scale per output; those
    of dense layers have a single one where a file would exceed 0.3 of the float32 one. A signature
    with a loop is in neither int8 file: the converter dies of it.

    Args:
        task: The task, whose signatures with the format "tflite" are written.
        model: The Keras model, in float32.
        examples: `{input: (N, ...)}` of training examples; the first 200 calibrate int8.
        folder: Where to; is made.
        say: Called with a line of progress.
        batch: Examples that a file takes at once; None is any number of them, and of tokens.
        quantized: Of `proof.KINDS`, "float32" aside.
        only: Names of the signatures that are written; all if empty.
        converters: Of `Converter`, each works on a file at a time; a new one if there are none.

    Returns:
        `{"tflite/<kind>": reason}` of quantized files that the converter refused, or died of.

    Raises:
        ExportError: There is no float32 one, for instance where an operation is no builtin.
    """
    folder = Path(folder)
    folder.mkdir()
    signatures = functions(task, model, "tflite", batch=batch, only=only)
    described = task.signatures(model)
    examples = examples | {k: v for s in described for k, v in s.examples.items()}
    endpoints = saved_model.traced(signatures)
    inputs = {n: [spec.name for spec in specs] for n, (_, specs) in signatures.items()}
    plain = {
        name: inputs[name]
        for name, endpoint in endpoints.items()
        if set(inputs[name]) <= set(examples) and not _loops(endpoint)
    }
    jobs = {k: plain if k in CALIBRATED else inputs for k in ("float32", *quantized)}
    refused = {k: "the converter cannot calibrate a loop" for k, names in jobs.items() if not names}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        saved_model.write(endpoints, work / "source")
        if plain and task.info.tokenizer and set(jobs) & set(CALIBRATED):
            with attention.hide_by(HIDDEN):
                chosen = functions(task, model, "tflite", batch=batch, only=tuple(plain))
                saved_model.write(saved_model.traced(chosen), work / "source_of_8_bits")
        (work / "signatures.json").write_text(json.dumps(jobs))
        requested = {n for names in plain.values() for n in names}
        np.savez(work / "examples.npz", **{n: examples[n][:CALIBRATION] for n in requested})
        kinds = [k for k in jobs if k not in refused]
        size = sum(p.stat().st_size for p in (work / "source").rglob("*") if p.is_file())
        with contextlib.ExitStack() as stack:
            converters = converters or [stack.enter_context(Converter())]
            if size > SIDE_BY_SIDE:
                converters = converters[:1]
            refused |= _convert(work, kinds, converters, say)
        if "float32" in refused:
            raise ExportError(f"TFLite float32: {refused['float32']}")
        for file in work.glob("*.tflite"):
            shutil.copyfile(file, folder / file.name)
    return {f"tflite/{kind}": f"TFLite {kind}: {reason}" for kind, reason in refused.items()}


def describe(folder, name: str, paper: str, signatures: dict) -> None:
    """Write metadata into TFLite files, and beside them a classifier's for MediaPipe.

    Args:
        folder: Theirs.
        name: Of the model, in the catalogue.
        paper: Its authors and year.
        signatures: Of `kerasdl.inference.signatures.interface` for "tflite".
    """
    described = {"name": name, "description": f"{name} ({paper})", "signatures": signatures}
    for path in Path(folder).glob("*.tflite"):
        path.write_bytes(tflite_metadata.described(path.read_bytes(), described))
    content = mediapipe.classifier((Path(folder) / "float32.tflite").read_bytes(), described)
    if content:
        (Path(folder) / f"{MEDIAPIPE}.tflite").write_bytes(content)


def _convert(work, kinds, converters, say) -> dict:
    """Convert to all kinds, side by side; returns `{kind: why there is none}`."""
    left, lock, exact, refused = iter(kinds), threading.Lock(), threading.Event(), {}

    def run(converter):
        try:
            while True:
                with lock:
                    kind = None if "float32" in refused else next(left, None)
                    if kind is None:
                        return
                    say(f"TFLite {kind}")
                if kind in EIGHT_BITS:  # no larger than a fraction of it
                    exact.wait()
                if reason := converter.convert(work, kind):
                    refused[kind] = reason
                if kind == "float32":
                    exact.set()
        finally:
            exact.set()

    with ThreadPoolExecutor(len(converters)) as pool:
        for _ in pool.map(run, converters):
            pass
    return refused


def _loops(endpoint) -> bool:
    """Whether a traced function has a loop in its graph."""
    definition = endpoint.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)
