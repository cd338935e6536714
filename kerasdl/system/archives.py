"""Texts and archives from outside: sizes are checked before anything is read.

| what | at most |
|---|---|
| a JSON or YAML text | `TEXT` bytes |
| all members of an archive, unpacked | `EXPANSION` times the archive, and `SLACK` bytes more |
| an array of an archive | what its member holds |
"""

import contextlib
import json
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from kerasdl.errors import UserError

MIB = 2**20
TEXT = 8 * MIB
EXPANSION, SLACK = 4, 16 * MIB  # Keras and NumPy store members as they are
# What reading a damaged archive raises; a RuntimeError where a member is encrypted.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OverflowError,
)


@contextlib.contextmanager
def opened(path, maxima=None):
    """An archive whose directory was checked, as a `zipfile.ZipFile`.

    Args:
        path: The file.
        maxima: `{name: maximum bytes unpacked, or None}` of the members that there may be; any may
            be there if None.

    Raises:
        UserError: It cannot be read, is no archive, or one that is damaged within the context.
    """
    try:
        size = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            _check_directory(path, archive.infolist(), size, maxima)
            yield archive
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: is damaged, truncated or no archive: {first(error)}") from None


def _check_directory(path, members, size, maxima):
    names = [member.filename for member in members]
    for name in names:
        place = PurePosixPath(name.replace("\\", "/"))
        if maxima is not None and name not in maxima or place.is_absolute() or ".." in place.parts:
            allowed = f"; there may be {', '.join(maxima)}" if maxima else ""
            raise UserError(f"{path}: holds {name[:80]!r}, which does not belong there{allowed}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: holds {twice[0][:80]!r} twice")
    for member in members:
        maximum = (maxima or {}).get(member.filename)
        if maximum is not None and member.file_size > maximum:
            raise UserError(
                f"{path}: its {member.filename} has {member.file_size:,} bytes; "
                f"{maximum:,} are allowed"
            )
    total, allowed = sum(member.file_size for member in members), EXPANSION * size + SLACK
    if total > allowed:
        raise UserError(
            f"{path}: would unpack {size:,} bytes to {total:,}; {allowed:,} are allowed"
        )


def read_bytes(path, maximum: int) -> bytes:
    """What a file holds.

    Raises:
        UserError: It cannot be read, or is larger than `maximum` bytes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(maximum + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > maximum:
        raise UserError(f"{path}: is larger than the {maximum:,} bytes that are allowed")
    return content


def read_text(path, maximum: int = TEXT) -> str:
    """A file's text.

    Raises:
        UserError: It cannot be read, is larger than `maximum` bytes, or no UTF-8.
    """
    try:
        return read_bytes(path, maximum).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def read_json(path, maximum: int = TEXT) -> dict:
    """The object that a JSON file holds.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    return parsed(read_text(path, maximum), path)


def parsed(text, what) -> dict:
    """The object that a JSON text holds; `what` it is stands in the message.

    Raises:
        UserError: It is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}: cannot be read: {first(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{what}: cannot be read: is no JSON object")
    return value


def read_array(archive, member):
    """An array of a NumPy archive.

    Args:
        archive: A `zipfile.ZipFile`.
        member: A `zipfile.ZipInfo` of it.

    Raises:
        ValueError: It holds objects, or is not as large as its header says; and what reading a
            damaged archive raises.
    """
    import numpy as np

    with archive.open(member) as file:
        shape, dtype = array_header(file)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded; .astype(str) makes texts of them")
        size = dtype.itemsize
        for n in shape:
            size *= n
        if min(shape, default=0) < 0 or size + file.tell() != member.file_size:
            raise ValueError(f"the header's shape {shape} does not fit the file's size")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def array_header(file):
    """`(shape, dtype)` at the start of an array's file; ValueError where there is none."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format is unknown")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def first(error) -> str:
    """The first line of what an error says, or else its kind."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
