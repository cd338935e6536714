"""The launcher: restarts, statuses, signals, hosts, and that it leaves no process behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kerasdl import cli
from kerasdl.cli import launch as command
from kerasdl.launch import hosts, supervise

ROOT = Path(__file__).parents[2]
HEAD = """
import json, os, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
rank, workers = config["task"]["index"], config["cluster"]["worker"]
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
POLITE = """
def stop(*_):
    print("saved"); sys.exit(130)
signal.signal(signal.SIGTERM, stop); print("ready"); time.sleep(60)
"""


def words(script):
    """A worker's command."""
    return [sys.executable, "-S", "-c", HEAD + script]


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """Run `launch` with a script in place of the training; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervise, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(supervise, "CRASH_GRACE", 0.2)

    def start(script, *flags):
        monkeypatch.setattr(command, "worker_command", lambda *_, **__: words(script))
        return cli.main(["launch", *flags, "--log-dir", str(tmp_path / "logs"), "--"])

    return start


def log(rank):
    path = Path("logs", f"worker-{rank}.log")
    return path.read_text() if path.exists() else ""


def processes_with(mark):
    """Processes whose command line holds a text, except those that have ended."""
    result = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in line and state != "Z" and int(path.name) != os.getpid():
                result.append(int(path.name))
    return result


def wait_for(condition, seconds=10):
    """Wait until something holds; returns whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def signal_once(condition, number=signal.SIGTERM, after=0.0):
    """Send this process, which is the launcher, a signal once something holds."""

    def send():
        if wait_for(condition):
            time.sleep(after)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def test_every_worker_gets_its_tf_config_and_its_lines_are_prefixed_and_kept(launch, capfd):
    assert launch("print(json.dumps(config), sys.stdin.read())", "--workers", "2") == 0
    lines = capfd.readouterr().out.splitlines()
    assert sorted(line[:4] for line in lines) == ["[0] ", "[1] "]
    result = {line[1]: json.loads(line[4:]) for line in lines}
    assert [result[i]["task"] for i in "01"] == [{"type": "worker", "index": i} for i in (0, 1)]
    assert result["0"]["cluster"] == result["1"]["cluster"]
    assert len(set(result["0"]["cluster"]["worker"])) == 2
    assert "attempt 1" in log(1) and '"index": 1' in log(1)


def test_a_death_restarts_all_on_fresh_ports(launch, capfd):
    script = """
print("at", *workers)
if rank == 0 and not os.path.exists("died"):
    open("died", "w"); os.kill(os.getpid(), signal.SIGKILL)
if rank == 1 and not os.path.exists("again"):
    open("again", "w"); time.sleep(60)
"""
    assert launch(script, "--workers", "2") == 0
    output = capfd.readouterr().err
    assert "worker 0 was ended by SIGKILL; restart 1 of 3 of all workers in 0.01 s" in output
    for rank in (0, 1):
        ports = [line for line in log(rank).splitlines() if line.startswith("at ")]
        assert len(ports) == len(set(ports)) == 2
    assert "attempt 2" in log(1)


def test_it_gives_up_after_some_restarts_with_longer_pauses_and_shows_the_last_lines(launch, capfd):
    script = "print('first'); [print('line', i) for i in range(9)]; print('why'); sys.exit(7)"
    assert launch(script, "--workers", "1", "--max-restarts", "3") == 1
    output = capfd.readouterr().err
    assert [w for w in output.split() if w.startswith("0.0")] == ["0.01", "0.02", "0.02"]
    last = output[output.index("after 3 restarts") :]
    assert "status 7" in output and "line 0\n" in last and "    why\n" in last
    assert "first" not in last and log(0).count("attempt") == 4


def test_a_long_run_before_the_death_counts_as_progress(launch, monkeypatch):
    monkeypatch.setattr(supervise, "LONG_RUN", 0)
    script = "n = len(os.listdir()); open(f'x{n}', 'w'); sys.exit(1 if n < 4 else 0)"
    assert launch(script, "--workers", "1", "--max-restarts", "1") == 0
    assert log(0).count("attempt") == 4


def test_bad_input_ends_all_without_a_restart_and_is_said_once(launch, capfd):
    script = "print('error: no data set x') if rank else time.sleep(60); sys.exit(2)"
    assert launch(script, "--workers", "2") == 2
    result = capfd.readouterr()
    assert (result.out + result.err).count("no data set x") == 1
    assert result.err.endswith("\nerror: no data set x\n")
    assert log(0).count("attempt") == 1


