"""Load a model of this project from a `.keras` file, a run folder or an exported model.

What stands there is from outside: `kerasdl.store.archive` says how it is read, and what is said of
the data must fit the model.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from kerasdl import recipe as recipes
from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.store import archive, fit, published
from kerasdl.store.archive import MEMBER, load_keras
from kerasdl.system import archives, files
from kerasdl.weights import places


class Unknown(UserError):
    """A `.keras` file that kerasdl did not write: it is not known what its model was trained on."""


@dataclass(frozen=True)
class Metadata:
    """What stands beside the weights: the catalogue's name, the data's facts, the settings.

    Attributes:
        model: Name in the catalogue.
        info: What the data are.
        recipe: The settings of the run.
        fingerprint: Of the data, see `kerasdl.data.fingerprint`; None where it is not kept.
        arguments: What the model was built with.
    """

    model: str
    info: DataInfo
    recipe: recipes.Recipe
    fingerprint: dict | None = None
    arguments: dict = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text; `from_json` is the inverse."""
        info = json.loads(self.info.to_json())
        return json.dumps(
            {"model": self.model, "info": info, "recipe": recipes.to_dict(self.recipe)}
        )

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """The metadata of a JSON text."""
        metadata = archives.parsed(text, MEMBER)
        info = DataInfo.from_dict(metadata["info"])
        return cls(metadata["model"], info, recipes.stored(metadata["recipe"]))


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
    return Found.at(path).model()


def load_info(path) -> Metadata:
    """The metadata that stand beside the weights; takes what `load` takes.

    Of an exported model they stand in its card.

    Raises:
        ValueError: Nothing is there, or a `.keras` file that this project did not write.
    """
    return Found.at(path).metadata()


@dataclass(frozen=True)
class Found:
    """A model that was found, whose place is opened once.

    Attributes:
        name: As it was given.
        kind, path: Of `find`.
        published: Of published weights, what their place says.
    """

    name: str
    kind: str
    path: Path
    published: object = None

    @classmethod
    def at(cls, path) -> "Found":
        """What `load` would load."""
        kind, where = find(path)
        one = published.open_published(where) if kind == "published" else None
        return cls(str(path), kind, where, one)

    def model(self):
        """See `load`."""
        if self.published:
            return self.published.model()
        if self.kind == "run":
            from kerasdl.store.runs import open_run

            model, _ = open_run(self.path).restore()
            return model
        return load_keras(keras_file(self.kind, self.path))

    def metadata(self) -> Metadata:
        """See `load_info`."""
        if one := self.published:
            one.check_known()
            return Metadata(one.row, one.info(), one.recipe(), arguments=one.all_arguments)
        return _metadata(self.kind, self.path)

    def source(self, model) -> dict | None:
        """Where the weights of the model were published; None where they were not."""
        if self.published:
            return self.published.source(model)
        if self.kind == "run":
            from kerasdl.store.runs import open_run

            return open_run(self.path).data.get("source")
        return None


def _metadata(kind, path) -> Metadata:
    if kind == "run":
        from kerasdl.store.runs import open_run

        run = open_run(path)
        run.check_fit()
        fingerprint = run.data.get("fingerprint")
        return Metadata(run.model_name, run.info, run.recipe, fingerprint, run.model_arguments)
    if kind != "keras":
        card = card_of(kind, path)
        try:
            info = DataInfo.from_dict(card["data"])
            fingerprint = {"parts": card["parts"]} if card.get("parts") else None
            fit.check_fingerprint(fingerprint)
            arguments = card["model_arguments"]
            metadata = Metadata(
                card["model"], info, recipes.stored(card["recipe"]), fingerprint, arguments
            )
            fit.check(metadata.model, metadata.info, metadata.recipe, arguments)
            return metadata
        except fit.DAMAGED as error:
            raise UserError(f"{path}: its card.json cannot be used: {fit.said(error)}") from None
    config, text = archive.read(path)
    if text is None:
        raise Unknown(f"{path}: holds no {MEMBER}, so kerasdl did not write it")
    try:
        metadata = Metadata.from_json(text)
        fit.check(metadata.model, metadata.info, metadata.recipe, config["config"])
        return replace(metadata, arguments=config["config"])
    except fit.DAMAGED as error:
        raise UserError(f"{path}: its {MEMBER} cannot be used: {fit.said(error)}") from None


def check_files(kind: str, path: Path, only=("",)) -> None:
    """Refuse an exported file, or a folder of them, that is no longer as it was exported.

    Args:
        kind, path: Of `find`; of a `.tflite` file that alone is looked at.
        only: Beginnings of the names, below the version, of the files that are looked at.

    Raises:
        UserError: Names the file whose checksum is not the card's.
    """
    folder = _version(kind, path)
    checksums = card_of(kind, path).get("sha256", {})
    if not isinstance(checksums, dict):
        raise UserError(f"{folder}: its card.json cannot be used: sha256 is no JSON object")
    for name, expected in checksums.items():
        file = folder / name
        if kind == "tflite" and file != path or not name.startswith(only) or not file.is_file():
            continue
        if files.checksum(file) != expected:
            raise UserError(f"{file}: is not what was exported: its checksum is not the card's")


def card_file(kind: str, path: Path) -> Path:
    """Where the card of an exported file that `find` gave stands, if there is one."""
    return _version(kind, path) / "assets.extra" / "card.json"


def card_of(kind: str, path: Path) -> dict:
    """The `card.json` of an exported file that `find` gave.

    Raises:
        UserError: There is none, or one that cannot be read.
    """
    file = card_file(kind, path)
    if not file.is_file():
        raise UserError(f"{_version(kind, path)}: holds no assets.extra/card.json")
    return archives.read_json(file)


def find(path) -> tuple[str, Path]:
    """What lies at `path`: `("keras" | "tflite" | "saved_model" | "run" | "published", path)`.

    A folder of versions gives its newest version; published weights give what was given.
    """
    if published.is_place(path):
        return "published", path
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
    meant = "" if path.exists() else places.meant(path)
    raise UserError(f"{path}: {there} .keras or .tflite file, run folder or exported model{meant}")


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
    check_files("saved_model", path, ("assets.extra/model.keras",))
    return file
