"""`export`, `evaluate` and `predict`: what is done with runs and exported models.

No framework is imported before the arguments are understood.
"""

import json
import sys
from pathlib import Path

from kerasdl import cli
from kerasdl.cli import UsageError
from kerasdl.export import QUANTIZED
from kerasdl.recipe import Recipe, flag


def export(argv) -> None:
    """Export a run's model and print its card."""
    parser = cli.command_parser("export")
    parser.add_argument("--run", metavar="DIR", required=True, help="a run's folder")
    parser.add_argument(
        "--export", nargs="+", default=["savedmodel", "tflite"], choices=("savedmodel", "tflite")
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
    args = cli.parse_command(parser, argv)
    settings = cli.read_pairs("task_kwargs", args.task_kwargs)
    if args.version != "next" and not args.version.isdecimal():
        raise UsageError(f"--version {args.version}: must be a whole number, or next")
    cli.quiet_tensorflow()
    from kerasdl.export import worker

    card = worker.export_run(
        Path(args.run),
        args.export,
        args.export_dir,
        args.export_name,
        args.weights,
        settings,
        quantized=[kind for kind in args.quantize if kind != "none"],
        signatures=args.signatures,
        version=None if args.version == "next" else int(args.version),
    )
    print(json.dumps(card, indent=1))


def _source_arguments(parser):
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--run", metavar="DIR", help="a run's folder")
    group.add_argument(
        "--saved-model", metavar="DIR", help="an exported model's folder, or a .tflite file"
    )


def evaluate(argv) -> None:
    """Print a trained or exported model's figures."""
    parser = cli.command_parser("evaluate")
    _source_arguments(parser)
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    args = cli.parse_command(parser, argv)
    cli.quiet_tensorflow()
    from kerasdl.export import artefact

    if args.run:
        figures = {"checkpoint": artefact.evaluate_artefact(args.run, args.split)}
    elif args.saved_model.endswith(".tflite"):
        figures = {"tflite": artefact.evaluate_artefact(args.saved_model, args.split)}
    else:
        figures = artefact.evaluate_all(args.saved_model, args.split)
    print(json.dumps(figures, indent=1))


def predict(argv) -> None:
    """Print the classes of image files, or what follows or translates texts; or draw images."""
    parser = cli.command_parser("predict")
    _source_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--max-new-tokens", type=int, help="of a language model (100)")
    parser.add_argument("--temperature", type=float, help="of a language model (0.8); 0 is greedy")
    parser.add_argument("--top-k", type=int, help="draw from so many tokens; 0 is all (default)")
    parser.add_argument("--seed", type=int, help="of what is drawn (0)")
    parser.add_argument("--num", "--sample", type=int, help="images to draw (16)")
    parser.add_argument("--label", help="class to draw; all in turn if not given")
    parser.add_argument("--guidance", type=float, help="towards the class (2); 1 is none")
    parser.add_argument("--output", metavar="FILE.png", help="where they are drawn")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image files, or texts")
    args = cli.parse_command(parser, argv)
    if bool(args.output) == bool(args.inputs):
        raise UsageError("give image files or texts, or --output FILE.png for what a model draws")
    cli.quiet_tensorflow()
    from kerasdl.export import artefact, drawing, load, texts

    where = args.run or args.saved_model
    settings = {name: getattr(args, name) for name in texts.SETTINGS}
    wishes = {name: getattr(args, name) for name in drawing.SETTINGS}
    if args.output:
        for name, value in settings.items():
            if value is not None and name not in wishes:
                raise UsageError(f"--{flag(name)}: is of language models alone")
        print(drawing.write_images(where, args.output, wishes))
        return
    for name, value in wishes.items():
        if value is not None and name not in settings:
            raise UsageError(f"--{flag(name)}: is of models that draw, with --output FILE.png")
    if load.load_info(where).info.tokenizer:
        found = texts.predict_texts(where, args.inputs, settings)
        lines = [one["output"] for one in found]
        for number, one in enumerate(found, 1):
            if one["unknown"]:
                missing = " ".join(map(repr, one["unknown"]))
                print(f"note: text {number}: not in the vocabulary: {missing}", file=sys.stderr)
    else:
        for name, value in settings.items():
            if value is not None:
                raise UsageError(f"--{flag(name)}: is of language models alone")
        found = artefact.predict_files(where, args.inputs)
        lines = [f"{one['file']}: {one['class_name']} {one['probability']:.4f}" for one in found]
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines))
