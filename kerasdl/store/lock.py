"""A run's folder belongs to one process at a time."""

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from kerasdl.errors import UserError

FILE = ".lock"


@contextlib.contextmanager
def held(folder):
    """Within it, no other process trains in a run's folder; what is killed holds it no longer.

    Args:
        folder: Of the run; is made.

    Raises:
        UserError: Another process holds it; names that.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "another process"
            raise UserError(
                f"{folder} is being trained by {who}; wait for that, or give another --experiment"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        yield
        file.truncate(0)
