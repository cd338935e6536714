"""One file per kind of supervision; `get` imports the one that is named."""

import importlib


def get(name: str):
    """The task class of `kerasdl/tasks/<name>.py`: the one that ends in `Task`."""
    module = importlib.import_module(f"kerasdl.tasks.{name}")
    return module.TASK
