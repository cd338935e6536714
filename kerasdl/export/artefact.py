"""Ask exported files, `.keras` files and runs the same questions: answers and figures."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.data import images
from kerasdl.export import load, parity, sets

TOP = 5


class Artefact:
    """A model in whatever format, with one method.

    Attributes:
        kind: "keras", "run", "saved_model" or "tflite".
        path: What it was opened from; of a folder of versions, the newest.
    """

    def __init__(self, kind: str, path: Path, answer):
        self.kind = kind
        self.path = path
        self._answer = answer

    def predict(self, image) -> dict:
        """Answers to images.

        Args:
            image: float `(N, H, W, C)` in [0, 1].

        Returns:
            `probabilities` and `logits` `(N, K)`, and `label` `(N,)`; numpy arrays.
        """
        return parity.in_batches(self._answer, {"image": np.asarray(image, "float32")})


def open_artefact(path) -> Artefact:
    """Open a `.tflite` or `.keras` file, an exported model or a run folder.

    Raises:
        ValueError: Nothing of these is there.
    """
    kind, path = load.find(path)
    if kind == "tflite":
        answer = _serving_default(_open_tflite(path))
    elif kind == "saved_model":
        answer = _serving_default(_open_saved_model(path))
    else:
        answer = _keras_answer(path)
    return Artefact(kind, path, answer)


def predict_files(path, files) -> list[dict]:
    """Classify image files.

    Args:
        path: What `open_artefact` takes.
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
            raise ValueError(f"{path}: takes no image files, only arrays of other channels")

        def probabilities(content):
            return saved.answer("serve_bytes", {"image_bytes": np.array([content], object)})
    else:
        artefact, info = open_artefact(path), load.load_info(path).info
        names = info.class_names

        def probabilities(content):
            *size, channels = info.image_shape
            image = images.fit(images.decode(content, channels), size)
            return artefact.predict(image[None])

    return [
        _ranked(file, _decodable(file, probabilities, content)["probabilities"][0], names)
        for file, content in zip(files, contents, strict=True)
    ]


def evaluate_artefact(path, split: str = "test") -> dict:
    """`loss`, `top1` and `top5` of the data that a model was trained on.

    Args:
        path: What `open_artefact` takes.
        split: "train", "val" or "test".

    Returns:
        `{"loss", "top1", "top5", "examples"}`; the loss as in training, without smoothing.
    """
    facts = load.load_info(path)
    return _judge(open_artefact(path), sets.read(facts.recipe, facts.info, split), facts)


def evaluate_all(folder, split: str = "test") -> dict:
    """The figures of an exported model's `savedmodel` and each `tflite/<kind>`."""
    _, folder = load.find(folder)
    facts = load.load_info(folder)
    data = sets.read(facts.recipe, facts.info, split)
    paths = {"savedmodel": folder}
    paths |= {f"tflite/{p.stem}": p for p in parity.lite_files(folder)}
    return {name: _judge(open_artefact(p), data, facts) for name, p in paths.items()}


def _judge(artefact, data, facts):
    logits = artefact.predict(data["image"])["logits"]
    return parity.figures(logits, data["label"], facts.recipe.loss)


def _serving_default(artefact):
    return lambda inputs: artefact.answer("serving_default", inputs)


def _open_saved_model(path):
    try:
        return parity.SavedModel(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no SavedModel that can be read: {_first(error)}") from None


def _open_tflite(path):
    try:
        return parity.TFLite(path)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: no TFLite file that can be read: {_first(error)}") from None


def _keras_answer(path):
    model, facts = load.load(path), load.load_info(path)
    task = tasks.get(catalog.row(facts.model).task)(facts.info, facts.recipe)

    def answer(inputs):
        return {k: np.asarray(v) for k, v in task.predict(model, inputs).items()}

    return answer


def _class_names(folder) -> list[str]:
    card = folder / "assets.extra" / "card.json"
    if not card.is_file():
        raise ValueError(f"{folder}: holds no assets.extra/card.json")
    return json.loads(card.read_text())["data"]["class_names"]


def _read(file) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None


def _decodable(file, function, content):
    try:
        return function(content)
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{file}: is no image that can be decoded") from None


def _ranked(file, probabilities, names) -> dict:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = [{"class_name": names[i], "probability": float(probabilities[i])} for i in order]
    return {"file": str(file), **top[0], "top5": top}


def _first(error) -> str:
    return str(error).strip().splitlines()[0][:200]