def test_a_worker_that_stops_by_itself_stops_the_job(launch, capfd):
    assert launch("time.sleep(rank * 0.4); print('saved'); sys.exit(130)", "--workers", "2") == 130
    assert "saved" in log(0) and "saved" in log(1)  # more than the grace after a crash


def test_what_a_worker_leaves_behind_ends_with_it(launch):
    mark = f"left-{os.getpid()}"
    script = f"import subprocess; subprocess.Popen(['sh', '-c', 'sleep 60; : {mark}'])"
    assert launch(script, "--workers", "1") == 0
    assert wait_for(lambda: not processes_with(mark))


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_workers_save(launch, number, status):
    before = signal.getsignal(number)
    signal_once(lambda: "ready" in log(0) and "ready" in log(1), number)
    assert launch(POLITE, "--workers", "2") == status
    assert log(0).count("saved") == log(1).count("saved") == 1
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("signals, grace", [(1, 0.3), (2, 60)])
def test_after_the_grace_or_a_second_signal_it_kills(launch, signals, grace, capfd):
    for number in range(signals):
        signal_once(lambda: "ready" in log(0), after=0.2 * number)
    began = time.monotonic()
    assert launch(STUBBORN, "--workers", "1", "--grace", str(grace)) == 143
    assert time.monotonic() - began < 10
    assert "kills what has not stopped: worker 0" in capfd.readouterr().err


def test_a_signal_ends_the_pause_before_a_restart(launch, monkeypatch):
    monkeypatch.setattr(supervise, "PAUSES", (60,))
    signal_once(lambda: "going" in log(0), after=0.3)
    began = time.monotonic()
    assert launch("print('going'); sys.exit(1)", "--workers", "1") == 143
    assert time.monotonic() - began < 20 and log(0).count("attempt") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("victim", ["launcher", "guards"])
def test_a_kill_of_the_launcher_or_of_its_helpers_leaves_no_process(tmp_path, victim):
    mark = f"mark-{os.getpid()}-{victim}"
    child = f"import subprocess; subprocess.Popen(['sh', '-c', 'sleep 60; : {mark}'])\n"
    script = (child if victim == "launcher" else "") + f"{STUBBORN}  # {mark}"
    code = (
        "import sys; from kerasdl import cli; from kerasdl.cli import launch\n"
        f"launch.worker_command = lambda *_, **__: {words(script)!r}\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    flags = ["launch", "--workers", "2", "--max-restarts", "0", "--log-dir", str(tmp_path), "--"]
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with launcher, launcher.stdout as lines:
        assert all(b"ready" in lines.readline() for _ in range(2))
        assert len(processes_with(mark)) >= 4  # guards and workers
        if victim == "launcher":
            launcher.kill()
        else:
            for path in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    if int(path.read_text().rpartition(")")[2].split()[1]) == launcher.pid:
                        os.kill(int(path.parent.name), signal.SIGKILL)
        assert launcher.wait() == (1 if victim == "guards" else -signal.SIGKILL)
    assert wait_for(lambda: not processes_with(mark)), processes_with(mark)


def test_given_ports_are_used_and_one_in_use_is_named(launch, capfd):
    with socket.socket() as accepted:
        accepted.bind(("127.0.0.1", 0))
        accepted.listen()
        port = accepted.getsockname()[1]
        assert launch("pass", "--workers", "2", "--port", str(port - 1)) == 2
        result = capfd.readouterr()
        assert result.err == f"error: port {port} of this machine: address already in use\n"
    port = hosts.free_ports(1)[0]
    assert launch("print(*workers)", "--workers", "1", "--port", str(port)) == 0
    assert f"[0] 127.0.0.1:{port}\n" in capfd.readouterr().out


def test_hosts_prints_what_to_type_on_each(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    flags = ["--hosts", "a,b:99,u@c", "--grace", "9", "--", "--model-kwargs", "depths=[1, 2]"]
    assert cli.main(["launch", *flags]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[::2] == ["# on a", "# on b", "# on u@c"]
    assert lines[3] == (
        f"cd {Path.cwd()} && python train.py launch --hosts a,b:99,u@c --rank 1 --port 2222 "
        "--grace 9 -- --model-kwargs 'depths=[1, 2]'"
    )
    assert [h.address for h in hosts.parse("a,b:99,u@c,a", 5)] == ["a:5", "b:99", "c:5", "a:6"]


def test_a_rank_runs_one_worker_and_restarts_it(launch, capfd):
    script = "print(rank, *workers); n = len(os.listdir()); open(f'x{n}', 'w'); sys.exit(n < 2)"
    port = hosts.free_ports(1)[0]
    places = f"192.0.2.1,localhost:{port}"
    assert launch(script, "--hosts", places, "--rank", "1", "--start-timeout", "7") == 0
    assert capfd.readouterr().out.count(f"[1] 1 192.0.2.1:2222 localhost:{port}\n") == 2


SSH = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
case $1 in
lost) echo "ssh: connect to host lost port 22: No route to host" >&2; exit 255;;
dropped) [ -e seen ] || { touch seen; sh -c "$2"; exit 255; };;
empty) echo "sh: 1: cd: can't cd to there" >&2; exit 2;;
esac
exec env -i PATH="$PATH" sh -c "$2"
"""


@pytest.fixture
def ssh(monkeypatch, tmp_path):
    """A program called ssh that runs the command here, or fails as ssh does."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_ssh_starts_every_host_and_restarts_after_a_lost_connection(ssh, launch, capfd):
    script = "print(*workers, os.environ['KERASDL_START_TIMEOUT'], os.getcwd())"
    flags = ["--hosts", "u@here,dropped", "--ssh", "--start-timeout", "9"]
    assert launch(script, *flags) == 0
    result = capfd.readouterr()
    assert "worker 1 on dropped ended with status 255; restart 1 of 3" in result.err
    assert result.out.count(f"[1] here:2222 dropped:2222 9 {Path.cwd()}\n") == 2


