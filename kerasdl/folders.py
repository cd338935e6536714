"""Folders that several processes may want at once."""

import tempfile
from pathlib import Path


def check_makeable(folder) -> None:
    """Find out whether a folder can be made and written, and leave nothing there.

    What is made for it has a name of its own: another process may ask the same at this moment.

    Raises:
        OSError: It cannot.
    """
    folder = Path(folder)
    there = next(p for p in (folder, *folder.parents) if p.exists())
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=there) as probe:
        (Path(probe) / folder.relative_to(there)).mkdir(parents=True, exist_ok=True)
