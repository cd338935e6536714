"""Processes of ours that a process of ours starts."""

import os
from pathlib import Path


def environment(**more) -> dict:
    """The environment of such a process: this one's, in which `kerasdl` can be imported.

    Args:
        **more: Variables besides.
    """
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}
