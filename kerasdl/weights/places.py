"""Where weights are: a file, or a folder with its `config.json`.

| where | what |
|---|---|
| `FILE` | a file of weights, of which nothing else is known |
| `FOLDER` | of transformers, diffusers or timm: `config.json`, weights, tokenizer |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.system import archives
from kerasdl.weights import files

CONFIG = "config.json"
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
    """

    name: str
    source: object
    folder: Path | None = None

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
        """The object in the weights' `config.json`; None without one."""
        return self.read_json(CONFIG, FOLDERS)

    def weights(self):
        """The arrays by name, as `files.open_weights` opens them."""
        return files.open_weights(self.source)


def is_place(where) -> bool:
    """Whether `where` names weights of another library: by a file's name, or a folder's files."""
    path = Path(where)
    suffixes = (*files.READERS,)
    return path.name.lower().endswith(suffixes) or any(
        (path / folder / CONFIG).is_file() for folder in FOLDERS
    )


def locate(where) -> Place:
    """Find weights.

    Args:
        where: A file or a folder; or a dict `{name: array}`.

    Raises:
        UserError: There is nothing of that kind.
    """
    if isinstance(where, Mapping):
        return Place("weights", where)
    path = Path(where).expanduser()
    try:
        if path.is_dir():
            return Place(str(where), path, path)
        if path.is_file():
            return Place(str(where), path)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot be read: {archives.first(error)}") from None
    raise UserError(f"{where}: there is no such file or folder")
