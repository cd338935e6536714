"""Processes of ours: what they are given, what comes back, and that none outlives its starter."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerasdl.system import processes

DOUBLES = """
from kerasdl.system import processes
print("ready", flush=True)
for request in processes.requests():
    print(2 * request, flush=True)
"""


def start(code, ended=lambda pid: None):
    command = [sys.executable, "-c", code]
    return processes.Process(command, ended, processes.environment())


def gone(pid, seconds=20.0):
    """Whether a process ends within some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_requests_are_answered_until_no_more_come():
    ended = []
    with start(DOUBLES, ended.append) as process:
        assert next(process.lines) == "ready\n"
        for number in (3, 4):
            process.send(number)
            assert int(next(process.lines)) == 2 * number
        assert process.wait() == (0, "")
        assert not ended
    assert ended == [process.pid]


def test_output_that_nobody_reads_holds_nothing_up():
    with start("print('x' * 2**20); raise SystemExit('it is over')") as process:
        assert process.wait() == (1, "it is over\n")


def test_none_outlives_the_block():
    with pytest.raises(KeyError), start(DOUBLES) as process:
        raise KeyError
    assert gone(process.pid, 0.0) or not Path(f"/proc/{process.pid}").exists()


def test_a_dead_process_is_said():
    with start(DOUBLES) as process:
        assert next(process.lines) == "ready\n"
        process.kill()
        process.send(1)
        status, output = process.wait()
    assert processes.why(status, output) == "ended by SIGKILL"


STARTS = f"""
import sys, time
from kerasdl.system import processes
command = [sys.executable, "-c", {DOUBLES!r}]
process = processes.Process(command, variables=processes.environment())
next(process.lines)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_what_waits_for_work_ends_with_the_process_that_started_it():
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS],
        stdout=subprocess.PIPE,
        text=True,
        env=processes.environment(),
    )
    with starter:
        pid = int(starter.stdout.readline())
        os.kill(starter.pid, signal.SIGKILL)
        assert gone(pid)


def test_imports_are_no_garbage_and_others_are():
    code = """
import gc
from kerasdl.system import processes
with processes.importing():
    assert not gc.isenabled()
    import json
assert gc.isenabled() and gc.get_freeze_count() > 1000
class Node: pass
import weakref
node = Node()
node.self, seen = node, weakref.ref(node)
del node
gc.collect()
assert seen() is None
"""
    with start(code) as process:
        assert process.wait() == (0, "")
