"""Where weights are: a file, a folder with its `config.json`, or a door to published ones.

| where | what |
|---|---|
| `FILE` | a file of weights, of which nothing else is known |
| `FOLDER` | of transformers, diffusers, timm or KerasHub: `config.json`, weights, tokenizer |
| `hf:ORG/REPO[@REVISION]` | such a folder on the Hugging Face Hub |
| `timm:NAME` | that of timm there: `hf:timm/NAME` |
| `hub:PRESET_OR_FOLDER` | a preset of KerasHub: its name, `kaggle://`, `hf://`, or a folder |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.system import archives
from kerasdl.weights import files, hugging_face, keras_hub

CONFIG = "config.json"
HUB = "hub:"
DOORS = (*hugging_face.DOORS, HUB)
LARGEST = 8 * archives.MIB  # bytes of a JSON file beside weights
FOLDERS = ("", *files.FOLDERS)
BESIDE = (*FOLDERS, "scheduler")  # where pipelines of diffusers keep what describes weights


@dataclass
class Place:
    """Where weights and what describes them are.

    Attributes:
        name: As it was given.
        source: What `files.open_weights` opens.
        folder: Where its files are; None of a file alone.
        fetch: Function that fetches the weights, and gives what to open in place of `source`.
    """

    name: str
    source: object
    folder: Path | None = None
    fetch: Callable | None = None

    def read_json(self, name, folders=BESIDE):
        """The object in a file that describes the weights; None without one.

        Raises:
            UserError: It is too large, or holds no JSON object.
        """
        for folder in folders if self.folder else ():
            path = self.folder / folder / name
            if path.is_file():
                return archives.read_json(path, LARGEST)
        return None

    @cached_property
    def config(self):
        """The object in the weights' `config.json`; None without one.

        That of a preset of KerasHub is as `keras_hub.described` makes it.
        """
        config = self.read_json(CONFIG, FOLDERS)
        if config is not None and keras_hub.is_preset(config):
            return keras_hub.described(config, self.read_json, self.name)
        return config

    def weights(self):
        """The arrays by name, as `files.open_weights` opens them."""
        source = self.fetch() if self.fetch else self.source
        if self.config is not None and keras_hub.TASK in self.config:
            return keras_hub.open_weights(source, self.config)
        return files.open_weights(source)


def is_place(where) -> bool:
    """Whether `where` names weights of another library: by a door, a file's name or a folder's."""
    if str(where).startswith(DOORS):
        return True
    path = Path(where)
    suffixes = (*files.READERS,)
    return path.name.lower().endswith(suffixes) or any(
        (path / folder / CONFIG).is_file() for folder in FOLDERS
    )


def locate(where) -> Place:
    """Find weights; what describes them is fetched, where it must be.

    Args:
        where: See the module; or a dict `{name: array}`.

    Raises:
        UserError: There is nothing of that kind, or it cannot be had.
    """
    if isinstance(where, Mapping):
        return Place("weights", where)
    name = str(where)
    if name.startswith(hugging_face.DOORS):
        return _of_repository(name, name)
    if not name.startswith(HUB):
        return _local(where, Path(where).expanduser())
    inner = name.removeprefix(HUB)
    if inner.startswith("hf://"):
        return _of_repository(name, "hf:" + inner.removeprefix("hf://"))
    if (path := Path(inner).expanduser()).is_dir() and inner:
        return _local(where, path)
    folder, fetch = keras_hub.locate(inner)
    return Place(name, folder, folder, fetch)


def _of_repository(name, door) -> Place:
    repository = hugging_face.open_repository(door, name)
    return Place(name, repository.folder, repository.folder, repository.weights)


def _local(where, path) -> Place:
    try:
        if path.is_dir():
            return Place(str(where), path, path)
        if path.is_file():
            return Place(str(where), path)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot be read: {archives.first(error)}") from None
    raise UserError(f"{where}: there is no such file or folder{meant(where)}")


def meant(where) -> str:
    """` (did you mean hf:ORG/REPO?)` of a path that is not there and could be a repository's."""
    name, path = str(where), Path(where)
    fits = name.count("/") == 1 and hugging_face.REPOSITORY.fullmatch(name)
    if fits and path.suffix.lower() not in files.SUFFIXES and not path.parent.exists():
        return f" (did you mean hf:{name}?)"
    return ""
