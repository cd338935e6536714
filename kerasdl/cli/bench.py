"""`bench`: measure this package against its peers; tables on the screen, and in files."""

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from kerasdl.bench import export, paired
from kerasdl.catalog import MODELS
from kerasdl.cli import arguments
from kerasdl.cli.arguments import command_parser, parse_command
from kerasdl.errors import UsageError
from kerasdl.recipe import Recipe
from kerasdl.system.files import check_makeable
from kerasdl.system.names import nearest
from kerasdl.system.processes import quiet_tensorflow

# Part, peer, and the functions below `kerasdl.bench` that yield `(name, steps)`. "keras" is what
# Keras itself does with a model; "kerasdl" is the same done otherwise, "ai_edge_litert" an
# interpreter of TFLite files.
PARTS = {
    "train": {
        "keras": ("loop.cases",),
        "kerasdl": ("remat.cases",),
        "keras.applications": ("networks.cnn_training",),
        "keras_hub": ("networks.gpt2_training",),
        "torch": ("detection.training_cases",),
    },
    "infer": {
        "keras": ("infer.cases", "sampling.cases"),
        "keras.applications": ("networks.cnn_inference",),
        "keras_hub": ("networks.gpt2_writing",),
    },
    "devices": {
        "kerasdl": ("devices.free_sizes",),
        "ai_edge_litert": ("devices.by_runtime",),
    },
    "data": {"keras": ("data.cases",), "torch": ("data.torch_cases",)},
    "layers": {
        "keras.layers": ("recurrent.cases", "attention.cases"),
        "torch": ("torch_layers.cases", "detection.ops_cases"),
    },
}
PEERS = tuple(dict.fromkeys(peer for peers in PARTS.values() for peer in peers))
HEADS = ("XLA", "ours", "peer", "ratio", "range")
NAMES = {"off": "off", "on": "on", "better": "better of both"}


def main(argv, parts=None) -> int:
    """Run the command line of `bench`.

    Args:
        argv: Its arguments, without `bench`.
        parts: As `PARTS`, with functions in place of their names; those of this package if None.

    Returns:
        The exit status: 1 where a model could not be exported, else 0.

    Raises:
        UsageError: Arguments that cannot be understood.
    """
    args = parse(argv)
    parts, everything = parts or PARTS, []
    wanted = parts if args.part == "all" else (args.part,)
    torch = any("torch" in parts[part] for part in wanted if part in parts)
    if torch and (not args.against or "torch" in args.against) and _is_installed("torch"):
        importlib.import_module("torch._dynamo")  # after TensorFlow it aborts the process
    quiet_tensorflow()
    if args.part == "export":
        return _export(args)
    if args.part == "browser":
        _imported("devices.in_browser")(args.export_dir)
        return 0
    for part in wanted:
        result, tables = [], []
        for name, steps in _cases(parts[part], args.against):
            one = paired.compare(name, steps, args.rounds, minimum=paired.MIN_SECONDS)
            result.append(_plain(one))
            tables.append(table(one))
            _write(args.output, part, result, "\n".join(tables))
            if not args.json:
                print(tables[-1], flush=True)
        everything += result
    if args.json:
        print(json.dumps(everything, indent=1))
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

    parser = command_parser("bench")
    parser.description = "measure against named peers; a ratio above 1 is ours faster"
    parser.add_argument(
        "part",
        nargs="?",
        default="all",
        choices=(*PARTS, "export", "browser", "all"),
        help="all but export, and browser, which measures exported models",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=(),
        metavar="NAME",
        help="of export; all, which takes hours, if not given",
    )
    parser.add_argument(
        "--export-dir", default=Recipe.export_dir, help="of browser: the exported models"
    )
    parser.add_argument("--against", nargs="+", choices=PEERS, help="these peers alone")
    parser.add_argument("--rounds", type=rounds, default=paired.ROUNDS, help="measurements of each")
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument(
        "--output", metavar="DIR", default="runs/bench", help="for PART.json and PART.txt"
    )
    args = parse_command(parser, argv)
    if args.models and args.part != "export":
        raise UsageError(f"--models {args.models[0]}: applies to bench export only")
    for name in args.models:
        if name not in MODELS:
            raise UsageError(f"unknown model {name!r}{nearest(name, MODELS)}")
    for peer in args.against or ():
        having = [part for part, peers in PARTS.items() if peer in peers]
        if args.part not in (*having, "all"):
            raise UsageError(
                f"--against {peer}: is a peer of {', '.join(having)}, not of {args.part}"
            )
        if peer == "torch" and args.part in ("data", "train") and not _is_installed("torchvision"):
            raise UsageError(
                f"--against torch: bench {args.part} needs torchvision, which is not installed"
            )
        if not _is_installed(peer):
            raise UsageError(f"--against {peer}: is not installed")
    try:
        check_makeable(args.output)
    except OSError as error:
        raise UsageError(f"--output {args.output}: cannot be made: {error.strerror}") from error
    return args


def table(result) -> str:
    """What `paired.compare` returns, as text: a row for XLA off, on, and each side's better."""
    rows = []
    for key, name in NAMES.items():
        if key in result:
            r = result[key]
            times = (f"{1000 * seconds:.1f} ms" for seconds in (r.ours, r.peer))
            rows.append((name, *times, f"{r.median:.2f}", f"{r.low:.2f} to {r.high:.2f}"))
    memory = result["memory"]
    if None not in memory.values():
        rows.append(("memory", *(f"{memory[side]:.1f} MiB" for side in paired.SIDES), "", ""))
    lines = arguments.table(HEADS, rows).splitlines()
    return "\n".join([result["case"], *(f"  {line}" for line in lines)])


def _cases(peers, against):
    for peer, functions in peers.items():
        if (not against or peer in against) and _is_installed(peer):
            for function in functions:
                yield from (function if callable(function) else _imported(function))()


def _imported(name):
    module, function = name.split(".")
    return getattr(importlib.import_module(f"kerasdl.bench.{module}"), function)


def _is_installed(peer):
    return find_spec(peer.split(".")[0]) is not None


def _export(args):
    wanted, known = args.models or MODELS, _known(Path(args.output) / "export.json")
    with tempfile.TemporaryDirectory() as work:
        program = _replay(work)
        for name in wanted:
            known[name] = export.measure(name, program)
            result = [known[n] for n in MODELS if n in known]  # with those measured earlier
            cells = [row for one in result for row in export.rows(one)]
            _write(args.output, "export", result, arguments.table(export.HEADS, cells))
            if not args.json:
                print(arguments.table(export.HEADS, export.rows(known[name])), flush=True)
    if args.json:
        print(json.dumps([known[name] for name in wanted], indent=1))
    return int(any("error" in known[name] for name in wanted))


def _known(file):
    """`{name: what was result}` of models that were measured earlier."""
    try:
        return {one["name"]: one for one in json.loads(file.read_text())} if file.exists() else {}
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{file}: holds something else than `bench export` wrote") from None


def _replay(work):
    """The program in C++; None, which is said, where there is no compiler."""
    if shutil.which("g++"):
        from kerasdl.bench import native

        return native.compile_replay(work)
    print("note: not measured in C++: there is no g++", file=sys.stderr)
    return None


def _write(folder, part, result, text):
    from kerasdl.system.files import write_text

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{part}.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / f"{part}.txt", text + "\n")


def _plain(result):
    ratios = {key: asdict(result[key]) for key in NAMES if key in result}
    return {"case": result["case"], **ratios, "memory": result["memory"]}
