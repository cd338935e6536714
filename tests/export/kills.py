"""Kill one export many times: `kills.py FOLDER COUNT PYTHON OUT.json`.

TensorFlow is imported once; every attempt is a fork of this process, and `PYTHON` runs its own
processes. An attempt exports again and again until it is killed, at a moment that is evenly spread
over an export.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from kerasdl.export.exporter import export
from tests.export.examples import make_parts


def attempt(folder, tell):
    """Export until the end of the process; `tell` is a pipe that gets a byte before each one."""
    parts = make_parts(depths=(1,))
    while True:
        os.write(tell, b"b")
        export(parts, (), folder, "net", lambda line: None)


def fork(folder):
    """A child that exports, and the pipe that it tells with."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            attempt(folder, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    return child, ours


def kill(child, ours):
    os.kill(child, signal.SIGKILL)
    os.close(ours)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status


def versions(folder):
    return sorted(int(p.name) for p in (folder / "net").iterdir() if p.name.isdecimal())


def main(folder, count, python, out):
    folder, sys.executable = Path(folder), python
    child, ours = fork(folder)
    assert os.read(ours, 1)
    began = time.monotonic()
    assert os.read(ours, 1)  # the first is whole
    seconds = time.monotonic() - began
    kill(child, ours)
    result = []
    for _ in range(int(count)):
        child, ours = fork(folder)
        assert os.read(ours, 1)
        select.select((), (), (), random.uniform(0, 1.2 * seconds))
        kill(child, ours)
        result.append({"versions": versions(folder), "half": len(list(folder.glob("net/.new-*")))})
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
