"""`bench`: measure this package against its peers, and print a table."""

import argparse
import importlib
import json
from dataclasses import asdict

from kerasdl import cli
from kerasdl.bench import paired

PARTS = ("loop", "recurrent", "attention", "sampling", "remat", "infer")
HEADS = ("XLA", "ours", "peer", "ratio", "range")
NAMES = {"off": "off", "on": "on", "better": "better of both"}


def main(argv, cases=None) -> int:
    """Run the command line of `bench`.

    Args:
        argv: Its arguments, without `bench`.
        cases: `{part: function that yields (name, steps)}`; those of this package if None.

    Returns:
        The exit status 0.

    Raises:
        UsageError: Arguments that cannot be understood.
    """
    args = parse(argv)
    parts = PARTS if args.part == "all" else (args.part,)
    cases = cases or {part: _cases(part) for part in parts}
    found = []
    for part in parts:
        for name, steps in cases[part]():
            found.append(paired.compare(name, steps, args.rounds, least=paired.LEAST))
            if not args.json:
                print(table(found[-1]), flush=True)
    if args.json:
        print(json.dumps([_plain(one) for one in found], indent=1))
    return 0


def parse(argv):
    """The arguments of `bench`.

    Raises:
        UsageError: They cannot be understood.
    """

    def rounds(text):
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
        return int(text)

    parser = cli.command_parser("bench")
    parser.description = "measure against named peers; a ratio above 1 is ours faster"
    parser.add_argument("part", nargs="?", default="all", choices=(*PARTS, "all"))
    parser.add_argument("--rounds", type=rounds, default=paired.ROUNDS, help="measurements of each")
    parser.add_argument("--json", action="store_true", help="as JSON")
    return cli.parse_command(parser, argv)


def table(found) -> str:
    """What `paired.compare` found as text: a row for XLA off, on, and each side's better."""
    rows = [HEADS]
    for key, name in NAMES.items():
        if key not in found:
            continue
        r = found[key]
        times = (f"{1000 * seconds:.1f} ms" for seconds in (r.ours, r.peer))
        rows.append((name, *times, f"{r.median:.2f}", f"{r.low:.2f} to {r.high:.2f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([found["case"], *(f"  {line.rstrip()}" for line in lines)])


def _cases(part):
    return importlib.import_module(f"kerasdl.bench.{part}").cases


def _plain(found):
    return {"case": found["case"], **{key: asdict(found[key]) for key in NAMES if key in found}}
