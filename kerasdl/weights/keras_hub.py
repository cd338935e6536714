"""Presets of KerasHub: what its `save_to_preset` writes and `from_preset` reads.

| in the folder | what |
|---|---|
| `config.json` | the backbone: class and arguments |
| `model.weights.h5`, or `model.weights.json` and the files it names | its weights |
| `task.json`, `task.weights.h5` | what is built on it, and the weights of that alone |
| `image_converter.json`, or within `preprocessor.json` | how images are scaled |
| `tokenizer.json`, `assets/tokenizer/` | its vocabulary |

Source: https://keras.io/keras_hub/guides/upload.
"""

import functools
import re
from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.system import archives, network
from kerasdl.system.names import nearest
from kerasdl.weights import arrays, files

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
TASK_CONFIG, PREPROCESSOR = "task.json", "preprocessor.json"
CONVERTER_CONFIG = "image_converter.json"
BESIDE_CONFIG = (TASK_CONFIG, PREPROCESSOR, CONVERTER_CONFIG)
ASSETS = tuple(
    f"assets/tokenizer/{name}"
    for name in ("vocabulary.json", "merges.txt", "vocabulary.txt", "vocabulary.spm")
)
WEIGHTS, INDEX, TASK_WEIGHTS = "model.weights.h5", "model.weights.json", "task.weights.h5"
TASK, CONVERTER = "task", "image_converter"
BESIDE = (TASK, CONVERTER)  # keys of what `described` adds to a backbone's arguments
PACKAGES = ("keras_hub", "keras_nlp")
EARLIER = "_layer_checkpoint_dependencies/"  # for `layers/` in files of Keras 2.13
KAGGLE = re.compile(r"kaggle://[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")
ANSWER = 15  # seconds for the first file


def is_preset(config: dict) -> bool:
    """Whether a `config.json` is that of a preset; `from_preset` tells it so too."""
    return "registered_name" in config


def described(config: dict, read_json, name: str) -> dict:
    """What a preset says of itself, in one object.

    Args:
        config: Its `config.json`.
        read_json: Function of a name that gives the object of another file, or None.
        name: Of the preset, for messages.

    Returns:
        The arguments of the backbone, its `class_name`, and `task` and `image_converter`: the same
        of what is built on it, and how images come to it, or None.

    Raises:
        UserError: A file has another form.
    """
    task = read_json(TASK_CONFIG)
    backbone, task = _arguments(config, name), task and _arguments(task, f"{name}: {TASK_CONFIG}")
    preprocessors = (read_json(PREPROCESSOR), (task or {}).pop("preprocessor", None))
    converters = (read_json(CONVERTER_CONFIG), *map(_converter_of, preprocessors))
    converter = next((c for c in converters if isinstance(c, dict)), None)
    if task:
        task.pop("backbone", None)
    converter = converter and _arguments(converter, f"{name}: {CONVERTER_CONFIG}")
    return {**backbone, TASK: task, CONVERTER: converter}


def _arguments(serialized, name) -> dict:
    """`class_name` and arguments of an object as Keras serializes it."""
    registered, config = serialized.get("registered_name"), serialized.get("config")
    if not isinstance(registered, str) or not isinstance(config, dict):
        raise UserError(f"{name}: is no object of Keras: has no registered_name and config")
    package, _, class_name = registered.rpartition(">")
    return {**config, "class_name": class_name if package in PACKAGES else registered}


def _converter_of(preprocessor):
    config = preprocessor.get("config") if isinstance(preprocessor, dict) else None
    return config.get(CONVERTER) if isinstance(config, dict) else None


def open_weights(source, config: dict):
    """The weights of a preset by name, those of its task behind `task/`.

    Args:
        source: The file of the backbone's weights, or the folder with it.
        config: That of `described`.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: A file is missing or damaged.
    """
    path = Path(source)
    if path.is_dir():
        path = next((p for p in (path / WEIGHTS, path / INDEX) if p.is_file()), None)
        if path is None:
            raise UserError(f"{source}: holds neither {WEIGHTS} nor {INDEX}")
    parts, task = [("", path)], path.parent / TASK_WEIGHTS
    if task.is_file():
        parts.append(("task/", task))
    elif "num_classes" in (config[TASK] or {}):
        raise UserError(f"{path.parent}: {TASK_WEIGHTS} is missing, with the weights of its head")
    opened, table = [], {}

    def close():
        for one in opened:
            one.close()

    try:
        for before, part in parts:
            opened.append(files.open_weights(part))
            for name in opened[-1]:
                inner = name
                if name.startswith(EARLIER):
                    inner = "layers/" + name.removeprefix(EARLIER)
                table[before + inner] = (opened[-1], name)
    except BaseException:
        close()
        raise
    entries = {name: weights.entries[inner] for name, (weights, inner) in table.items()}
    return arrays.Weights(path, entries, lambda n: table[n][0].raw(table[n][1]), close=close)


def locate(name: str):
    """A preset that KerasHub knows, or one of Kaggle; it is fetched into their own caches.

    Args:
        name: A built-in name, or `kaggle://ORG/MODEL/keras/NAME[/VERSION]`.

    Returns:
        Its folder, with all but the weights in it; and the function that fetches these and gives
        their file.

    Raises:
        UserError: There is no such preset, or it cannot be had.
    """
    get = functools.partial(_file, name)
    if "://" in name:
        if not KAGGLE.fullmatch(name):
            raise UserError(
                f"hub:{name}: must be a folder, the name of a preset, hf://ORG/REPO, or "
                "kaggle://ORG/MODEL/keras/NAME"
            )
    elif "/" in name or "\\" in name:
        raise UserError(f"hub:{name}: there is no such folder")
    else:
        import keras_hub

        known = keras_hub.models.Backbone.presets
        if name not in known:
            raise UserError(
                f"hub:{name}: is no folder and no preset of KerasHub{nearest(name, known)}"
            )
    folder = Path(get(CONFIG)).parent
    found = {one: get(one, False) for one in (*BESIDE_CONFIG, TOKENIZER)}
    for one in ASSETS if found[TOKENIZER] else ():
        get(one, False)

    def weights():
        path = get(WEIGHTS, False)
        if path is None:
            path = get(INDEX)
            for shard in sorted({s for each in files.shards_of(path).values() for s in each}):
                get(shard)
        if found[TASK_CONFIG]:
            get(TASK_WEIGHTS, False)
        return path

    return folder, weights


def _file(name, file, needed=True):
    """Where a file of a preset is; None where there is none and it is not `needed`.

    Raises:
        UserError: It is needed and cannot be had.
    """
    from keras_hub.src.utils import preset_utils

    def get():
        return Path(preset_utils.get_file(name, file))

    try:
        return network.within(ANSWER, get) if file == CONFIG else get()
    except FileNotFoundError:
        why = "there is no such preset or file, or its terms on kaggle.com are not accepted"
    except Exception as error:  # of many kinds, those of requests and kagglehub
        if isinstance(error, ConnectionError | TimeoutError) or "Connect" in type(error).__name__:
            why = "there is no connection to Kaggle, and it is not in the cache"
        else:
            why = archives.first(error)
    if needed:
        raise UserError(f"hub:{name}: {file} cannot be had: {why}")
    return None
