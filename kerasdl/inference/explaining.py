"""Explain what a run or an exported model sees in image files, as pictures and as numbers."""

import numpy as np

from kerasdl.columns import PARTS
from kerasdl.data import sources
from kerasdl.data.images import to_float
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.inference import dataset, explain
from kerasdl.inference.artifact import task_of
from kerasdl.inference.predict import decoded, read_file
from kerasdl.inference.signatures import fit_of
from kerasdl.store import load, pictures
from kerasdl.system.names import nearest
from kerasdl.system.terminal import LINE, printable
from kerasdl.tasks.representation import Representation
from kerasdl.tasks.translate import Translate

IN_REPORTS = ("gradcam", "saliency", "guided", "attention", "occlusion")
COLUMNS = 8  # of pictures in reports
EXAMPLES = 1000  # of the test part, in which patches are looked for


def explain_files(path, files, method=None, label=None, layer=None, output=None) -> list[dict]:
    """Show what a classifier looks at, or what a ViT does that was trained without labels.

    Args:
        path: A run, a `.keras` file or an exported model.
        files: Image files; none of `filters` and `patches`.
        method: One of `METHODS` of the command; if None `gradcam`, or `attention` without labels.
        label: Name of the class that is explained; of each image the likeliest if None.
        layer: Of `gradcam` and `patches`; see `explain.Explainer`.
        output: A PNG file: each image and, beside it, what counts for the class, or without labels
            where each head of the last block looks from the class token; or None.

    Returns:
        Per file `file`, `method`, `peak`, `[y, x]` in [0, 1], what counts most, and of a classifier
        `class_name` and `probability` of the class.

    Raises:
        UserError: A file, class, layer or method that does not fit the model.
    """
    if output is not None:
        pictures.check_output(output)
    metadata = _loadable(path)
    task = task_of(metadata)
    if isinstance(task, Representation):
        return _explain_unlabeled(path, task, metadata, files, method, label, layer, output)
    method = method or "gradcam"
    task, metadata, explainer = _opened(path)
    model = explainer.model
    if method == "filters":
        if layer:
            raise UserError("--layer applies to --method gradcam and patches only")
        pictures.write_output(output, explain.filters(model, metadata.model))
        return []
    if method == "patches":
        found = explainer.patches(_examples(task, metadata), layer)
        pictures.write_output(output, found.reshape(-1, *found.shape[2:]), columns=found.shape[1])
        return []
    names = task.info.class_names
    if label is not None and label not in names:
        raise UserError(f"--label {label}: not one of {', '.join(names)}{nearest(label, names)}")
    images = _images(files, task, metadata.model)
    probabilities = explainer.probabilities(images)
    labels = probabilities.argmax(-1)
    if label is not None:
        labels = np.full(len(images), list(names).index(label))
    heat = explainer.explain(images, method, labels, layer)
    if output is not None:
        pictures.write_output(output, _beside(images, heat), columns=2)
    return [
        {
            "file": str(file),
            "method": method,
            "class_name": names[k],
            "probability": float(row[k]),
            "peak": explain.peak(one),
        }
        for file, k, row, one in zip(files, labels, probabilities, heat, strict=True)
    ]


def _explain_unlabeled(path, task, metadata, files, method, label, layer, output):
    """`explain_files` of a model that was trained without labels."""
    backbone = load.load(path).backbone
    looks = hasattr(backbone, "attention_maps")
    if method not in (None, "attention") or not looks:
        only = "; --method attention does" if looks else ""
        raise UserError(f"--method {method or 'gradcam'} does not apply to {metadata.model}{only}")
    if label is not None or layer is not None:
        raise UserError(f"--label and --layer do not apply to {metadata.model}: it has no classes")
    images = _images(files, task, metadata.model)
    heat = explain.attention_of_heads(backbone, images)  # (B, h, H, W)
    if output is not None:
        rows = [
            [shown, *(explain.painted(shown, one) for one in heads)]
            for shown, heads in zip(_colored(images), heat, strict=True)
        ]
        pictures.write_output(output, np.concatenate(rows), columns=1 + heat.shape[1])
    return [
        {"file": str(file), "method": "attention", "peak": explain.peak(heads.mean(0))}
        for file, heads in zip(files, heat, strict=True)
    ]


