"""Load a model of this project from a `.keras` file, a run folder or an exported model.

An archive is untrusted input: only modules below `kerasdl.` are imported on its behalf.
"""

import importlib
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from kerasdl import recipe as recipes
from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.system import files

MEMBER = "kerasdl.json"  # of the .keras archive: what Keras does not keep
OURS = re.compile(r"kerasdl(\.\w+)+")
LAMBDAS = ("Lambda", "__lambda__")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError)  # of archives


@dataclass(frozen=True)
class Metadata:
    """What stands beside the weights: the catalogue's name, the data's facts, the settings.

    Attributes:
        model: Name in the catalogue.
        info: What the data are.
        recipe: The settings of the run.
        fingerprint: Of the data, see `kerasdl.data.fingerprint`; None where it is not kept.
    """

    model: str
    info: DataInfo
    recipe: recipes.Recipe
    fingerprint: dict | None = None

    def to_json(self) -> str:
        """JSON text; `from_json` is the inverse."""
        info = json.loads(self.info.to_json())
        return json.dumps(
            {"model": self.model, "info": info, "recipe": recipes.to_dict(self.recipe)}
        )

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """The metadata of a JSON text."""
        metadata = json.loads(text)
        info = DataInfo.from_dict(metadata["info"])
        return cls(metadata["model"], info, recipes.from_dict(metadata["recipe"]))


def load(path):
    """The Keras model of a `.keras` file, a run folder or an exported model.

    Args:
        path: A `.keras` file; a folder of a training run; a version folder of an exported model,
            or the folder of its versions, of which the newest is taken.

    Returns:
        An uncompiled Keras model in float32.

    Raises:
        ValueError: Nothing of these is there, or the archive names modules outside the project or
            holds a Lambda layer.
    """
    kind, path = find(path)
    if kind == "run":
        from kerasdl.store.runs import open_run

        model, _ = open_run(path).restore()
        return model
    return load_keras(keras_file(kind, path))


def load_info(path) -> Metadata:
    """The metadata that stand beside the weights; takes what `load` takes.

    Of an exported model they stand in its card.

    Raises:
        ValueError: Nothing is there, or a `.keras` file that this project did not write.
    """
    kind, path = find(path)
    if kind == "run":
        from kerasdl.store.runs import open_run

        run = open_run(path)
        return Metadata(run.model_name, run.info, run.recipe, run.data.get("fingerprint"))
    if kind != "keras":
        card = card_of(kind, path)
        try:
            info = DataInfo.from_dict(card["data"])
            fingerprint = {"parts": card["parts"]} if card.get("parts") else None
            return Metadata(card["model"], info, recipes.from_dict(card["recipe"]), fingerprint)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: its card.json cannot be used: {error}") from None
    try:
        text = _member(path, MEMBER)
    except KeyError:
        raise UserError(f"{path}: holds no {MEMBER}, so kerasdl did not write it") from None
    except DAMAGED:
        raise UserError(f"{path}: is no .keras file, or a truncated one") from None
    try:
        return Metadata.from_json(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its {MEMBER} cannot be used: {error}") from None


def check_files(kind: str, path: Path) -> None:
    """Refuse an exported file, or a folder of them, that is no longer as it was exported.

    Args:
        kind, path: Of `find`; of a `.tflite` file that alone is looked at.

    Raises:
        UserError: Names the file whose checksum is not the card's.
    """
    folder = _version(kind, path)
    for name, expected in card_of(kind, path).get("sha256", {}).items():
        file = folder / name
        if kind == "tflite" and file != path or not file.is_file():
            continue
        if files.checksum(file) != expected:
            raise UserError(f"{file}: is not what was exported: its checksum is not the card's")


def card_of(kind: str, path: Path) -> dict:
    """The `card.json` of an exported file that `find` gave.

    Raises:
        UserError: There is none, or one that cannot be read.
    """
    folder = _version(kind, path)
    file = folder / "assets.extra" / "card.json"
    if not file.is_file():
        raise UserError(f"{folder}: holds no assets.extra/card.json")
    try:
        card = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    if not isinstance(card, dict):
        raise UserError(f"{file}: is no card of an exported model")
    return card


def find(path) -> tuple[str, Path]:
    """What lies at `path`: `("keras" | "tflite" | "saved_model" | "run", path)`.

    A folder of versions gives its newest version.
    """
    path = Path(path)
    if path.is_file() and path.suffix in (".keras", ".tflite"):
        return path.suffix[1:], path
    if (path / "saved_model.pb").is_file():
        return "saved_model", path
    if (path / "args.yaml").is_file():
        return "run", path
    if path.is_dir():
        numbers = [int(p.name) for p in path.iterdir() if p.name.isdecimal()]
        if numbers and (path / str(max(numbers)) / "saved_model.pb").is_file():
            return "saved_model", path / str(max(numbers))
    there = "is no" if path.exists() else "is not there; give a"
    raise UserError(f"{path}: {there} .keras or .tflite file, run folder or exported model")


def _version(kind, path):
    """The version folder of an exported file that `find` gave."""
    return path.parent.parent if kind == "tflite" else path  # lies in <version>/tflite/


def keras_file(kind: str, path: Path) -> Path:
    """The `.keras` file of what `find` gave."""
    if kind == "keras":
        return path
    path = _version(kind, path)
    file = path / "assets.extra" / "model.keras"
    if not file.is_file():
        raise UserError(f"{path}: holds no assets.extra/model.keras")
    return file


def load_keras(path):
    """The model of a `.keras` file; imports what it names, if that is this project's."""
    import keras

    modules = modules_of(path)
    for module in sorted(modules):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise UserError(f"{path}: names {module}, which this kerasdl does not have") from None
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # a damaged file fails in ways without number
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: cannot be loaded: {line[0][:200]}") from None


def modules_of(path) -> set[str]:
    """Names of the project's modules that a `.keras` file needs; imports nothing.

    Raises:
        ValueError: It names modules outside the project, holds a Lambda layer, or is no archive.
    """
    try:
        config = json.loads(_member(path, "config.json"))
    except (*DAMAGED, KeyError, json.JSONDecodeError):
        raise UserError(f"{path}: is no .keras file, or a truncated one") from None
    names = set()
    for entry in _objects(config):
        if entry["class_name"] in LAMBDAS:
            raise UserError(f"{path}: holds a Lambda layer, which could run any code")
        names |= _packages(entry)
    foreign = sorted(n for n in names if not OURS.fullmatch(n))
    if foreign:
        raise UserError(f"{path}: names modules outside the project: {', '.join(foreign)}")
    return names


def _objects(config):
    """Every dict below `config` that Keras would take for a serialized object."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _packages(entry) -> set[str]:
    """The modules outside Keras that one serialized object names."""
    names = set()
    # A registered name is "package>name"; a function's stands in its config.
    for key in ("registered_name", "class_name", "config"):
        value = entry.get(key)
        if isinstance(value, str) and ">" in value:
            names.add(value.split(">")[0])
    module = entry.get("module") or "builtins"
    if not isinstance(module, str):
        names.add(str(module))
    elif module != "builtins" and module.split(".")[0] != "keras":
        names.add(module)
    return names


def _member(path, name: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
