"""Processes of ours that a process of ours starts."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path


def environment(**more) -> dict:
    """The environment of such a process: this one's, in which `kerasdl` can be imported.

    Args:
        **more: Variables besides.
    """
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


@contextlib.contextmanager
def child(command, ended=lambda pid: None, **more):
    """A process whose output is read line by line, and that does not outlive the block.

    Args:
        command: Its words.
        ended: Called with its number once it has ended, or was killed.
        **more: Variables of its environment besides ours.

    Yields:
        Its lines of output; and a function that waits for its end and returns its exit status and
        what it wrote to the standard error.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(**more),
        )

        def wait():
            status = process.wait()
            log.seek(0)
            return status, log.read()

        try:
            yield process.stdout, wait
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()
            ended(process.pid)


def why(status: int, output: str) -> str:
    """Why a process failed: the signal that ended it, else the last line that it wrote."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return (output.strip().splitlines() or [f"status {status}"])[-1]


def quiet_tensorflow() -> None:
    """Import TensorFlow without its notes on the machine, unless they are asked for.

    It writes them to the standard error before its own log level counts. What it writes is shown
    where the import fails.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryFile() as notes:
        kept = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
