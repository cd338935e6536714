"""Run any model on image files, texts, or both; these decide the signature."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.columns import VOID
from kerasdl.data import images
from kerasdl.data.selective_search import proposals
from kerasdl.errors import UserError
from kerasdl.inference import candidates, interface, texts
from kerasdl.inference.artifact import open_artifact
from kerasdl.metrics.average_precision import run_lengths
from kerasdl.ops.text import Specials
from kerasdl.store import pictures
from kerasdl.system.terminal import LINE, printable

TOP = 5
COLUMNS = 8  # pictures in a row
GIVES = {
    "image": "an image",
    "mask": "a class for every pixel",
    "boxes": "boxes",
    "label": "a class",
    "tokens": "a text",
}
PICTURED = ("image", "mask", "boxes")  # kinds of outputs that make a picture


def predict(path, inputs, settings=None, output=None) -> list[dict]:
    """Run a model on files and texts.

    Args:
        path: What `open_artifact` takes.
        inputs: Paths of image files, of any size and channels, and texts, as the model takes them.
            Where it takes both, whatever is a file or is named like an image is an image; each
            image goes with the text of the same position, a single one with all.
        settings: Any of `texts.SETTINGS`, and `long_prompts` of `texts.predict_texts`.
        output: A PNG file for images, or for classes of pixels and boxes on the given pictures; a
            model whose output is an image needs one.

    Returns:
        Per request `file` and `text`, as far as there are, and by kind of output: of a class
        `class_name`, `probability` and `top5`, `[{"class_name", "probability"}]`; of a mask `mask`,
        `{class name: fraction of the pixels}`; of boxes `objects`, `[{"class_name", "score",
        "box"}]`, and with masks `mask`, `{"size": [H, W], "counts"}`, COCO's compressed run
        lengths; of a picture `output`, its file; of token ids `text` again; and everything else by
        its name. Of language models and translators what `texts.predict_texts` returns.

    Raises:
        UserError: A file is missing or no image that can be decoded, the model does not take such
            inputs, or there is no model at `path`.
    """
    if output is not None:
        pictures.check_output(output)
    artifact = open_artifact(path)
    serving = artifact.interface
    ways = _ways(artifact)
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    if ways and all(set(data) == {"tokens"} for data in ways.values()) and texts.writer(serving):
        if output is not None:
            raise UserError(f"--output {output}: {serving.model} makes texts, not pictures")
        return texts.predict_texts(artifact, inputs, given)
    if both := _images_and_texts(serving, inputs):
        if output is not None:
            raise UserError(f"--output {output}: {serving.model} makes a class, not a picture")
        texts.numbers_of({"inputs": {}}, given, serving.model)  # none applies
        return _chosen_texts(artifact, *both)
    requests = _requests(serving, ways, inputs)
    name = _chosen(serving, ways, set(requests[0]))
    signature = serving.signatures[name]
    kinds = [one["kind"] for one in signature["outputs"].values()]
    _check_output(serving.model, kinds, output)
    numbers = texts.numbers_of(signature, given, serving.model)
    results, painted = [], []
    for number, request in enumerate(requests, 1):
        result, picture = _answer(artifact, name, ways[name], request, given, numbers, number)
        results.append(result)
        painted += [] if output is None else [picture]
    if output is not None:
        pictures.write_output(output, np.stack(painted), columns=min(len(painted), COLUMNS))
        results = [{**result, "output": str(output)} for result in results]
    return results


def line(result: dict) -> str:
    """One of the results of `predict` as a line, or as the text that it is."""
    if "input" in result:
        return result["output"]
    rest = dict(result)
    head = [printable(rest.pop(key), LINE) for key in ("file", "text") if key in rest]
    parts = []
    rest.pop("output", None)
    rest.pop("top5", None)
    if "class_name" in rest:
        parts.append(printable(rest.pop("class_name")))
        if "probability" in rest:
            parts[-1] += f" {rest.pop('probability'):.4f}"
    if "mask" in rest:
        parts.append(
            ", ".join(f"{printable(name)} {part:.4f}" for name, part in rest.pop("mask").items())
        )
    if "objects" in rest:
        parts.append("; ".join(map(_object_line, rest.pop("objects"))) or "nothing")
    if "answer" in rest:
        parts.append(rest.pop("answer"))
    if rest:
        parts.append(json.dumps(rest))
    return ": ".join([*head, " ".join(parts)])


def only_pictures(results: list) -> bool:
    """Whether results hold nothing but the file of their picture."""
    return all(set(one) <= {"file", "text", "output"} for one in results)


def _object_line(one):
    score = f" {one['score']:.4f}" if "score" in one else ""
    return f"{printable(one['class_name'])}{score} at " + " ".join(f"{n:.3f}" for n in one["box"])


def _ways(artifact) -> dict:
    """`{signature: {kind: input}}` of signatures that need only files and texts."""
    serving = artifact.interface
    ways = {name: serving.data(name, texts.SETTINGS) for name in serving.signatures}
    return {name: data for name, data in ways.items() if data and artifact.inputs(name)}


def _requests(serving, ways, inputs) -> list[dict]:
    """`[{kind: file or text}]`."""
    kinds = {kind for data in ways.values() for kind in data}
    if not kinds:
        line = "; it samples images: give --output FILE.png only" if _samples(serving) else ""
        raise UserError(f"{serving.model} takes neither files nor texts{line}")
    given = {}
    for value in map(str, inputs):
        kind = "image" if "image" in kinds else "tokens"
        if len(kinds) > 1 and not _like_a_file(value):
            kind = "tokens"
        given.setdefault(kind, []).append(value)
    if len({len(values) for values in given.values()} - {1}) > 1:
        counts = " and ".join(
            f"{len(values)} {'files' if kind == 'image' else 'texts'}"
            for kind, values in given.items()
        )
        raise UserError(f"{counts}: give equal numbers of both, or one of either")
    count = max(map(len, given.values()))
    wide = {kind: values * count if len(values) == 1 else values for kind, values in given.items()}
    return [{kind: values[i] for kind, values in wide.items()} for i in range(count)]


def _images_and_texts(serving, inputs):
    """The files and the texts of what is given, where there are both and a model chooses among
    texts; else None."""
    if not candidates.chooser(serving):
        return None
    files = [value for value in map(str, inputs) if _like_a_file(value)]
    words = [value for value in map(str, inputs) if not _like_a_file(value)]
    return (files, words) if files and words else None


def _chosen_texts(artifact, files, words):
    """Each image with the likeliest texts, as `predict` gives classes."""
    serving, pixels = artifact.interface, []
    name, image, _ = candidates.chooser(serving)
    one = serving.signatures[name]["inputs"][image]
    for file in files:
        content = read_file(file, f"{serving.model} takes {serving.takes(texts.SETTINGS)}")
        picture = decoded(file, content, one["shape"], serving.fit)
        pixels.append(np.array([content], object) if one.get("encoded") else picture[None])
    answers = candidates.choose(artifact, pixels, words)
    return [
        {"file": file, **_ranked({"probabilities": p}, int(p.argmax()), words)}
        for file, p in zip(files, answers, strict=True)
    ]


def _samples(serving):
    from kerasdl.inference import sampling

    return sampling.sampler(serving) is not None


def _like_a_file(value):
    if value.lower().endswith(images.FORMATS):
        return True
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # longer than a name may be, or with a zero
        return False


def _chosen(serving, ways, kinds):
    """The first signature that takes just these; one of encoded images where there is one."""
    fitting = [name for name, data in ways.items() if set(data) == kinds]
    if not fitting:
        given = " and ".join(interface.INPUTS[k] for k in interface.INPUTS if k in kinds)
        raise UserError(f"{serving.model} takes {serving.takes(texts.SETTINGS)}, not only {given}")

    def encoded(name):
        return all(
            serving.signatures[name]["inputs"][key].get("encoded") for key in ways[name].values()
        )

    return next(filter(encoded, fitting), fitting[0])


def _check_output(model, kinds, output):
    painted = [kind for kind in PICTURED if kind in kinds]
    if output is not None and not painted:
        gives = " and ".join(GIVES[kind] for kind in GIVES if kind in kinds) or "numbers"
        raise UserError(f"--output {output}: {model} makes {gives}, not a picture")
    if output is None and "image" in kinds:
        raise UserError(f"{model} makes an image: give --output FILE.png to write it to")


def _answer(artifact, name, data, request, given, numbers, number):
    """The result of a request, and the picture of it or None."""
    serving = artifact.interface
    signature, result = serving.signatures[name], {}
    inputs, values, picture, length = {}, {}, None, 0
    if "image" in data:
        key, file = data["image"], request["image"]
        one, result["file"] = signature["inputs"][key], file
        content = read_file(file, f"{serving.model} takes {serving.takes(texts.SETTINGS)}")
        picture = decoded(file, content, one["shape"], serving.fit)
        inputs[key] = np.array([content], object) if one.get("encoded") else picture[None]
        for key, one in signature["inputs"].items():
            if one["kind"] == "regions":
                inputs[key] = proposals(picture, one["shape"][0])[None]
    if "tokens" in data:
        key, text = data["tokens"], request["tokens"]
        one, result["text"] = signature["inputs"][key], text
        (ids,) = serving.tokenizer.encode([text])
        length = len(ids)
        values[f"{one.get('ids', key)}_length"] = np.array([length], "int32")
        encoded = np.array([text.encode()], object)
        inputs[key] = (
            encoded
            if one.get("encoded")
            else _filled(ids, one["shape"], number, Specials.of(serving.info).pad)
        )
    inputs |= texts.within_context(numbers, given, serving.context, length)
    interface.check(signature, inputs | values, f"text {number}: " if "tokens" in data else "")
    outputs = {key: value[0] for key, value in artifact.answer(name, inputs).items()}
    if picture is not None and serving.fit != images.SQUASH:  # as the file shows it
        one = signature["inputs"][data["image"]]
        kinds = {key: described["kind"] for key, described in signature["outputs"].items()}
        if "boxes" in kinds.values():
            picture = decoded(file, content, one["shape"], images.SQUASH)
        for key, kind in kinds.items() if not one.get("encoded") else ():
            place = serving.fit.place(tf.constant(content), one["shape"][:2])
            if kind == "boxes":
                outputs[key] = images.in_whole(tf.constant(outputs[key]), place).numpy()
            elif kind == "instances":
                value = tf.constant(outputs[key][None])
                outputs[key] = images.masks_in_whole(value, place[None])[0].numpy()
    return _shown(serving, signature["outputs"], outputs, result, picture)


def _shown(serving, described, outputs, result, picture):
    """Outputs as results, and the picture of them or None."""
    kinds = {name: described.get(name, {}).get("kind", "number") for name in outputs}
    of = {kind: name for name, kind in reversed(kinds.items())}  # the first of each
    names = described[of["label"]]["class_names"] if "label" in of else []
    if "label" in of and outputs[of["label"]].ndim == 0:
        result |= _ranked(outputs, int(outputs[of["label"]]), names)
    elif "label" in of and "boxes" not in of:
        labels = outputs[of["label"]].tolist()
        result["class_names"] = [_name(names, k) for k in labels if k >= 0]
    if "mask" in of:
        mask, classes = outputs[of["mask"]], described[of["mask"]]["class_names"]
        values, counts = np.unique(mask[mask != VOID], return_counts=True)
        result["mask"] = {
            _name(classes, k): n / mask.size
            for k, n in zip(values.tolist(), counts.tolist(), strict=True)
        }
        picture = picture if picture is None else pictures.overlay(picture, mask, len(classes))
    if "boxes" in of:
        boxes = outputs[of["boxes"]]
        labels = outputs[of["label"]] if names else np.zeros(len(boxes), int)
        scores = next((outputs[n] for n in ("scores", "score") if n in outputs), None)
        there = np.flatnonzero(labels >= 0)
        masks = outputs[of["instances"]][there] if "instances" in of else None
        result["objects"] = [
            {"class_name": _name(names, labels[i]) if names else "object"}
            | ({} if scores is None else {"score": float(scores[i])})
            | {"box": boxes[i].tolist()}
            for i in there
        ]
        codes = () if masks is None else zip(result["objects"], run_lengths(masks), strict=True)
        for one, code in codes:
            one["mask"] = {"size": [*masks.shape[1:]], "counts": code.decode()}
        if picture is not None:
            count = max(len(names), 1)
            if masks is not None:
                picture = pictures.overlay(picture, _classes(masks, labels[there]), count + 1)
            worst_first = there[::-1]  # so that the best are uppermost
            picture = pictures.rectangles(picture, boxes[worst_first], labels[worst_first], count)
    if "image" in of:
        picture = outputs[of["image"]]
    if "tokens" in of:
        result["answer"] = _text(serving, outputs[of["tokens"]])
    alone = not set(of) - {"number"}
    for name, value in outputs.items():
        if kinds[name] == "number" and (alone or value.ndim == 0):
            result[name] = value.tolist() if value.dtype.kind not in "OS" else _text(serving, value)
    painted = set(of) & set(PICTURED)
    return result, picture if painted else None


def _classes(masks, labels):
    """The class of each pixel, 0 of the background, of masks `(n, H, W)`, the first uppermost."""
    result = np.zeros(masks.shape[1:], int)
    for mask, label in zip(masks[::-1], labels[::-1], strict=True):
        result = np.where(mask > 0, 1 + label, result)
    return result


def _text(serving, value):
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value.dtype.kind in "OS":
        return [_text(serving, one) for one in value.tolist()]
    return serving.tokenizer.decode(value) if serving.info.tokenizer else value.tolist()


def _ranked(outputs, label, names) -> dict:
    """A class, and those that are likeliest where there are probabilities."""
    probabilities = outputs.get("probabilities")
    if probabilities is None or probabilities.shape != (len(names),):
        return {"class_name": _name(names, label)}
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = [{"class_name": names[i], "probability": float(probabilities[i])} for i in order]
    return {**top[0], "top5": top}


def _name(names, k):
    """The name of a class, or its number where it has none."""
    return names[k] if 0 <= k < len(names) else str(int(k))


def _filled(ids, shape, number, pad):
    """Token ids as a signature takes them, `(1, N)`."""
    (wide,) = shape
    if not isinstance(wide, int):
        return ids[None]
    if len(ids) > wide:
        raise UserError(f"text {number} must have at most {wide} tokens")
    return np.pad(ids, (0, wide - len(ids)), constant_values=pad)[None]


def read_file(file, takes: str) -> bytes:
    """The content of an image file; UserError, which ends with what is taken, if it has none."""
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a file name"
        raise UserError(f"{file} cannot be read: {why}; {takes}") from None


def decoded(file, content, shape, fit):
    """The pixels of an encoded image as the model is given them, float32 `(H, W, C)`; UserError
    where it is none."""
    channels = shape[-1]
    if channels not in (1, 3):
        raise UserError(
            f"{file} cannot be used: the model takes arrays of {channels} channels, not image files"
        )
    try:
        return images.to_float(images.read(content, shape, fit)).numpy()
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{file} is {images.kind_of(content)}") from None
