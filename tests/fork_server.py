"""Python processes that start at once: forks of one that has imported the framework already.

`import tensorflow` takes seconds. `ForkServer(modules)` starts `python fork_server.py MODULE...`,
which imports them, runs nothing, and then takes one request a line from its standard input: what to
run, and where. Each request gets a child of its own, forked before TensorFlow has started a thread,
so that what one of them configures, breaks or is killed of is unknown to the others. Lines of the
answers: `{"request", "pid"}`, and at its end `{"request", "status", "seconds"}`, of the processor.
"""

import atexit
import contextlib
import itertools
import json
import os
import queue
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the servers have imported; "!" stands before what they cannot import.
WITHOUT_KERAS = ("!keras", "!tf_keras", "!kerasdl", "tensorflow", "ai_edge_litert.interpreter")
WITHOUT_PROJECT = ("keras",)
PROJECT = (
    "keras",
    "kerasdl.export.convert",
    "kerasdl.export.exporter",
    "kerasdl.inference.evaluation",
    "kerasdl.training.session",
)


class Child:
    """A running request.

    Attributes:
        pid: Its process number, also of its group.
        seconds: Of the processor, once it has ended.
    """

    def __init__(self, answers, log):
        self._answers, self._log = answers, log
        self.pid = self._next(60)["pid"]
        self.seconds = None

    def _next(self, seconds):
        answer = self._answers.get(timeout=seconds)
        if answer is None:
            self._log.seek(0)
            raise RuntimeError(f"the fork server has ended: {self._log.read()[-2000:]}")
        return answer

    def wait(self, seconds=300) -> int:
        """Its exit status, negative where a signal ended it; it is killed after so many seconds."""
        try:
            answer = self._next(seconds)
        except queue.Empty:
            self.kill()
            raise subprocess.TimeoutExpired(f"process {self.pid}", seconds) from None
        self.seconds = answer["seconds"]
        return answer["status"]

    def kill(self):
        """End it, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class ForkServer:
    """Starts children that have imported some modules.

    Args:
        modules: Their names, such as `PROJECT`.

    Attributes:
        seconds: Of the processor, of all children that have ended.
    """

    def __init__(self, modules):
        self.seconds = 0.0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting = {}
        self._log = tempfile.TemporaryFile("w+")
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                self.seconds += answer.get("seconds", 0.0)
                answers = self._waiting[answer["request"]]
            answers.put(answer)
        self._process.wait()
        for answers in self._waiting.values():
            answers.put(None)

    def start(self, command, stdout, stderr, cwd=None, **variables) -> Child:
        """Run a script or a module.

        Args:
            command: The words behind `python`: `[path, ...]` or `["-m", module, ...]`.
            stdout, stderr: Paths of the files that its output goes to.
            cwd: Its folder.
            **variables: Of its environment, besides.
        """
        request = {
            "command": [str(word) for word in command],
            "stdout": str(stdout),
            "stderr": str(stderr),
            "cwd": str(cwd or os.getcwd()),
            "variables": variables,
        }
        with self._lock:
            number = next(self._numbers)
            answers = self._waiting[number] = queue.SimpleQueue()
            self._process.stdin.write(json.dumps({**request, "request": number}) + "\n")
            self._process.stdin.flush()
        return Child(answers, self._log)

    def close(self):
        """End it and its children."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_servers = {}


def server(modules) -> ForkServer:
    """The one server of this process that has imported these modules."""
    if modules not in _servers:
        _servers[modules] = made = ForkServer(modules)
        atexit.register(made.close)
    return _servers[modules]


def seconds() -> float:
    """Of the processor, that children of all servers of this process have taken."""
    return sum(made.seconds for made in _servers.values())


# -- the other side -----------------------------------------------------------------------------


def run(request, own):
    """Become what is asked for; returns the exit status.

    Args:
        own: File descriptors of the server, which a child must not hold.
    """
    os.setpgid(0, 0)
    for fd in own:
        os.close(fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), fd)
    os.chdir(request["cwd"])
    os.environ.update(request["variables"])
    first, *words = request["command"]
    status = 0
    try:
        if first == "-m":
            sys.argv = words
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *words]
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


def main(modules):
    """Serve until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what modules print
    for name in modules:
        if name.startswith("!"):
            sys.modules[name[1:]] = None
        else:
            __import__(name)
    if "tensorflow" in sys.modules:
        from tensorflow.python.eager import context

        if context.context()._initialized:
            raise RuntimeError("an import has started TensorFlow, which cannot be forked then")
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    running = {}  # {pidfd: (pid, request)}
    open_input, text = True, b""

    def say(**answer):
        print(json.dumps(answer), file=answers)

    while open_input:
        ready, _, _ = select.select([requests, *running], (), ())
        for pidfd in set(ready) - {requests}:
            pid, number = running.pop(pidfd)
            os.close(pidfd)
            _, status, used = os.wait4(pid, 0)
            status = os.waitstatus_to_exitcode(status)
            say(request=number, status=status, seconds=used.ru_utime + used.ru_stime)
        if requests not in ready:
            continue
        chunk = os.read(requests.fileno(), 65536)
        open_input = bool(chunk)
        *lines, text = (text + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid = os.fork()
            if not pid:
                own = [requests.fileno(), answers.fileno(), *running]
                status = 1
                try:
                    status = run(request, own)
                finally:
                    os._exit(status)
            running[os.pidfd_open(pid)] = pid, request["request"]
            say(request=request["request"], pid=pid)
    for pid, _ in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
