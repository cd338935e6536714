"""`kerasdl launch`: what torchrun is to PyTorch, for TF_CONFIG."""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from kerasdl import catalog, recipe
from kerasdl.cli.arguments import command_parser, parse_command
from kerasdl.cli.train import parse_settings
from kerasdl.errors import UsageError
from kerasdl.launch import hosts, supervise
from kerasdl.system.names import nearest_multiples

STRATEGY = "multi_worker_mirrored"
PORT = 2222
EXAMPLES = """
Two workers on this machine; two machines, each typed by hand as printed, or through ssh:
  train.py launch --workers 2 -- --model resnet20 --batch-size 128
  train.py launch --hosts a,b [--ssh] -- --model resnet20 --batch-size 128

A worker that dies ends all, and all start again from the last checkpoint. Ctrl-C or SIGTERM lets
them save. Exit status: 0 done, 1 died too often, 2 bad input, 130 or 143 stopped.
"""


def main(argv) -> int:
    """Run the command; returns its exit status.

    Raises:
        UsageError: What was typed is wrong, or a worker says so.
    """
    own, dashes, flags = _split(argv)
    args = _parse(own)
    if not dashes:
        raise UsageError("the flags of train stand behind --: launch --workers 2 -- --epochs 3")
    places = hosts.parse(args.hosts, args.port or PORT) if args.hosts is not None else None
    given = check_flags(flags, args.workers or len(places))
    if given is None:
        return 0
    if args.rank is not None and not 0 <= args.rank < len(places):
        raise UsageError(f"--rank {args.rank}: must be at least 0 and below {len(places)}")
    if places and args.rank is None and not args.ssh:
        for rank, place in enumerate(places):
            print(f"# on {place.name}\n{by_hand(args, rank, flags)}")
        return 0
    plan = _plan(args, places, flags, anew=given.get("resume") is False)
    folder = Path(args.log_dir or default_log_dir(given))
    what = f"worker {args.rank} of" if args.rank is not None else "workers:"
    supervise.say(f"{what} {args.workers or len(places)}; logs in {folder}")
    return supervise.Job(plan, folder, args.max_restarts, args.grace).run()


def _split(argv):
    """What stands before the first `--`, whether there is one, and what stands behind it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], at < len(argv), argv[at + 1 :]


def _parse(argv):
    """The launcher's own arguments, checked."""
    parser = command_parser("launch")
    parser.usage = "train.py launch (--workers N | --hosts A,B,...) [flags] -- [flags of train]"
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def add(name, kind, metavar, text, default=None):
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text, default=default)

    add("workers", int, "N", "so many workers on this machine")
    add("hosts", str, "A,B,...", "one worker on each machine; prints what to type where")
    parser.add_argument("--ssh", action="store_true", help="type it there through ssh")
    add("rank", int, "I", "run the worker of host number I, which is this machine")
    add("port", int, "P", f"of the first worker; free ports, or {PORT} with --hosts")
    add("max-restarts", int, "K", "in a row, without ten minutes of work between them (3)", 3)
    add("log-dir", str, "DIR", "of worker-0.log, ...; <output>/launch/<experiment or process>")
    add("grace", float, "SECONDS", "to save after Ctrl-C or SIGTERM, then they are killed (30)", 30)
    add("start-timeout", float, "SECONDS", "a worker waits so long for the others to start")
    args = parse_command(parser, argv)
    if (args.workers is None) == (args.hosts is None):
        raise UsageError("give --workers N for this machine, or --hosts A,B,... for several")
    if args.hosts is None and (args.ssh or args.rank is not None):
        raise UsageError(
            f"--{'ssh' if args.ssh else 'rank'} applies to --hosts only, not to --workers"
        )
    if args.ssh and args.rank is not None:
        raise UsageError("--rank: --ssh starts the workers of all ranks")
    lows = {"workers": 1, "max_restarts": 0, "grace": 0, "start_timeout": 1}
    for name, low in lows.items():
        value = getattr(args, name)
        if value is not None and not low <= value < float("inf"):
            raise UsageError(f"--{recipe.flag(name)} {value}: must be at least {low}")
    if args.port is not None:
        hosts.check_range(args.port)
        hosts.check_range(args.port + (args.workers or 1) - 1)
    return args


def check_flags(flags, workers: int) -> dict | None:
    """The settings of `train` that were given; None after its `--help`.

    Raises:
        UsageError: They are wrong, or not for several workers.
    """
    given = parse_settings(flags)
    if given is None:
        return None
    settings = recipe.from_dict(given)
    catalog.row(settings.model)
    if _has_strategy(flags) and settings.strategy != STRATEGY:
        raise UsageError(f"--strategy {settings.strategy}: launch is for {STRATEGY}; leave it out")
    batch = given.get("batch_size", workers)
    if batch % workers:
        near = " or ".join(nearest_multiples(batch, workers))
        raise UsageError(
            f"--batch-size {batch}: {workers} workers cannot share it evenly; "
            f"the nearest that work: {near}"
        )
    return given


def _has_strategy(flags):
    return any(word.partition("=")[0] == "--strategy" for word in flags)


def default_log_dir(given: dict) -> Path:
    """Next to the runs; the folder's name is the experiment's, or this process's number."""
    output = Path(given.get("output", recipe.Recipe.output))
    return output / "launch" / str(given.get("experiment") or os.getpid())


def by_hand(args, rank: int, flags) -> str:
    """The line that a user types on a host."""
    program = ["python", sys.argv[0]] if sys.argv[0].endswith(".py") else ["kerasdl"]
    words = [*program, "launch", "--hosts", args.hosts, "--rank", str(rank)]
    words += ["--port", str(args.port or PORT)]
    given = {"max_restarts": 3, "log_dir": None, "grace": 30, "start_timeout": None}
    for name, default in given.items():
        value = getattr(args, name)
        if value != default:
            words += [f"--{recipe.flag(name)}", f"{value:g}" if name != "log_dir" else value]
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join([*words, '--', *flags])}"


def worker_command(flags, again: bool = False) -> list[str]:
    """The words that train as one worker.

    Args:
        flags: Of train.
        again: Go on with the run even if the flags say otherwise.
    """
    command = [sys.executable, "-c", "from kerasdl.cli import run; run()", "train", *flags]
    command += [] if _has_strategy(flags) else ["--strategy", STRATEGY]
    return command + (["--resume"] if again else [])


def _plan(args, places, flags, anew):
    """What `supervise.Job` starts at each attempt; the first one may start `anew`."""
    timeout = args.start_timeout

    def words(attempt):
        return worker_command(flags, again=anew and attempt > 1)

    if args.ssh:
        if not shutil.which("ssh"):
            raise UsageError("--ssh: there is no ssh program here")
        ranks = range(len(places))
        return lambda n: [hosts.over_ssh(words(n), places, rank, timeout) for rank in ranks]
    if places:
        hosts.check_names(places)
        hosts.check_free(places[args.rank].port)
        addresses = [place.address for place in places]
        return lambda n: [hosts.here(words(n), addresses, args.rank, timeout)]
    if args.port:
        for port in range(args.port, args.port + args.workers):
            hosts.check_free(port)

    def local(attempt):
        ports = hosts.free_ports(args.workers)
        if args.port:
            ports = range(args.port, args.port + args.workers)
        addresses = [f"{hosts.LOOPBACK}:{port}" for port in ports]
        ranks = range(args.workers)
        return [hosts.here(words(attempt), addresses, rank, timeout) for rank in ranks]

    return local
