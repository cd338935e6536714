"""Write weights back as another library has them: a file, or a folder that it can open."""

import copy
import json
from pathlib import Path

import numpy as np

from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.store import published
from kerasdl.system.files import write_text
from kerasdl.system.names import few, nearest
from kerasdl.weights import families, files, rename
from kerasdl.weights.places import CONFIG

FOLDER = "safetensors"  # of an exported model
WEIGHTS = "model.safetensors"
METADATA = {"format": "pt"}  # what transformers asks of a file of weights


def save_weights(model, path, family: str | None = None, names=(), more=None) -> str:
    """Write a model's weights under the names of another library.

    Args:
        model: A built model or backbone of this project.
        path: Of a `.safetensors` file; it is written under a temporary name, then renamed.
        family: Whose names, such as "timm ViT"; the first of those that have such a model if None.
        names: Of the file that the weights are from, where the family has several for a weight.
        more: `{name: array}` that stand there besides.

    Returns:
        The family.

    Raises:
        UserError: No family has such a model, or the one that is asked for.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: the name of a file of weights must end in .safetensors")
    target, found = _family(model, family)
    arrays = rename.to_theirs(found, target, names=names) | (more or {})
    files.save_safetensors(path, arrays, METADATA)
    _prove(path, found, target)
    return found.name


def save_pretrained(model, folder, source: dict | None = None, info=None) -> dict:
    """Write a folder as the library that the weights are from has it.

    Args:
        model: A built model or backbone of this project.
        folder: It is made; it holds `model.safetensors`, and the files that describe the weights
            where `source` has them and they still tell the truth.
        source: Where the weights are from: of `Published.source`.
        info: `DataInfo` that the model was trained on: its classes and statistics are written.

    Returns:
        `{"family", "files"}`: whose names the weights have, and the names of the files.

    Raises:
        UserError: No family has such a model.
    """
    folder, source = Path(folder), source or {}
    names = [f.name for f in families.of_model(published.target_of(model))]
    wanted = source.get("family")
    folder.mkdir(parents=True, exist_ok=True)
    if wanted in names:
        family = save_weights(
            model, folder / WEIGHTS, wanted, source.get("names", ()), _kept(source)
        )
    else:
        family = save_weights(model, folder / WEIGHTS)
    written = []
    if wanted == family:
        for name, values in source.get("files", {}).items():
            values = _described(values, info or DataInfo())
            write_text(folder / name, json.dumps(values, indent=2))
            written.append(name)
        if CONFIG in written and not _tells_the_truth(folder, model):
            for name in written:
                (folder / name).unlink()
            written = []
    return {"family": family, "files": [WEIGHTS, *written]}


def _kept(source) -> dict:
    """`{name: array}` of the source that the model does not have."""
    kept = source.get("kept", {}).items()
    return {name: np.array(one["values"], one["dtype"]) for name, one in kept}


def _family(model, name):
    """The model or its backbone, and its family of a name."""
    target = published.target_of(model)
    known = {f.name: f for f in families.of_model(target)}
    if not known:
        raise UserError(f"no library whose names are known has a {model.name}")
    if name is not None and name not in known:
        raise UserError(
            f"{model.name} has no weights of a {name}{nearest(name, known)}; it has those of a "
            f"{few(known)}"
        )
    return target, known[name or next(iter(known))]


def _prove(path, family, target):
    """Refuse a file that does not hold, bit for bit, what the model does."""
    with files.open_weights(path) as weights:
        arrays = rename.to_ours(family, target, weights).arrays
        lost = [
            name
            for name, variable in rename.by_path(target).items()
            if not np.array_equal(arrays.get(name), np.asarray(variable), equal_nan=True)
        ]
    if lost:
        path.unlink()
        raise UserError(f"{path}: {few(lost)} would not be read back as they are")


def _described(values, info) -> dict:
    """What describes weights, with the classes, statistics and sizes of other data."""
    values = copy.deepcopy(values)
    label, image = info.first("label"), info.first("image")
    facts = {}
    if label:
        facts = {
            "id2label": {str(i): name for i, name in enumerate(label.class_names)},
            "label2id": {name: i for i, name in enumerate(label.class_names)},
            "label_names": list(label.class_names),
            "num_classes": len(label.class_names),
        }
    if image:
        height, width, channels = image.shape
        size = {"height": height, "width": width}
        facts |= {"size": size, "crop_size": size, "image_size": [height, width]}
        facts |= {"input_size": [channels, height, width], "img_size": [height, width]}
        facts |= {"num_channels": channels, "in_chans": channels}
        for key, numbers in (("mean", image.mean), ("std", image.std)):
            facts |= {key: list(numbers), f"image_{key}": list(numbers)} if numbers else {}
    for part in (values, values.get("pretrained_cfg"), values.get("model_args")):
        if isinstance(part, dict):
            part |= {key: value for key, value in facts.items() if key in part}
    return values


def _tells_the_truth(folder, model) -> bool:
    """Whether the model that a folder describes is this one."""
    try:
        found = published.open_published(folder)
    except UserError:
        return False
    config = model.get_config()
    return all(_same(config[k], v) for k, v in found.arguments.items() if k in config)


def _same(one, other) -> bool:
    return np.array_equal(np.asarray(one, object), np.asarray(other, object))
