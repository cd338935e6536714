"""Checkpoints: one file that is whole or not there, and tells when it is damaged."""

import json
from pathlib import Path

import numpy as np

from kerasdl.errors import CheckpointError, UserError
from kerasdl.system import archives
from kerasdl.system.files import replacing

HEADER = "header"


def write(path: Path, header: dict, arrays: dict) -> None:
    """Write a checkpoint under a temporary name, flush it to the disk, rename it.

    Args:
        path: The file.
        header: JSON values.
        arrays: `{name: array}`.

    Raises:
        CheckpointError: The disk did not take it; what was at `path` before is still there.
    """
    blob = np.frombuffer(json.dumps(header).encode(), np.uint8)
    try:
        with replacing(path, flush=True) as file:
            np.savez(file, **{HEADER: blob}, **arrays)  # a zip: every member has a checksum
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: Path) -> tuple[dict, dict]:
    """The header and the arrays of a checkpoint.

    Raises:
        CheckpointError: The file is truncated, altered or no checkpoint.
    """
    if not Path(path).exists():
        raise CheckpointError(f"there is no {path}")
    try:
        with archives.opened(path) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): archives.read_array(archive, member)
                for member in archive.infolist()
            }
        if HEADER not in arrays:
            raise UserError(f"{path}: has no {HEADER}")
        return archives.parsed(arrays.pop(HEADER).tobytes(), f"{path}: its {HEADER}"), arrays
    except (UserError, MemoryError) as error:
        line = str(error).removeprefix(f"{path}: ")
        raise CheckpointError(f"{path} is damaged: {line}") from error


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return Path(folder) / f"step-{step:09d}.npz"


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder."""
    return sorted(Path(folder).glob("step-*.npz"), reverse=True)


def latest(folder: Path, say=print):
    """The newest undamaged checkpoint as `(header, arrays)`, or None; damaged ones are named."""
    for path in newest_first(folder):
        try:
            return read(path)
        except CheckpointError as error:
            say(f"{error}; falling back to the checkpoint before it")
    return None


STATE = {  # of the loop, and of what type
    "step": int,
    "history": list,
    "sums": list,
    "best": dict | None,
    "waited": int,
    "seconds": int | float,
    "timed": list,
}


def loop_state(header: dict, names=tuple(STATE)) -> dict:
    """Where the loop stood, by the header of a checkpoint.

    Args:
        header: Of `read`.
        names: Of the values that are needed.

    Raises:
        CheckpointError: The header does not say so.
    """
    state = header.get("loop")
    for name in names:
        if not isinstance(state, dict) or not isinstance(state.get(name, ""), STATE[name]):
            raise CheckpointError(f"the newest checkpoint does not say where it stood ({name})")
    return state


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest checkpoints, and what a killed process left half-written."""
    for path in newest_first(folder)[keep:]:
        path.unlink(missing_ok=True)
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


def values(variables: dict) -> dict:
    """`{name: array}` of `{name: variable}`."""
    return {name: np.asarray(v) for name, v in variables.items()}


def restore(variables: dict, arrays: dict) -> None:
    """Assign arrays to variables of the same names.

    Raises:
        CheckpointError: A name is missing, or a shape differs; nothing is assigned.
    """
    check_shapes({name: tuple(v.shape) for name, v in variables.items()}, arrays)
    for name, variable in variables.items():
        variable.assign(arrays[name])


def check_shapes(shapes: dict, arrays: dict) -> None:
    """Refuse arrays that are not of `shapes`, `{name: shape}`; there may be more of them.

    Raises:
        CheckpointError: A name is missing, or a shape differs.
    """
    for name, shape in shapes.items():
        if name not in arrays:
            raise CheckpointError(f"the checkpoint has no {name}")
        if tuple(arrays[name].shape) != shape:
            raise CheckpointError(
                f"{name} has shape {tuple(arrays[name].shape)} in the checkpoint and {shape} here"
            )
