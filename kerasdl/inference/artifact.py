"""Ask exported files, `.keras` files and runs the same questions: answers and figures."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.data import augment, images, pipeline
from kerasdl.data.splits import Subset, evenly
from kerasdl.errors import UserError
from kerasdl.inference import dataset, proof
from kerasdl.inference.signatures import functions, tokenizer_of
from kerasdl.store import load

TOP = 5


class Artifact:
    """A model in whatever format, asked by signature.

    Attributes:
        kind: "keras", "run", "saved_model" or "tflite".
        path: What it was opened from; of a folder of versions, the newest.
        answer: `(signature, {input: array}) -> {output: array}`.
        inputs: `signature -> names of its inputs`, none where it has no such signature.
    """

    def __init__(self, kind: str, path: Path, answer, inputs):
        self.kind = kind
        self.path = path
        self.answer = answer
        self.inputs = inputs

    def predict(self, image) -> dict:
        """A classifier's answers to images.

        Args:
            image: float `(N, H, W, C)` in [0, 1].

        Returns:
            `probabilities` and `logits` `(N, K)`, and `label` `(N,)`; numpy arrays.
        """
        inputs = {"image": np.asarray(image, "float32")}
        return proof.in_batches(lambda batch: self.answer("serving_default", batch), inputs)


def open_artifact(path) -> Artifact:
    """Open a `.tflite` or `.keras` file, an exported model or a run folder.

    Raises:
        ValueError: Nothing of these is there.
    """
    kind, path = load.find(path)
    opens = {"tflite": _open_tflite, "saved_model": _open_saved_model}
    opened = opens.get(kind, _KerasModel)(path)
    return Artifact(kind, path, opened.answer, opened.inputs)


def predict_files(path, files) -> list[dict]:
    """Classify image files.

    Args:
        path: What `open_artifact` takes.
        files: Paths of image files, of any size and channels.

    Returns:
        Per file `{"file", "class_name", "probability", "top5": [{"class_name", "probability"}]}`.

    Raises:
        ValueError: A file is missing or no image that can be decoded, or nothing is at `path`.
    """
    contents = [_read(file) for file in files]
    kind, path = load.find(path)
    if kind == "saved_model":
        saved = _open_saved_model(path)
        names = _class_names(path)
        if "serve_bytes" not in saved.signatures:
            raise UserError(f"{path}: takes no image files, only arrays of other channels")

        def probabilities(content):
            return saved.answer("serve_bytes", {"image_bytes": np.array([content], object)})
    else:
        artifact, info = open_artifact(path), load.load_info(path).info
        names = info.class_names

        def probabilities(content):
            *size, channels = info.image_shape
            image = images.fit(images.decode(content, channels), size)
            return artifact.predict(image[None])

    return [
        _ranked(file, _decodable(file, probabilities, content)["probabilities"][0], names)
        for file, content in zip(files, contents, strict=True)
    ]


def evaluate_artifact(path, split: str = "test") -> dict:
    """The figures of a model on the data that it was trained on.

    Args:
        path: What `open_artifact` takes.
        split: "train", "val" or "test".

    Returns:
        `{metric: value}` and `examples`, their number: of a run or a `.keras` file all that the
        task judges, of an exported file what its signatures can tell.
    """
    kind, path = load.find(path)
    task = task_of(load.load_info(path))
    if kind in ("saved_model", "tflite"):
        return _evaluate(open_artifact(path), task, dataset.read(task, split))
    from kerasdl.inference import evaluation

    source, recipe = dataset.open_data(task), task.run_recipe

    def batches(part):
        return pipeline.evaluation_batches(
            part,
            source.info.columns,
            batch_size=recipe.batch_size,
            views=augment.views(recipe, task),
        )

    def reference(examples):
        return batches(Subset(source.train, evenly(len(source.train), examples)))

    part = getattr(source, dataset.split_name(split))
    metrics, _ = evaluation.evaluate(
        load.load(path), task, batches(part), dataset.split_name(split), reference
    )
    return {**metrics, "examples": len(part)}


def evaluate_all(folder, split: str = "test") -> dict:
    """The figures of an exported model's `savedmodel` and each `tflite/<kind>`."""
    _, folder = load.find(folder)
    task = task_of(load.load_info(folder))
    data = dataset.read(task, split, task.served_examples)
    paths = {"savedmodel": folder}
    paths |= {f"tflite/{p.stem}": p for p in proof.lite_files(folder)}
    return {name: _evaluate(open_artifact(p), task, data) for name, p in paths.items()}


def task_of(metadata):
    """The task of a model, of the facts that stand beside its weights."""
    return tasks.get(catalog.row(metadata.model).task)(metadata.info, metadata.recipe)


def _evaluate(artifact, task, data):
    target = "tflite" if artifact.kind == "tflite" else "savedmodel"
    how = task.evaluated_by(target)
    if not how:
        raise UserError(
            f"{artifact.path}: there are no figures of its exported files; evaluate its --run"
        )
    size = (
        1 if target == "tflite" and catalog.row(task.run_recipe.model).tflite_static_batch else 64
    )
    return proof.evaluate(artifact, data, how, size)


def _open_saved_model(path):
    try:
        try:
            return proof.SavedModel(path)
        except RuntimeError as error:
            if "not registered" not in str(error):
                raise
            proof.load_text_ops()  # of wordpiece and sentencepiece
            return proof.SavedModel(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no SavedModel that can be read: {_first(error)}") from None


def _open_tflite(path):
    try:
        return proof.TFLite(path)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: no TFLite file that can be read: {_first(error)}") from None


class _KerasModel:
    """A Keras model's signatures on numpy arrays, as of `proof.SavedModel`."""

    def __init__(self, path):
        model, task = load.load(path), task_of(load.load_info(path))
        tokenizer = tokenizer_of(task)
        self.functions = {
            name: tf.function(function, input_signature=specs, autograph=False)
            for name, (function, specs) in functions(task, model, "savedmodel", tokenizer).items()
        }

    def inputs(self, signature):
        """Names of a signature's inputs; none where there is no such signature."""
        function = self.functions.get(signature)
        return [spec.name for spec in function.input_signature] if function else []

    def answer(self, signature, inputs):
        """`{output: array}`."""
        tensors = (tf.constant(inputs[name]) for name in self.inputs(signature))
        return {k: v.numpy() for k, v in self.functions[signature](*tensors).items()}


def _class_names(folder) -> list[str]:
    card = folder / "assets.extra" / "card.json"
    if not card.is_file():
        raise UserError(f"{folder}: holds no assets.extra/card.json")
    return DataInfo.from_dict(json.loads(card.read_text())["data"]).class_names


def _read(file) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def _decodable(file, function, content):
    try:
        return function(content)
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{file}: is no image that can be decoded") from None


def _ranked(file, probabilities, names) -> dict:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = [{"class_name": names[i], "probability": float(probabilities[i])} for i in order]
    return {"file": str(file), **top[0], "top5": top}


def _first(error) -> str:
    return str(error).strip().splitlines()[0][:200]
