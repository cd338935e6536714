"""Python processes that start at once: forks of one that has imported the framework already.

`import tensorflow` takes seconds. A server, `fork_server.py SOCKET MODULE...`, imports modules,
runs nothing, and then forks a child for every program that asks it to, before TensorFlow has
started a thread: what one of them configures, breaks or is killed of is unknown to the others.
`python(...)` is the path of a program that is called as Python is, lets a child do the work in its
folder, with its environment and its files, and ends as that does; killed, it takes the child along.
"""

import array
import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What servers have imported; "!" stands before what they cannot import.
WITHOUT_KERAS = ("!keras", "!tf_keras", "!kerasdl", "tensorflow", "ai_edge_litert.interpreter")
WITHOUT_PROJECT = ("keras",)
PROJECT = (
    "keras",
    "kerasdl.export.convert",
    "kerasdl.export.exporter",
    "kerasdl.inference.evaluation",
    "kerasdl.training.session",
)
LARGEST = 2**17  # bytes of a request
START = 120  # seconds that the imports may take


class Server:
    """A running server.

    Args:
        modules: What it imports, such as `PROJECT`.
    """

    def __init__(self, modules):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._used = folder / "seconds"
        log = open(folder / "log", "w+")
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, folder / "socket", *modules],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"},
        )
        end = time.monotonic() + START
        while not (folder / "socket").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no server: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        log.close()
        self.python = folder / "python"
        words = [sys.executable, "-S", "-E", __file__, "--ask", folder / "socket"]
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        self.python.chmod(0o755)

    def seconds(self) -> float:
        """Of the processor, that children which have ended took."""
        return sum(map(float, self._used.read_text().split())) if self._used.exists() else 0.0

    def close(self):
        """End it and its children."""
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


_servers = {}


def python(modules=PROJECT) -> str:
    """Path of a Python that has imported some modules already; this process's server runs it."""
    if modules not in _servers:
        _servers[modules] = made = Server(modules)
        atexit.register(made.close)
    return str(_servers[modules].python)


def seconds() -> float:
    """Of the processor, that children of all servers of this process have taken."""
    return sum(server.seconds() for server in _servers.values())


# -- the program that asks ----------------------------------------------------------------------


def ask(path, *words) -> int:
    """Let the server run `words` as Python would; returns, or dies of, what that ended with."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        request = {"words": words, "cwd": os.getcwd(), "environment": dict(os.environ)}
        files = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))
        server.sendmsg([json.dumps(request).encode()], [files])
        child = int(server.recv(64))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(child, number))
        status = int(server.recv(64) or -signal.SIGKILL)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


# -- the server ---------------------------------------------------------------------------------


def become(request, files) -> int:
    """Run what a request asks for, in its place and with its files; returns the exit status."""
    for fd, own in enumerate(files):
        os.dup2(own, fd)
        os.close(own)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    words = list(request["words"])
    while words[0] in ("-P", "-u"):
        del words[0]
    first, *rest = words
    status = 0
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "-c", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        status = end.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


class Children:
    """The requests that run.

    Args:
        used: The file that gets each one's seconds of the processor.
    """

    def __init__(self, used):
        self.used = used
        self.of = {}  # {file descriptor, the process's and the asking one's: (pid, connection)}

    def start(self, listener):
        """Fork a child for a program that asks."""
        connection, _ = listener.accept()
        request, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
        if len(files) != 3:
            connection.close()
            return
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.setpgid(0, 0)
                listener.close()
                connection.close()
                status = become(json.loads(request), files)
            finally:
                os._exit(status)
        for fd in files:
            os.close(fd)
        connection.send(str(pid).encode())
        process = os.pidfd_open(pid)
        self.of[process] = self.of[connection.fileno()] = pid, process, connection

    def end(self, fd):
        """Tell how a child ended; end one whose asking program is gone."""
        pid, process, connection = self.of[fd]
        if fd != process:
            kill(pid)
        _, status, used = os.wait4(pid, 0)
        kill(pid)  # what it has left behind
        with open(self.used, "a") as file:
            file.write(f"{used.ru_utime + used.ru_stime}\n")
        with contextlib.suppress(OSError):
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        del self.of[process], self.of[connection.fileno()]
        os.close(process)
        connection.close()


def kill(group):
    """End a child and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def serve(path, *modules):
    """Serve until the standard input ends."""
    for name in modules:
        if name.startswith("!"):
            sys.modules[name[1:]] = None
        else:
            __import__(name)
    from tensorflow.python.eager import context

    if context.context()._initialized:
        raise RuntimeError("an import has started TensorFlow, which cannot be forked then")
    gc.collect()
    gc.freeze()  # no child looks for garbage in what was imported, which would also copy it,
    gc.set_threshold(20_000, 20, 20)  # nor often in the graphs that it traces
    children = Children(Path(path).with_name("seconds"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{path}.new")
        listener.listen(64)
        os.rename(f"{path}.new", path)
        while True:
            ready, _, _ = select.select([0, listener, *children.of], (), ())
            if 0 in ready:
                break
            for fd in set(ready) - {listener}:
                if fd in children.of:  # else both of its files were ready
                    children.end(fd)
            if listener in ready:
                children.start(listener)
    for pid, _, _ in children.of.values():
        kill(pid)


if __name__ == "__main__":
    if sys.argv[1] == "--ask":
        sys.exit(ask(*sys.argv[2:]))
    serve(*sys.argv[1:])
