"""The folder that a model server polls: versions appear whole or not at all.

Source: https://www.tensorflow.org/tfx/serving/serving_config
"""

import contextlib
import os
import shutil
import socket
from pathlib import Path

from kerasdl.errors import UserError
from kerasdl.system import files
from kerasdl.system.names import check_name
from kerasdl.tasks.bounds import MAX_BATCH

CONFIG, BATCHING = "models.config", "batching.config"
# In a version folder a server reads it under this name. No export writes it: where one example of
# joined requests is refused, all of them are.
MODEL_BATCHING = "batching_params.pbtxt"
EXECUTED = 32  # examples that are run at once; larger requests are split
BATCHES = f"""max_batch_size {{ value: {MAX_BATCH} }}
max_execution_batch_size {{ value: {EXECUTED} }}
enable_large_batch_splitting {{ value: true }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
"""
# A server takes only numbers for versions, so a name that starts so is never served.
PREFIX = ".new-"


def temporary_name(pid: int) -> str:
    """Name of the folder that process `pid` writes before it is renamed to its number."""
    return f"{PREFIX}{socket.gethostname()}-{pid}"


def check_writable(export_dir, name: str) -> None:
    """Refuse a name or a folder that nothing can be exported to; leaves nothing there.

    Raises:
        ValueError: The name is no plain file name, or the folder cannot be made or written.
    """
    parent = _parent(export_dir, name)
    try:
        files.check_makeable(parent)
    except OSError as error:
        raise _unwritable(export_dir, error) from None


def check_version(export_dir, name: str, version: int | None) -> None:
    """Refuse a version that is there already; None is the next one.

    Raises:
        UserError: Names the next one.
    """
    if version is None:
        return
    parent = _parent(export_dir, name)
    if version < 1:
        raise UserError(f"--version {version}: must be next, or a number of at least 1")
    if (parent / str(version)).exists():
        following = next_version(parent)
        raise UserError(f"--version {version}: {parent} has it already; the next is {following}")


@contextlib.contextmanager
def making(export_dir, name: str):
    """A new, empty folder below `export_dir/name`, removed on leaving unless it was published.

    Raises:
        ValueError: As `check_writable`.
    """
    parent = _parent(export_dir, name)
    absent = [p for p in (parent, *parent.parents) if not p.exists()]
    folder = parent / temporary_name(os.getpid())
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent)
            folder.mkdir()
        except OSError as error:
            raise _unwritable(export_dir, error) from None
        yield folder
    finally:
        remove(folder)
        for made in absent:
            with contextlib.suppress(OSError):  # it holds something by now
                made.rmdir()


def _parent(export_dir, name):
    """The folder of a model's versions."""
    check_name("export-name", name)
    return Path(export_dir) / name


def _unwritable(export_dir, error):
    return UserError(f"--export-dir {export_dir}: cannot be written: {error.strerror}")


def remove(folder: Path) -> None:
    """Remove a folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def next_version(parent: Path) -> int:
    """One more than the largest version below `parent`, whole or not."""
    return max((int(p.name) for p in parent.iterdir() if p.name.isdecimal()), default=0) + 1


def publish(folder: Path, version: int) -> Path:
    """Rename a finished folder to its version number.

    Raises:
        FileExistsError: Another export took the number meanwhile.
    """
    target = folder.parent / str(version)
    if target.exists():
        raise FileExistsError(target)
    os.rename(folder, target)
    return target


def write_configs(export_dir) -> Path:
    """List every exported model below `export_dir` for `--model_config_file` of TF Serving.

    The paths are those inside a server that sees `export_dir` as `/models`. Beside it stands what
    `--batching_parameters_file` wants.

    Returns:
        The list.
    """
    export_dir = Path(export_dir)
    names = sorted({p.parent.parent.name for p in export_dir.glob("*/[0-9]*/saved_model.pb")})
    entries = "".join(
        f'  config {{\n    name: "{n}"\n    base_path: "/models/{n}"\n'
        '    model_platform: "tensorflow"\n  }\n'
        for n in names
    )
    texts = {BATCHING: BATCHES, CONFIG: f"model_config_list {{\n{entries}}}\n"}
    for name, text in texts.items():
        temporary = export_dir / f".{name}-{os.getpid()}"
        temporary.write_text(text)
        os.replace(temporary, export_dir / name)
    return export_dir / CONFIG


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes of this host left when they were killed while exporting."""
    mine = temporary_name(0).removesuffix("0")
    for folder in parent.glob(f"{mine}*"):
        pid = folder.name.removeprefix(mine)
        if pid.isdecimal() and (int(pid) == os.getpid() or not _alive(int(pid))):
            remove(folder)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
