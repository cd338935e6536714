"""TFLite files on what runs them: fixed sizes against free ones, and runtime against runtime."""

import contextlib
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from kerasdl.bench import browser, export
from kerasdl.errors import UserError
from kerasdl.export import results, tflite
from kerasdl.inference import proof, runtimes
from kerasdl.ops.text import EOS, SPECIAL
from kerasdl.system.files import write_text

ROWS = {  # models, and the signature of each that is timed
    "resnet20": "serving_default",
    "vit_digits": "serving_default",
    "char_gpt": "next_token",
    "transformer_small": "greedy",
    "ddpm_unet_small": "denoise",
    "unet_small": "serving_default",
}
KINDS = ("float32", "int8")
THREADS = (1, 2)
RUNS = 100  # in a browser, after a few that do not count: its clock has steps of 0.1 ms


def free_sizes():
    """Yield `(name, steps)` for `paired.compare`: a float32 file of fixed sizes, as it is exported,
    against one whose examples and tokens may be any number."""
    for name, signature in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            fixed = _files(name, Path(folder) / "fixed", 1, ())
            free = _files(name, Path(folder) / "free", None, ())
            for threads in THREADS:
                files = [runtimes.TFLite(f / "float32.tflite", threads) for f in (fixed, free)]
                inputs = _inputs(files[0], signature)
                yield (
                    f"{name}, {signature}, {threads} threads: of fixed sizes / of free ones",
                    {
                        ("ours", False): _call(files[0], signature, inputs),
                        ("peer", False): _call(files[1], signature, inputs),
                    },
                )


def by_runtime():
    """Yield `(name, steps)`: LiteRT's compiled model, and LiteRT.js in a browser where there is
    one, against the interpreter."""
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        try:
            open_file = stack.enter_context(browser.litert(work))
        except UserError as error:
            open_file = None
            print(f"note: {error}")
        for name, signature in ROWS.items():
            folder = _files(name, Path(work) / name, 1, KINDS[1:])
            for path in (folder / f"{kind}.tflite" for kind in KINDS):
                if path.exists():
                    title = f"{name} {path.stem}, {signature}"
                    yield from _of_file(title, path, signature, open_file)


def _of_file(title, path, signature, open_file):
    lite = runtimes.TFLite(path)
    if signature not in lite.signatures:
        return
    inputs = _inputs(lite, signature)
    for threads in THREADS:
        sides = {"ours": runtimes.Compiled(path, threads), "peer": runtimes.TFLite(path, threads)}
        yield (
            f"{title}, {threads} threads: compiled model / interpreter",
            {(side, False): _call(one, signature, inputs) for side, one in sides.items()},
        )
    if open_file:
        yield (
            f"{title}, 1 thread: browser, with the way there and back / interpreter",
            {
                ("ours", False): _call(open_file(path), signature, inputs),
                ("peer", False): _call(lite, signature, inputs),
            },
        )


def in_browser(export_dir, say=print) -> None:
    """Measure the files of all exported models in a browser.

    The mean milliseconds of each file's first signature stand in `results.BROWSER` beside the
    card from then on, which the table of results reads.

    Args:
        export_dir: Folder of the exported models.
        say: Called with a line per model.

    Raises:
        UserError: There is no exported model, or no browser.
    """
    found = results.versions(export_dir)
    with browser.litert(export_dir) as open_file:
        for folder in found:
            times = {}
            for path in proof.lite_files(folder):
                lite = open_file(path)
                signature = next(iter(lite.signatures))
                inputs = _inputs(lite, signature)
                _, taken = lite.timed(signature, inputs, RUNS + 5)
                times[f"tflite/{path.stem}"] = statistics.fmean(taken[5:])
            write_text(folder / "assets.extra" / results.BROWSER, json.dumps(times, indent=1))
            shown = ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items())
            say(f"{folder}: {shown or 'no TFLite files'}")


def _files(name, folder, batch, quantized):
    """A folder with the files of a model with its default sizes."""
    made = export.parts(name)
    tflite.write(made.task, made.model, made.train, folder, lambda line: None, batch, quantized)
    return folder


def _inputs(lite, signature) -> dict:
    """One example, with as many tokens as a file of fixed sizes takes."""
    rng, result = np.random.default_rng(0), {}
    for name, one in lite.interface()[signature]["inputs"].items():
        shape = tuple(one["shape"])
        if name.endswith("_length"):
            result[name] = np.full(shape, max(s["shape"][-1] for s in _specs(lite, signature)))
        elif one["dtype"] == "int32" and len(shape) > 1:
            result[name] = rng.integers(SPECIAL, 2 * SPECIAL, shape)
            result[name][:, -1] = EOS if name == "source_ids" else SPECIAL
        else:
            result[name] = np.zeros(shape) if one["dtype"] == "int32" else rng.random(shape)
        result[name] = result[name].astype(one["dtype"])
    return result


def _specs(lite, signature):
    return lite.interface()[signature]["inputs"].values()


def _call(runtime, signature, inputs):
    return lambda: runtime.answer(signature, inputs)
