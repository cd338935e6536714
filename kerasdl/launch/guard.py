"""Between the launcher and a worker: ends the worker when the launcher is gone.

`python -m kerasdl.launch.guard COMMAND ...` runs the command in a process group of its own and
exits as it does. Its standard input is a leash, which also reaches through ssh: a line on it asks
the command to stop (SIGTERM), and its end, which comes with the death of whoever holds it, kills
the whole group.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

STARTED = "@kerasdl.launch.guard"  # the first line of output: from here on the worker answers
_PR_SET_PDEATHSIG = 1


def wrap(command, python: str = sys.executable) -> list[str]:
    """The command that runs `command` under a guard."""
    return [python, "-m", "kerasdl.launch.guard", *command]


def main(command) -> int:
    """Run a command on the leash; returns its exit status, 128 + n where signal n ended it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The launcher alone decides. A handler, as SIG_IGN would be inherited by the worker.
        signal.signal(number, lambda *_: None)
    print(STARTED, flush=True)
    worker = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
    )
    threading.Thread(target=_follow_leash, args=(worker,), daemon=True).start()
    status = worker.wait()
    _kill_group(worker)  # what it left behind
    if status == 255:
        return 1  # ssh says 255 for its own failures
    return 128 - status if status < 0 else status


def _die_with_parent():
    """What makes a child die with this process, even if this one is killed."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask():
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _follow_leash(worker):
    for _ in sys.stdin.buffer:
        worker.terminate()
    _kill_group(worker)


def _kill_group(worker):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # the thread may be inside a read, which Python would wait for