def _images(files, task, name):
    """Image files as a model takes them, float32 `(B, H, W, C)`."""
    contents = [read_file(file, f"{name} takes image files") for file in files]
    shape, fit = tuple(task.info.image_shape), fit_of(task)
    return np.stack([decoded(f, c, shape, fit) for f, c in zip(files, contents, strict=True)])


def explain_texts(path, texts, output=None) -> list[dict]:
    """Show where a translation's tokens look in the source.

    Args:
        path: A run, a `.keras` file or an exported model, of a translator with attention.
        texts: Sources, strings.
        output: A PNG file: a table for each text, the source's tokens above, the translation's
            beside; or None.

    Returns:
        Per text `input`, `output`, `source` and `target`, the tokens of both with the last one,
        that ends them, and `weights` `(T, S)`: the mean over heads of the last block.

    Raises:
        UserError: A text that the model does not take, or a model of another kind.
    """
    if output is not None:
        pictures.check_output(output)
    metadata = _loadable(path)
    task = task_of(metadata)
    model = load.load(path)
    if not (isinstance(task, Translate) and hasattr(model, "attention_maps")):
        raise UserError(f"--text: {metadata.model} does not translate by attention")
    if not task.info.tokenizer:
        raise UserError(f"--text: {metadata.model} has no tokenizer: it translates token ids")
    tokenizer, specials = Tokenizer.from_json(task.info.tokenizer), task.specials
    results = []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode(texts), strict=True), 1):
        if not 0 < len(ids) < task.longest:
            raise UserError(
                f"text {number}: has {len(ids)} tokens; must have 1 to {task.longest - 1}"
            )
        source = np.append(ids, specials.end[0]).astype("int32")[None]
        written = np.asarray(task.predict(model, {"source_ids": source})["target_ids"])[0]
        written = written[written != specials.pad]
        # Padding changes nothing before it, and Keras warns of a softmax over one token alone.
        target = np.concatenate([[specials.begin], written[:-1], [specials.pad]])
        target = target[None].astype("int32")
        maps = np.asarray(model.attention_maps({"source_ids": source, "target_ids": target}))
        results.append(
            {
                "input": text,
                "output": tokenizer.decode(written),
                "source": [_token(tokenizer, k, specials) for k in source[0]],
                "target": [_token(tokenizer, k, specials) for k in written],
                "weights": maps[0, -1].mean(0)[: len(written)].tolist(),
            }
        )
    if output is not None:
        pictures.write_output(output, _tables(results), columns=1)
    return results


def _token(tokenizer, number, specials):
    return "<end>" if number in specials.end else tokenizer.decode([number])


def _tables(results):
    """The tables of `explain_texts`, white below and beside the smaller ones."""
    tables = [
        pictures.labeled_table(one["weights"], one["target"], one["source"]) for one in results
    ]
    sides = np.max([table.shape for table in tables], axis=0)
    return np.stack(
        [
            np.pad(t, [(0, n - m) for n, m in zip(sides, t.shape, strict=True)], constant_values=1)
            for t in tables
        ]
    )


