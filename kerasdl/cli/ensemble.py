"""`ensemble`: join trained classifiers to one, evaluate it beside them, and export it."""

import json

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command
from kerasdl.errors import UsageError
from kerasdl.recipe import CHOICES, Recipe
from kerasdl.system.processes import quiet_tensorflow

SHOWN = ("val", "test", "mean", "members")


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("ensemble")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of the ensemble, a run like others"
    )
    parser.add_argument("--dataset", help="the data of the runs, where they have been moved")
    parser.add_argument(
        "--export",
        nargs="+",
        default=list(Recipe.export),
        choices=(*CHOICES["export"], "none"),
        help=f"formats (default: {' '.join(Recipe.export)})",
    )
    parser.add_argument("--export-dir", default=Recipe.export_dir)
    parser.add_argument("--export-name", help="the model's name if not given")
    args = parse_command(parser, argv)
    formats = [name for name in args.export if name != "none"]
    if formats and len(formats) < len(args.export):
        raise UsageError("--export none: must stand alone")
    quiet_tensorflow()
    from kerasdl import app

    with notes_to_stderr():
        metrics = app.ensemble(
            args.runs, args.output, formats, args.export_dir, args.export_name, args.dataset
        )
    print(json.dumps({name: metrics[name] for name in SHOWN if name in metrics}, indent=1))
