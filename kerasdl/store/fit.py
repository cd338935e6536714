"""Whether a model is one for the data that are said to be its own."""

from kerasdl import catalog, tasks
from kerasdl.columns import PARTS
from kerasdl.errors import UserError
from kerasdl.system import archives

# What damaged descriptions of models and data raise.
DAMAGED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
)


def check(model: str, info, recipe, arguments: dict) -> None:
    """Refuse a model that does not fit its data: other classes, sizes or vocabulary.

    Args:
        model: Its name in the catalogue.
        info: What the data are.
        recipe: The settings of its run.
        arguments: What it was built with.

    Raises:
        UserError: Names the argument; where the others are damaged, any of `DAMAGED` is raised.
    """
    task = tasks.get(catalog.row(model).task)(info, recipe)
    for name, of_data in task.arguments().items():
        if name in arguments and _plain(arguments[name]) != _plain(of_data):
            raise UserError(
                f"the data say {name} {_plain(of_data)}, the model has {_plain(arguments[name])}"
            )


def check_fingerprint(fingerprint) -> None:
    """Refuse what is no fingerprint of a data set; any of `DAMAGED` is raised then.

    Args:
        fingerprint: See `kerasdl.data.fingerprint`; None where there is none.
    """
    if fingerprint is None:
        return
    for part in PARTS:
        digest = fingerprint["parts"][part]["digest"]
        if int(fingerprint["parts"][part]["examples"]) < 0 or not isinstance(digest, str | None):
            raise ValueError(f"the {part} part of its data is described wrongly")
    for files in fingerprint.get("files", {}).values():
        for path, (digest, class_name) in files.items():
            if not isinstance(digest, str) or not isinstance(class_name, str | None):
                raise TypeError(f"file {path} of its data is described wrongly")


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def said(error) -> str:
    """What an error of `DAMAGED` says, in one line."""
    line = archives.first(error)
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"
