"""`evaluate`: print the metrics of a run's checkpoint or an exported model."""

import json

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command, source_arguments
from kerasdl.errors import UsageError
from kerasdl.recipe import TTA
from kerasdl.system.processes import quiet_tensorflow


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("evaluate")
    source_arguments(parser)
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument("--dataset", help="the data of the run, where they have been moved")
    parser.add_argument(
        "--tta",
        type=int,
        choices=TTA,
        help="views of an image whose probabilities are averaged; the run's if not given",
    )
    args = parse_command(parser, argv)
    quiet_tensorflow()
    from kerasdl.inference import artifact

    how = args.split, args.tta, args.dataset
    with notes_to_stderr():
        if args.run:
            metrics = {"checkpoint": artifact.evaluate_artifact(args.run, *how)}
        elif args.initial_checkpoint:
            if not args.dataset:
                raise UsageError(
                    "--initial-checkpoint needs --dataset: published weights have none"
                )
            metrics = {"checkpoint": artifact.evaluate_artifact(args.initial_checkpoint, *how)}
        elif args.saved_model.endswith(".tflite"):
            metrics = {"tflite": artifact.evaluate_artifact(args.saved_model, *how)}
        else:
            metrics = artifact.evaluate_all(args.saved_model, *how)
    print(json.dumps(metrics, indent=1))
