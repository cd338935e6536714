"""`export`: export a run's model, or published weights, and print the card."""

import json

from kerasdl.cli.arguments import (
    WHERE,
    command_parser,
    notes_to_stderr,
    parse_command,
    read_pairs,
)
from kerasdl.errors import UsageError
from kerasdl.export import QUANTIZED
from kerasdl.recipe import CHOICES, Recipe
from kerasdl.system.processes import quiet_tensorflow

MAX_BATCH = 1024  # examples


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("export")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="DIR", help="a run's folder")
    which.add_argument("--initial-checkpoint", metavar="WHERE", help=WHERE)
    parser.add_argument(
        "--dataset",
        help="of --initial-checkpoint: data that the files are calibrated with and evaluated on",
    )
    parser.add_argument(
        "--export", nargs="+", default=["savedmodel", "tflite"], choices=CHOICES["export"]
    )
    parser.add_argument(
        "--quantize",
        nargs="+",
        default=QUANTIZED,
        choices=(*QUANTIZED, "int8_full", "none"),
        help=f"TFLite files besides float32 (default: {' '.join(QUANTIZED)})",
    )
    parser.add_argument(
        "--signatures", nargs="+", default=[], metavar="NAME", help="all if not given"
    )
    parser.add_argument(
        "--tflite-batch",
        default="1",
        metavar="N|dynamic",
        help="examples that a TFLite file takes at once; with dynamic any number of them, and of "
        "tokens, which only interpreters run",
    )
    parser.add_argument("--version", default="next", metavar="N|next", help="of the exported model")
    parser.add_argument("--export-dir", default=Recipe.export_dir)
    parser.add_argument("--export-name", help="the model's name if not given")
    parser.add_argument("--weights", choices=("best", "last"), help="the run's setting by default")
    parser.add_argument(
        "--task-kwargs",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the task that are other ones in what is exported, such as steps=20",
    )
    args = parse_command(parser, argv)
    settings = read_pairs("task_kwargs", args.task_kwargs)
    if args.version != "next" and not args.version.isdecimal():
        raise UsageError(f"--version {args.version}: must be a whole number, or next")
    batch = args.tflite_batch
    if batch != "dynamic" and not (batch.isdecimal() and 1 <= int(batch) <= MAX_BATCH):
        raise UsageError(
            f"--tflite-batch {batch}: must be a whole number from 1 to {MAX_BATCH}, or dynamic"
        )
    if args.run and args.dataset:
        raise UsageError("--dataset applies to --initial-checkpoint only: a run has its own")
    if args.initial_checkpoint and args.weights:
        raise UsageError("--weights applies to --run only")
    quiet_tensorflow()
    from kerasdl.export import worker

    with notes_to_stderr():
        card = worker.export_run(
            args.run or args.initial_checkpoint,
            args.export,
            args.export_dir,
            args.export_name,
            args.weights,
            settings,
            is_run=bool(args.run),
            dataset=args.dataset,
            quantized=[kind for kind in args.quantize if kind != "none"],
            signatures=args.signatures,
            batch=None if batch == "dynamic" else int(batch),
            version=None if args.version == "next" else int(args.version),
        )
    print(json.dumps(card, indent=1))
