"""Open exported files, `.keras` files and runs; run their signatures, and evaluate them."""

from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.data import augment, pipeline, tta
from kerasdl.data.splits import Subset, evenly
from kerasdl.data.text.tokenizer import give_texts
from kerasdl.errors import UserError
from kerasdl.inference import dataset, interface, proof, runtimes
from kerasdl.inference.signatures import functions, tokenizer_of
from kerasdl.metrics import exported
from kerasdl.metrics.confusion import Confusion
from kerasdl.store import load
from kerasdl.system import archives

PER_CLASS = ("classes",)  # what evaluators report by class, and is printed
LOADED = ("saved_model.pb", "variables/", "assets/", "fingerprint.pb")  # of a SavedModel
BATCH = 64  # examples per call of an exported file


class Artifact:
    """A model in any format, called by signature.

    Args:
        kind: "keras", "run", "published", "saved_model" or "tflite".
        path: What it was opened from; of a folder of versions, the newest.
        opened: The loaded model, with `answer(signature, inputs)` and `inputs(signature)`.

    Attributes:
        inputs: `signature -> names of its inputs`, none where it has no such signature.
    """

    def __init__(self, kind: str, path: Path, opened):
        self.kind = kind
        self.path = path
        self.inputs = opened.inputs
        self._opened = opened

    @cached_property
    def interface(self) -> interface.Interface:
        """Its inputs and outputs; of an exported file by its card only."""
        if self.kind in ("keras", "run", "published"):
            return self._opened.interface
        target = "tflite" if self.kind == "tflite" else "savedmodel"
        result = interface.of_card(self.path, target)
        card = load.card_of(self.kind, self.path)
        if result.model in catalog.MODELS and {"recipe", "model_arguments"} <= set(card):
            load.load_info(self.path)  # whether the data that it describes are the model's
        _check_described(self.path, result)
        return result

    def answer(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of `{input: array}`.

        Raises:
            UserError: The signature fails on these inputs; one line.
        """
        try:
            return self._opened.answer(signature, inputs)
        except (RuntimeError, ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise UserError(f"{self.path}: {signature} failed: {archives.first(error)}") from error

    def predict(self, image) -> dict:
        """A classifier's outputs for images.

        Args:
            image: float `(N, H, W, C)` in [0, 1].

        Returns:
            `probabilities` and `logits` `(N, K)`, and `label` `(N,)`; numpy arrays.
        """
        inputs = {"image": np.asarray(image, "float32")}
        return exported.in_batches(lambda batch: self.answer("serving_default", batch), inputs)


def open_artifact(path) -> Artifact:
    """Open a `.tflite` or `.keras` file, an exported model or a run folder.

    Args:
        path: Of the model; an `Artifact` is returned as it is.

    Raises:
        UserError: There is no such model at the path.
    """
    if isinstance(path, Artifact):
        return path
    kind, path = load.find(path)
    opens = {"tflite": _open_tflite, "saved_model": _open_saved_model}
    if kind in opens and load.card_file(kind, path).is_file():
        load.check_files(kind, path, LOADED if kind == "saved_model" else ("",))
    return Artifact(kind, path, opens.get(kind, _KerasModel)(path))


def _check_described(path, described):
    """Refuse inputs and outputs of other shapes and classes than there are."""
    classes = [list(column.class_names) for column in described.info.columns.values()]
    for signature in described.signatures.values():
        for one in (*signature["inputs"].values(), *signature["outputs"].values()):
            shape, names = one.get("shape", []), one.get("class_names")
            known = isinstance(shape, list) and all(isinstance(n, int | str | None) for n in shape)
            if not known or not isinstance(one.get("dtype", ""), str):
                raise UserError(f"{path}: its card.json describes an input of no shape or type")
            if "class_names" in one and names not in classes:
                raise UserError(f"{path}: its card.json names classes that the data do not have")


def evaluate_artifact(path, split: str = "test", views: int | None = None, name=None) -> dict:
    """The metrics of a model on the data that it was trained on.

    Args:
        path: What `open_artifact` takes.
        split: "train", "val" or "test".
        views: Of each image, whose probabilities are averaged; the run's `tta` if None.
        name: Of the data set, where it has been moved.

    Returns:
        `{metric: value}` and `examples`, their number: of a run or a `.keras` file all of the
        task's metrics, of an exported file those of its signatures. Of a classifier also `classes`,
        `{name: {"precision", "recall", "f1", "support"}}`.
    """
    kind, path = load.find(path)
    metadata = load.load_info(path)
    is_exported = kind in ("saved_model", "tflite")
    if is_exported:
        load.check_files(kind, path)
    task = task_of(metadata)
    source = dataset.open_data(task, metadata.fingerprint, name, [dataset.split_name(split)])
    if is_exported:
        examples = dataset.batches(source, task, split, BATCH)
        return _evaluate(open_artifact(path), task, examples, views)
    from kerasdl.inference import evaluation

    recipe = task.run_recipe

    def batches(part):
        return pipeline.evaluation_batches(
            part,
            source.info.columns,
            batch_size=recipe.batch_size,
            views=augment.views(recipe, task),
        )

    def reference(examples):
        return batches(Subset(source.train, evenly(len(source.train), examples)))

    part, number = getattr(source, dataset.split_name(split)), _views(task, views)
    model = load.load(path)
    model = tta.Averaged(model, number) if number > 1 else model
    metrics, more = evaluation.evaluate(
        model, task, batches(part), dataset.split_name(split), reference
    )
    return {**metrics, "examples": len(part)} | {k: more[k] for k in PER_CLASS if k in more}


def evaluate_all(folder, split: str = "test", views: int | None = None, name=None) -> dict:
    """The metrics of an exported model's `savedmodel` and each `tflite/<kind>`; see
    `evaluate_artifact`."""
    kind, folder = load.find(folder)
    metadata = load.load_info(folder)
    load.check_files(kind, folder)
    task = task_of(metadata)
    source = dataset.open_data(task, metadata.fingerprint, name, [dataset.split_name(split)])
    paths = {"savedmodel": folder}
    paths |= {f"tflite/{p.stem}": p for p in proof.lite_files(folder)}
    part = getattr(source, dataset.split_name(split))
    examples = dataset.examined(task, part)

    def batches():
        return dataset.batches(source, task, split, BATCH, examples)

    return {n: _evaluate(open_artifact(p), task, batches(), views) for n, p in paths.items()}


def task_of(metadata):
    """The task of a model, made from its `Metadata`."""
    kind = tasks.get(catalog.row(metadata.model).task)
    return give_texts(kind(metadata.info, metadata.recipe))


def _views(task, number):
    """How many views of an image are averaged."""
    number = task.run_recipe.tta if number is None else number
    tta.check(number, task)
    return number


def _evaluate(artifact, task, batches, views=None):
    target = "tflite" if artifact.kind == "tflite" else "savedmodel"
    how = task.evaluated_by(target)
    if not how:
        raise UserError(
            f"{artifact.path}: this task has no metrics for exported files; evaluate its run "
            "with --run"
        )
    watching = [e for e in task.evaluators() if isinstance(e, Confusion)]

    def watch(outputs, batch):
        if not watching:
            return
        rows = {"weight": np.ones(len(batch["label"])), "index": np.arange(len(batch["label"]))}
        for evaluator in watching:
            evaluator.update(outputs, {**batch, **rows})

    try:
        number = _views(task, views)
        seen = tta.AveragedFile(artifact, number) if number > 1 else artifact
        result = exported.evaluate(seen, batches, how, BATCH, watch)
    except KeyError as error:
        raise UserError(f"{artifact.path}: the data set has no column {error}") from None
    if result is None:
        raise UserError(f"{artifact.path}: the data set has no column {how['target']}")
    for evaluator in watching:
        one = evaluator.result()
        result |= one["test"] | {k: one[k] for k in PER_CLASS}
    return result


def _open_saved_model(path):
    try:
        try:
            return runtimes.SavedModel(path)
        except RuntimeError as error:
            if "not registered" not in str(error):
                raise
            runtimes.load_text_ops()  # of wordpiece and sentencepiece
            return runtimes.SavedModel(path)
    except Exception as error:  # damaged files raise many kinds of errors
        raise UserError(f"{path}: the SavedModel cannot be read: {archives.first(error)}") from None


def _open_tflite(path):
    try:
        return runtimes.TFLite(path)
    except Exception as error:  # as above
        raise UserError(
            f"{path}: the TFLite file cannot be read: {archives.first(error)}"
        ) from None


class _KerasModel:
    """A Keras model's signatures on numpy arrays, as of `runtimes.SavedModel`."""

    def __init__(self, path):
        model, task = load.load(path), task_of(load.load_info(path))
        tokenizer = tokenizer_of(task)
        self.interface = interface.of_model(task, model)
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
