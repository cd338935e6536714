"""The one reader of `.keras` files, which are from outside: all is checked before Keras reads it.

- The archive holds `MEMBERS` alone, each once and no larger than stated.
- The configuration names classes below `kerasdl.models` and `kerasdl.layers`, and Keras' own but
  those that run code or read files; numbers of our classes are at most `LARGEST`.
- The weights are plain arrays, in one piece and within their file: nothing linked or compressed.
- The model, counted without making it, has as many weights as are stored.
"""

import importlib
import io
import math
import re

from kerasdl.errors import UserError
from kerasdl.system import archives

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBER = "kerasdl.json"  # what Keras does not keep
MEMBERS = {
    CONFIG: archives.MIB,
    "metadata.json": archives.MIB,
    WEIGHTS: None,  # the archive's size is its maximum
    MEMBER: archives.TEXT,
}
OURS = re.compile(r"kerasdl\.(models|layers)(\.\w+)+")
KERAS = re.compile(
    r"builtins|keras|keras\.src\.models\.functional|keras\.(activations|constraints|dtype_policies|"
    r"initializers|layers|losses|metrics|models|optimizers|random|regularizers)(\.\w+)*"
)
REFUSED = {  # classes of Keras
    **dict.fromkeys(("Lambda", "__lambda__"), "could run any code"),
    **dict.fromkeys(("TFSMLayer", "TorchModuleWrapper"), "runs code of another file"),
    **dict.fromkeys(("JaxLayer", "FlaxLayer", "__typespec__"), "could run any code"),
    **dict.fromkeys(("StringLookup", "IntegerLookup", "TextVectorization"), "reads other files"),
}
LARGEST = 2**20  # width, depth, side, vocabulary, ...
LONGEST = 2**12  # values of one argument
PIXELS = 2**27  # numbers in one image
SHOWN = 80  # characters of a name


def read(path):
    """What stands in a `.keras` file.

    Returns:
        Its configuration, and the metadata as a text, or None where kerasdl did not write it.

    Raises:
        UserError: It is damaged, or not as this module says.
    """
    with archives.opened(path, MEMBERS) as archive:
        names = archive.namelist()
        if CONFIG not in names:
            raise UserError(f"{path}: is no .keras file, or a truncated one: has no {CONFIG}")
        config = archives.parsed(archive.read(CONFIG), f"{path}: its {CONFIG}")
        metadata = archive.read(MEMBER).decode() if MEMBER in names else None
    return config, metadata


def load_keras(path):
    """The model of a `.keras` file; imports what it names, if that is this project's.

    Raises:
        UserError: It is damaged, or not as this module says.
    """
    import keras

    from kerasdl.store import weightless

    config, _ = read(path)
    for module in sorted(modules_of(path, config)):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise UserError(f"{path}: names {module}, which this kerasdl does not have") from None
    stored = _stored(path)
    config = {**config, "compile_config": None}
    try:
        shapes = weightless.shapes(
            lambda: keras.saving.deserialize_keras_object(config), len(stored)
        )
        needed, there = (sum(math.prod(s) for _, s in each) for each in (shapes, stored.items()))
        if needed != there:
            raise UserError(f"its model has {needed:,} weights, and {there:,} are stored")
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # a damaged file fails in ways without number
        raise UserError(f"{path}: cannot be loaded: {archives.first(error)}") from None


def modules_of(path, config) -> set[str]:
    """Names of the project's modules that a configuration needs; imports nothing.

    Raises:
        UserError: It names others, a class that Keras must not load, or a size without measure.
    """
    names, foreign = set(), set()
    for entry in _objects(config):
        for key in ("class_name", "registered_name", "config"):
            value = entry.get(key)
            name = value.rpartition(">")[2] if isinstance(value, str) else None
            if name in REFUSED:
                kind = "Lambda" if name == "__lambda__" else name
                raise UserError(f"{path}: holds a {kind} layer, which {REFUSED[name]}")
        module, ours = _module(entry), False
        for name in _packages(entry):
            if OURS.fullmatch(name):
                names.add(name)
                ours = True
            elif name != module or not KERAS.fullmatch(name):
                foreign.add(name)
        foreign |= {f"{module}.{name}" for name in _named(entry) if "." in name}  # of submodules
        if ours:
            _check_sizes(path, entry.get("config"))
    if foreign:
        shown = ", ".join(sorted(name[:SHOWN] for name in foreign)[:5])
        raise UserError(f"{path}: names modules outside the project: {shown}")
    return names


def _objects(config):
    """Every dict in `config` that Keras would take for a serialized object."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _module(entry) -> str:
    return str(entry.get("module") or "builtins")


def _named(entry):
    """The names of a class, or of a function, that one serialized object asks a module for."""
    keys = ("class_name", "config") if entry["class_name"] == "function" else ("class_name",)
    return [str(entry.get(key)).rpartition(">")[2] for key in keys]


def _packages(entry) -> set[str]:
    """The modules that one serialized object names."""
    names = {_module(entry)}
    # A registered name is "package>name"; a function's stands in its config.
    for key in ("registered_name", "class_name", "config"):
        value = entry.get(key)
        if isinstance(value, str) and ">" in value:
            names.add(value.split(">")[0])
    return names


def _check_sizes(path, config):
    """Refuse numbers in the configuration of one of our classes that no model has."""
    left = list(config.items()) if isinstance(config, dict) else []
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            if len(value) > LONGEST:
                raise UserError(f"{path}: {key[:SHOWN]}: {len(value):,} values are too many")
            left += [(key, one) for one in value]
            if key == "image_shape" and _pixels(value) > PIXELS:
                raise UserError(f"{path}: {key} {value}: an image has at most {PIXELS:,} numbers")
        elif isinstance(value, int) and abs(value) > LARGEST and key != "seed":
            raise UserError(f"{path}: {key[:SHOWN]} {value:.3g}: at most {LARGEST:,} is allowed")


def _pixels(shape):
    return math.prod(n for n in shape if isinstance(n, int))


def _stored(path) -> dict:
    """`{path: shape}` of the weights that a `.keras` file holds.

    Raises:
        UserError: They are anything but arrays of numbers, each in one piece.
    """
    from kerasdl.weights import hdf5

    with archives.opened(path, MEMBERS) as archive:
        if WEIGHTS not in archive.namelist():
            raise UserError(f"{path}: holds no {WEIGHTS}")
        content = archive.read(WEIGHTS)  # which compares its checksum
    try:
        with hdf5.opened(io.BytesIO(content)) as file:
            stored = hdf5.arrays_of(file, len(content))
            return {name: d.shape for name, d in stored if not name.startswith("optimizer/")}
    except Exception as error:  # damaged files raise many kinds of errors
        raise UserError(f"{path}: its {WEIGHTS} cannot be read: {archives.first(error)}") from None