@pytest.mark.parametrize(
    "host, line",
    [
        ("lost", "host lost cannot be reached: ssh: connect to host lost port 22: No route"),
        ("empty", "host empty: sh: 1: cd: can't cd to there"),
    ],
)
def test_a_host_that_ssh_cannot_start_on_ends_all(ssh, launch, capfd, host, line):
    mark = f"ssh-{os.getpid()}-{host}"
    began = time.monotonic()
    assert launch(f"{STUBBORN}  # {mark}", "--hosts", f"here,{host}", "--ssh") == 2
    assert time.monotonic() - began < 10
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {line}")
    assert wait_for(lambda: not processes_with(mark))


def test_no_ssh_program_is_said(launch, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "")
    assert launch("pass", "--hosts", "a", "--ssh") == 2
    assert capfd.readouterr().err == "error: --ssh: there is no ssh program here\n"


@pytest.mark.parametrize(
    "typed, line",
    [
        ("--workers 0 --", "--workers 0: must be at least 1"),
        ("--workers 2", "the flags of train stand behind --"),
        ("--", "give --workers N for this machine, or --hosts"),
        ("--workers 2 --hosts a --", "give --workers N for this machine, or --hosts"),
        ("--wrokers 2 --", "unknown argument --wrokers (did you mean --workers?)"),
        ("--workers 2 --max-restarts -1 --", "--max-restarts -1: must be at least 0"),
        ("--workers 2 --ssh --", "--ssh applies to --hosts only"),
        ("--workers 2 --rank 0 --", "--rank applies to --hosts only"),
        ("--hosts a,b --rank 2 --", "--rank 2: must be at least 0 and below 2"),
        ("--hosts a,b --rank 1 --ssh --", "--rank: --ssh starts the workers of all ranks"),
        ("--hosts nowhere.invalid --rank 0 --", "host nowhere.invalid cannot be found: "),
        ("--hosts a, --", "'' is no host"),
        ("--hosts a:x --", "'x' is no port"),
        ("--hosts a,a:2222 --", "a:2222 stands there 2 times"),
        ("--workers 2 --port 65535 --", "port 65536: must be at least 1 and at most 65535"),
        ("--workers 2 -- --modle x", "unknown flag --modle (did you mean --model?)"),
        ("--workers 2 -- --model resnt20", "(did you mean resnet20?)"),
        ("--workers 2 -- --epochs 0", "--epochs 0: must be at least 1"),
        ("--workers 2 -- --strategy mirrored", "--strategy mirrored: launch is for multi_worker"),
        ("--workers 3 -- --batch-size 64", "the nearest that work: 63 or 66"),
    ],
)
def test_bad_input_is_one_line_and_status_2(typed, line, capfd):
    assert cli.main(["launch", *typed.split()]) == 2
    result = capfd.readouterr()
    assert line in result.err and result.err.startswith("error: ") and result.err.count("\n") == 1


def test_a_worker_trains_with_the_strategy_and_a_restart_goes_on():
    start = ["train", "--no-resume", "--strategy", "multi_worker_mirrored"]
    assert command.worker_command(["--no-resume"])[3:] == start
    assert command.worker_command(["--no-resume"], again=True)[3:] == [*start, "--resume"]
    own = ["--strategy=multi_worker_mirrored"]
    assert command.worker_command(own)[3:] == ["train", *own]