def pointing_game(path, method, layer=None, examples=EXAMPLES) -> dict:
    """How often what counts most for the true class lies on the object.

    Args:
        path: A classifier, as of `explain_files`.
        method: Of `explain.Explainer`.
        layer: Of `gradcam`.
        examples: Maximum number of test examples.

    Returns:
        `method`, `hits`, `random`, that of maps of noise, both fractions of the `examples`.

    Raises:
        UserError: The data have no boxes, or what `explain_files` refuses.
    """
    task, metadata, explainer = _opened(path)
    source = sources.from_recipe(task.run_recipe, None, None)
    if missing := {"boxes", "label"} - set(source.info.columns):
        raise UserError(
            f"--pointing-game: {task.run_recipe.dataset} has no {' and '.join(sorted(missing))}; "
            "scenes:digits=1 has"
        )
    count = min(len(source.test), examples)
    data = source.test.read(np.arange(count))
    images, right = np.asarray(to_float(data["image"])), 0
    for start in range(0, count, explain.PART):
        part = slice(start, start + explain.PART)
        heat = explainer.explain(images[part], method, data["label"][part], layer)
        right += int(explain.hits(heat, data["boxes"][part]).sum())
    noise = np.random.default_rng(0).random(images.shape[:3])
    chance = float(explain.hits(noise, data["boxes"]).mean())
    return {"method": method, "hits": right / count, "random": chance, "examples": count}


def write_pictures(folder, model, task, images) -> list[str]:
    """Write a picture of each method that applies: images, and beside each what counts for the
    likeliest class.

    Args:
        folder: Where to; `<method>.png`.
        model: A classifier.
        task: Its task.
        images: float32 `(B, H, W, C)` in [0, 1].

    Returns:
        The methods.
    """
    explainer, written = explain.Explainer(model, task.info.image_shape), []
    for method in IN_REPORTS:
        try:
            heat = explainer.explain(images, method)
        except UserError:  # it does not apply to this network
            continue
        pictures.write_picture(folder / f"{method}.png", _beside(images, heat), COLUMNS)
        written.append(method)
    return written


def _opened(path):
    """The task, the metadata and the `Explainer` of a classifier."""
    metadata = _loadable(path)
    task = task_of(metadata)
    if not explain.applies(task):
        raise UserError(f"{metadata.model} is no classifier of images, which alone are explained")
    return task, metadata, explain.Explainer(load.load(path), task.info.image_shape, metadata.model)


def _loadable(path):
    """The metadata of what can be loaded as a model."""
    if load.find(path)[0] == "tflite":
        raise UserError(f"{path}: a TFLite file has no gradients; give the folder of its model")
    return load.load_info(path)


def check(task, setting: str) -> None:
    """Refuse a task whose models cannot be explained."""
    if not explain.applies(task):
        raise UserError(f"{setting} applies to classifiers of images only")


def _beside(images, heat):
    """Each image and then its map over it, `(2 B, H, W, 3)`."""
    color = _colored(images)
    shown = [explain.painted(*pair) for pair in zip(images, heat, strict=True)]
    return np.stack([color, shown], 1).reshape(-1, *color.shape[1:])


def _colored(images):
    """`(B, H, W, 3)` of images with any number of channels."""
    return images if images.shape[-1] == 3 else np.repeat(images[..., :1], 3, -1)


def line(result: dict) -> str:
    """One of the results as a line; of a text one for each token of the translation."""
    if "weights" in result:
        most = [result["source"][k] for k in np.argmax(result["weights"], -1)]
        pairs = zip(result["target"], most, strict=True)
        looks = [f"  {token!r} looks at {other!r} most" for token, other in pairs]
        return "\n".join([f"{result['input']} -> {result['output']}", *looks])
    y, x = result["peak"]
    file = printable(result["file"], LINE)
    if "class_name" not in result:
        return f"{file}: most at {y:.3f} {x:.3f}"
    name = printable(result["class_name"])
    return f"{file}: {name} {result['probability']:.4f}, most at {y:.3f} {x:.3f}"


def _examples(task, metadata):
    """Images of the test part, float32 `(N, H, W, C)`."""
    source = dataset.open_data(task, metadata.fingerprint, None, PARTS[2:])
    number = min(len(source.test), EXAMPLES)
    return next(iter(dataset.batches(source, task, "test", number)))["image"]
