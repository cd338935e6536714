"""Processes of ours that a process of ours starts."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def environment(**more) -> dict:
    """The environment of such a process: this one's, in which `kerasdl` can be imported.

    Args:
        **more: Variables besides.
    """
    paths = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


class Process:
    """A process whose output is read line by line, and that does not outlive a `with` block.

    It can be started before there is work for it, since its imports take seconds: then it waits for
    `send`, and where none comes it ends as this process does.

    Args:
        command: Its words.
        ended: Called with its number once it has ended, or was killed.
        variables: Its environment; this one's by default.

    Attributes:
        lines: Of its standard output.
    """

    def __init__(self, command, ended=lambda pid: None, variables=None):
        self._ended = ended
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=variables,
        )
        self.pid = self._process.pid
        self.lines = self._process.stdout

    def send(self, request) -> None:
        """Give it a line of work, as JSON; one that is dead does not hear it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def wait(self) -> tuple[int, str]:
        """Tell it that no more work comes, and wait for its end.

        Returns:
            Its exit status, and what it wrote to the standard error.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for _ in self.lines:  # a full pipe would hold it up
            pass
        status = self._process.wait()
        self._log.seek(0)
        return status, self._log.read()

    def kill(self) -> None:
        """End it at once; `wait` tells so."""
        self._process.kill()

    def close(self) -> None:
        """Kill it, if it has not ended."""
        if self._log.closed:
            return
        self.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self.lines.close()
        self._log.close()
        self._ended(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def requests():
    """Yield what `Process.send` gave to this process, until no more comes."""
    yield from map(json.loads, sys.stdin)


@contextlib.contextmanager
def child(command, ended=lambda pid: None, **more):
    """A process of ours that gets nothing but its words.

    Args:
        command: Its words.
        ended: Called with its number once it has ended, or was killed.
        **more: Variables of its environment besides ours.

    Yields:
        Its lines of output; and a function that waits for its end and returns its exit status and
        what it wrote to the standard error.
    """
    with Process(command, ended, environment(**more)) as process:
        yield process.lines, process.wait


def why(status: int, output: str) -> str:
    """Why a process failed: the signal that ended it, else the last line that it wrote, but for
    notes of libraries that end."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = [line for line in output.strip().splitlines() if not line.startswith("INFO: ")]
    return (lines or [f"status {status}"])[-1]


@contextlib.contextmanager
def importing():
    """Within it modules are imported while no garbage is looked for, of which they make none.

    The collector would walk through all of them again and again, and once more as the process ends:
    a second of the three that TensorFlow and Keras take.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def quiet_tensorflow() -> None:
    """Import TensorFlow without its notes on the machine, unless they are requested.

    It writes them to the standard error before its own log level counts. What it writes is shown
    where the import fails.
    """
    with importing():
        if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            import tensorflow  # noqa: F401

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
