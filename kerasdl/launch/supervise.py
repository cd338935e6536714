"""Run the workers of a training, and run them all again where one dies."""

import contextlib
import itertools
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from kerasdl.errors import UsageError
from kerasdl.launch import guard

PAUSES = (1, 2, 4, 8, 16, 30)  # seconds before the first restart, the second, ...
LONG_RUN = 600  # seconds after which a death counts as the first one again
CRASH_GRACE = 1  # seconds in which the others may end by themselves: they hang in a collective
KILL_SECONDS = 5  # for a killed worker to be gone
BAD_INPUT, STOPPED = 2, 130  # exit statuses of a training
LAST_LINES = 10
_output = threading.Lock()


def say(line: str) -> None:
    """Print a line of the launcher's own."""
    with _output, contextlib.suppress(OSError):
        print(f"launch: {line}", file=sys.stderr, flush=True)


def how(status: int) -> str:
    """What an exit status says."""
    if status != STOPPED and status - 128 in {s.value for s in signal.Signals}:
        return f"was ended by {signal.Signals(status - 128).name}"
    return f"ended with status {status}"


class Worker:
    """A running worker. Its lines go to the standard output, prefixed, and to its log.

    Args:
        start: How it is started.
        log: File that its lines are added to.
        head: A line that stands above them there.
        events: Queue that gets this worker once it has ended.

    Attributes:
        status: Its exit status, 128 + n where signal n ended it; None while it runs.
        answered: Whether it could be started.
        last: Its last lines.
        error: Its last line that begins with `error: `, without that.
    """

    def __init__(self, start, log: Path, head: str, events):
        self.start, self.log, self.events = start, log, events
        self.status = None
        self.answered = False
        self.last, self.error, self.held = deque(maxlen=LAST_LINES), "", ""
        file = log.open("a", encoding="utf-8")
        try:
            file.write(f"--- {head}\n")
            self.process = subprocess.Popen(
                start.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is the launcher's
                env=start.environment,
            )
        except BaseException:
            file.close()
            raise
        self.reader = threading.Thread(target=self._read, args=(file,), daemon=True)
        self.reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self):
        status = self.process.wait()
        self.reader.join(2)  # a process that escaped may hold the pipe for ever
        self.status = 128 - status if status < 0 else status
        self.events.put(self)

    def _read(self, file):
        with self.process.stdout, file:
            for raw in self.process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if not self.answered and line == guard.STARTED:
                    self.answered = True
                    continue
                self.last.append(line)
                with contextlib.suppress(OSError):  # a full disk
                    file.write(line + "\n")
                    file.flush()
                self.release()
                if line.startswith("error: "):
                    self.error = line.removeprefix("error: ")
                    self.held = line  # the launcher may say it, once for all workers
                else:
                    self._print(line)

    def _print(self, line):
        with _output, contextlib.suppress(OSError):  # nobody may be reading
            print(f"[{self.start.rank}] {line}", flush=True)

    def release(self) -> None:
        """Print the line that was held back."""
        line, self.held = self.held, ""
        if line:
            self._print(line)

    def stop(self) -> None:
        """Ask it to save and end."""
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was killed
            self.process.stdin.write(b"stop\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """Let go of the leash: its guard kills it and all that it started."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class Job:
    """Workers that live and die together.

    Args:
        plan: Called with the number of the attempt, from 1; gives a `hosts.Start` per worker.
        log_dir: Folder of the logs, `worker-<rank>.log`.
        max_restarts: Restarts in a row, without a run of ten minutes between them.
        grace: Seconds between the request to stop and the kill.
    """

    def __init__(self, plan, log_dir, max_restarts: int = 3, grace: float = 30):
        self.plan = plan
        self.log_dir = Path(log_dir)
        self.max_restarts = max_restarts
        self.grace = grace
        self.events = queue.SimpleQueue()  # workers that ended, and signals
        self.signal = None  # the one that asked for the end

    def run(self) -> int:
        """Run the workers to their end.

        Returns:
            Exit status: 0, 130 where the training was stopped, 128 + n where signal n told the
            launcher to stop, 1 where workers died too often.

        Raises:
            UsageError: A worker refuses its input, or cannot be started.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        failures = 0
        with self._signals():
            for attempt in itertools.count(1):
                began = time.monotonic()
                first = self._attempt(attempt)
                if self.signal:
                    return 128 + self.signal
                if first is None:
                    return 0
                if first.status == STOPPED:
                    say(f"worker {first.start.rank} was stopped; the same command goes on")
                    return STOPPED
                _refuse(first, attempt)
                failures = 1 if time.monotonic() - began > LONG_RUN else failures + 1
                where = f" on {first.start.host}" if first.start.host else ""
                what = f"worker {first.start.rank}{where} {how(first.status)}"
                if failures > self.max_restarts:
                    return _give_up(what, first, failures)
                pause = PAUSES[min(failures, len(PAUSES)) - 1]
                say(
                    f"{what}; restart {failures} of {self.max_restarts} of all workers in {pause} s"
                )
                self._wait_for_signal(pause)
                if self.signal:
                    return 128 + self.signal

    @contextlib.contextmanager
    def _signals(self):
        """Put signals that ask for the end into the queue."""
        kept = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                kept[number] = signal.signal(number, lambda n, _: self.events.put(n))
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _attempt(self, attempt):
        """Run all workers once; returns the first that failed, or None."""
        workers = []
        head = f"attempt {attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
        try:
            for start in self.plan(attempt):
                log = self.log_dir / f"worker-{start.rank}.log"
                line = f"{head}, worker {start.rank} of {', '.join(start.addresses)}"
                workers.append(Worker(start, log, line, self.events))
            first = self._watch(set(workers))
        finally:
            for worker in workers:
                worker.kill()
        for worker in workers:
            if first is None or first.status != BAD_INPUT:
                worker.release()
        return first

    def _watch(self, left):
        """Wait until all workers have ended; end them where one fails, or where we must stop."""
        first, deadline, kills = None, None, 0
        while left:
            event = self._next(deadline)
            if event is None or (isinstance(event, int) and self.signal):
                if self.signal and not kills:
                    ranks = ", ".join(str(n) for n in sorted(w.start.rank for w in left))
                    say(f"kills what has not stopped: worker {ranks}")
                if kills == 2:
                    say(f"{len(left)} worker(s) cannot be killed")
                    break
                for worker in left:
                    worker.process.kill() if kills else worker.kill()
                kills += 1
                deadline = time.monotonic() + KILL_SECONDS
            elif isinstance(event, int):
                self.signal = event
                if first is None:
                    say(f"{signal.Signals(event).name}: workers have {self.grace:g} s to save")
                    for worker in left:
                        worker.stop()
                    deadline = time.monotonic() + self.grace
            elif event in left:
                left.remove(event)
                if event.status and first is None and not self.signal:
                    first = event
                    seconds = self.grace if event.status == STOPPED else CRASH_GRACE
                    deadline = time.monotonic() + seconds
        return first

    def _next(self, deadline):
        """The next event, or None at the deadline."""
        if deadline is None:
            return self.events.get()
        try:
            return self.events.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return None

    def _wait_for_signal(self, seconds):
        deadline = time.monotonic() + seconds
        while (event := self._next(deadline)) is not None:
            if isinstance(event, int):
                self.signal = event
                return


def _refuse(worker, attempt):
    """Raise where a restart would not help."""
    output = worker.error or (worker.last[-1] if worker.last else how(worker.status))
    if worker.answered and worker.status == BAD_INPUT:
        raise UsageError(output)
    if not worker.answered and attempt == 1:
        where = f"host {worker.start.host}" if worker.start.host else "this machine"
        reached = " cannot be reached" if worker.start.host and worker.status == 255 else ""
        raise UsageError(f"{where}{reached}: {output}")


def _give_up(what, worker, failures) -> int:
    """Show why, and return the exit status."""
    say(f"{what}, after {failures - 1} restarts; the end of {worker.log}:")
    for line in worker.last:
        print(f"    {line}", file=sys.stderr)
    return 1
