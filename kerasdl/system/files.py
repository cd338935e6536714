"""Files that are whole or not there, and folders that several processes may want at once."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, flush: bool = False):
    """A binary file that takes the place of `path` once it is written whole, and never before.

    Args:
        path: The file; its folder is made.
        flush: Whether to wait for the disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    with replacing(path) as file:
        file.write(text.encode())


def checksum(path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder) -> dict[str, str]:
    """`{path: checksum}` of all files below a folder, with the paths from there, in order."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


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
