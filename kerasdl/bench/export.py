"""Exports of models at full size: the differences, sizes and latencies of their files.

The weights are the first ones, as to train so many networks is another matter, and noise, so that
what starts at zero counts too; the inputs are real digits, docstrings and dates. Each model is
exported by a process of its own, and its SavedModel loaded and run by a program in C++ as well:
`python -m kerasdl.bench.export NAME PROGRAM KIND...` prints a line of JSON.
"""

import dataclasses
import inspect
import json
import resource
import sys
import tempfile
import time

import numpy as np

from kerasdl import catalog
from kerasdl.export import QUANTIZED, worker
from kerasdl.recipe import Recipe
from kerasdl.system import processes

EXAMPLES = 32
CALIBRATED = 4  # of them, that int8 takes its ranges from: enough for its size
TOKENS = 32  # maximum of a text
STEPS = 4  # of samplers: their loop is the same
NOISE = 0.01  # its deviation
HEADS = (
    *("model", "parameters", "file", "MiB", "of float32", "largest difference", "in C++"),
    *("ms", "ms, all threads", "export: s", "GiB"),
)


def measure(name: str, program=None, kinds=QUANTIZED, say=lambda line: None) -> dict:
    """Export a model in a process of its own.

    Args:
        name: Of the catalogue.
        program: Of `native.compile_replay`, or None.
        kinds: Of the TFLite files besides float32.
        say: Called with a line of progress.

    Returns:
        `{"name", "parameters", "artifacts", "omitted", "native", "seconds", "gib"}`: those in the
        middle are the card's, `native` is the largest difference in C++ or None, `gib` the
        maximum memory of one process; or `{"name", "error"}`.
    """
    command = [sys.executable, "-m", "kerasdl.bench.export", name, program or "", *kinds]
    start, variables = (
        time.perf_counter(),
        {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    with processes.child(command, **variables) as (lines, wait):
        _, result = worker.follow(lines, say)
        status, output = wait()
    if not result:
        return {"name": name, "error": processes.why(status, output)}
    return {"name": name, **result, "seconds": time.perf_counter() - start}


def rows(result: dict) -> list[tuple]:
    """Texts under `HEADS` of what `measure` returned, a row per file."""
    if "error" in result:
        return [(result["name"], "", f"none: {result['error']}", *[""] * (len(HEADS) - 3))]
    files, texts = result["artifacts"], []
    whole = files.get("tflite/float32", {}).get("bytes")
    for number, (file, entry) in enumerate(files.items()):
        times = entry["latency_ms"]
        times = [*times.values()] if isinstance(times, dict) else [times]
        texts.append(
            (
                "" if number else result["name"],
                "" if number else f"{result['parameters']:,}",
                file,
                f"{entry['bytes'] / 2**20:.2f}",
                f"{entry['bytes'] / whole:.2f}" if whole and file != "savedmodel" else "",
                f"{entry['max_difference']:.1e}",
                "" if number or result["native"] is None else f"{result['native']:.1e}",
                f"{times[0]:.2f}" if len(times) > 1 else "",  # a SavedModel takes all threads
                f"{times[-1]:.2f}",
                "" if number else f"{result['seconds']:.0f}",
                "" if number else f"{result['gib']:.1f}",
            )
        )
    for file, reason in result["omitted"].items():
        texts.append(("", "", f"without {file}: {reason}", *[""] * (len(HEADS) - 3)))
    return texts


@dataclasses.dataclass
class Metadata:
    """A model at full size, and its inputs.

    Attributes:
        task: Its task.
        arguments: Of its builder.
        columns: `{name: (EXAMPLES, ...)}`, real examples as the data hold them.
    """

    task: object
    arguments: dict
    columns: dict


def metadata(name: str) -> Metadata:
    """Those of a model with the default arguments of its builder."""
    from kerasdl import tasks

    row = catalog.row(name)
    builder = getattr(catalog.module_of(name), name)
    given = {k: p.default for k, p in inspect.signature(builder).parameters.items()}
    settings = dict(catalog.settings_of(name).get("task_kwargs", {}))
    if "image_shape" in given:
        info, columns = _images(row, given, settings)
    else:
        info, columns = _texts(row, given)
    if row.task == "denoise":
        settings["steps"] = STEPS
    recipe = Recipe(model=name, dataset=row.dataset, task_kwargs=settings)
    task = tasks.get(row.task)(info, recipe)
    return Metadata(task, task.arguments(), columns)


def parts(name: str):
    """The `Parts` for `exporter.export`."""
    import keras

    from kerasdl.export.parts import Parts

    result = metadata(name)
    keras.utils.set_random_seed(0)
    model = catalog.build(name, **result.arguments)
    task, served = result.task, result.task.served(result.columns)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(NOISE * rng.standard_normal(variable.shape, "float32"))
    if catalog.row(name).task == "classify":
        _settle(model, result.columns["image"])
    train = {column: values[:CALIBRATED] for column, values in served.items()}
    return Parts(model, name, task, task.info, task.run_recipe, train, served, result.arguments)


def _images(row, defaults, settings):
    """The `DataInfo` of images as large and colorful as a model's, and such images."""
    import tensorflow as tf

    from kerasdl import tasks
    from kerasdl.columns import DataInfo
    from kerasdl.data import images, proposals
    from kerasdl.data.sources import open_source
    from kerasdl.data.splits import Subset, evenly

    task = tasks.get(row.task)
    source = open_source(row.dataset, task=task)
    source.test = Subset(source.test, evenly(len(source.test), EXAMPLES))
    source = proposals.added(source, task, Recipe(task_kwargs=settings))
    columns = source.test.read(range(len(source.test)))
    *size, channels = shape = defaults["image_shape"]
    image = np.asarray(images.resize(images.to_float(tf.constant(columns["image"])), size))
    classes = tuple(map(str, range(defaults.get("num_classes") or 10)))
    info = DataInfo.of_images(shape, classes, (0.5,) * channels, (0.25,) * channels)
    others = {
        name: dataclasses.replace(c, class_names=classes) if c.kind == "label" else c
        for name, c in source.info.columns.items()
        if name not in info.columns
    }
    info = DataInfo({**info.columns, **others})
    return info, {**columns, "image": np.repeat(image[..., :1], channels, axis=-1)}


def _texts(row, defaults):
    """The `DataInfo` of texts whose vocabulary is filled up to the size of a model's, and texts.

    Of translators the context is that of the data: it adds no weights.
    """
    from kerasdl import tasks
    from kerasdl.data.sources import open_source
    from kerasdl.data.splits import evenly

    task, length = tasks.get(row.task), defaults["max_length"]
    pairs = "source_ids" in task.inputs
    source = open_source(row.dataset, task=task, max_length=None if pairs else length)
    columns = source.test.read(evenly(len(source.test), EXAMPLES))
    tokenizer = json.loads(source.info.tokenizer)
    spare = range(0x10FFFF, 0x10FFFF - (defaults["vocab_size"] - len(tokenizer["pieces"])), -1)
    tokenizer["pieces"] += [chr(point).encode().decode("latin-1") for point in spare]
    info = dataclasses.replace(source.info, tokenizers={"text": json.dumps(tokenizer)})
    if not pairs:
        columns["token_ids"] = columns["token_ids"][:, : TOKENS + 1]
    return info, columns


def _settle(model, image):
    """Scale a classifier as if it were trained: batch norm, and the scores of some images.

    Batch norm moves halfway to the images' statistics: all the way, channels that hardly vary in so
    few would be blown up, and rounding with them. The scores get the deviation 3.
    """
    import keras

    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [x.momentum for x in norms]
    for norm in norms:
        norm.momentum = 0.5
    if norms:
        model(image, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    scores = model(image, training=False)
    kernel = model.head.kernel
    kernel.assign(3.0 / keras.ops.std(scores) * kernel)


def main(name, program, *kinds):
    """The process that `measure` starts."""
    from kerasdl.bench import native
    from kerasdl.export import exporter

    def say(line):
        print(f"{name}: {line}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        made = parts(name)
        card = exporter.export(made, ("savedmodel", "tflite"), folder, say=say, quantized=kinds)
        far = native.prove(program, made, card["folder"]) if program else None
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    result = {
        "parameters": card["trainable_parameters"],
        "artifacts": card["artifacts"],
        "omitted": card["omitted"],
        "native": far,
        "gib": max(resource.getrusage(one).ru_maxrss for one in who) / 2**20,
    }
    print(worker.RESULT + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
