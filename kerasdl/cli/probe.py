"""`probe`: what a run's features are worth with few labels, beside a random start."""

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command, table
from kerasdl.errors import UsageError
from kerasdl.recipe import label_settings
from kerasdl.system.names import nearest
from kerasdl.system.processes import quiet_tensorflow

METHODS = ("linear", "knn", "finetune", "logistic")


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("probe")
    parser.add_argument(
        "--run", nargs="+", required=True, metavar="DIR", help="folders of finished runs"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["50"],
        metavar="N",
        help="labels in all, as equally many of each class as there are (50); `all`; or N/class",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        default=["linear", "knn"],
        metavar="NAME",
        help="linear (regularization chosen on the validation part), logistic (regularization 1), "
        "knn, finetune (all weights, by `train`); linear and knn if not given",
    )
    parser.add_argument("--seeds", type=int, default=3, help="choices of labels and starts (3)")
    parser.add_argument("--dataset", help="other data with labels than the run's own")
    parser.add_argument("--neighbors", type=int, default=20, help="of knn (20)")
    parser.add_argument("--temperature", type=float, default=0.07, help="of knn (0.07)")
    parser.add_argument("--steps", type=int, default=400, help="of finetune, at least (400)")
    parser.add_argument("--markdown", action="store_true", help="a table for a README")
    args = parse_command(parser, argv)
    for name in args.method:
        if name not in METHODS:
            raise UsageError(
                f"--method {name}: not one of {', '.join(METHODS)}{nearest(name, METHODS)}"
            )
    for name in ("seeds", "neighbors", "steps"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} {getattr(args, name)}: must be at least 1")
    if not args.temperature > 0:
        raise UsageError(f"--temperature {args.temperature}: must be above 0")
    for text in args.labels:
        label_settings(text)  # refused before anything is loaded
    quiet_tensorflow()
    from kerasdl import few_labels
    from kerasdl.report import probes

    how = few_labels.How(
        tuple(args.method),
        tuple(args.labels),
        args.seeds,
        args.dataset,
        args.neighbors,
        args.temperature,
        args.steps,
    )
    with notes_to_stderr():
        rows = [row for folder in args.run for row in few_labels.probe_run(folder, how)]
    print(table(probes.HEADS, probes.cells(rows), args.markdown))
