"""`show`: print what a model is, or how to serve an exported one."""

import functools

from kerasdl import catalog
from kerasdl.cli.arguments import command_parser, parse_command, table
from kerasdl.errors import UsageError, UserError
from kerasdl.export import KINDS
from kerasdl.recipe import flag
from kerasdl.system.names import nearest
from kerasdl.system.processes import quiet_tensorflow

FLAGS = {  # of what each one is
    "image_size": "model",
    "effective": "model",
    "runtime": "web",
    "file": "web",
    "serve": "web",
}


def main(argv):
    """Run the command."""
    parser = command_parser("show")
    parser.add_argument("model", nargs="?", help="its name")
    parser.add_argument("--image-size", type=int, nargs="+", help="side, or height and width")
    parser.add_argument("--run", metavar="DIR", help="what a finished run found")
    parser.add_argument("--serving", metavar="DIR", help="how to serve and ask an exported model")
    parser.add_argument(
        "--effective",
        action="store_true",
        help="measure effective receptive fields too, as the model starts",
    )
    parser.add_argument(
        "--web", metavar="DIR", help="write a page that runs an exported model in a browser"
    )
    parser.add_argument(
        "--runtime",
        metavar="FOLDER",
        help="of --web: node_modules folder with LiteRT.js, copied beside the page; or cdn",
    )
    parser.add_argument("--file", metavar="KIND", help=f"of --web: {', '.join(KINDS)}")
    parser.add_argument(
        "--serve", action="store_true", help="of --web: serve the page on 127.0.0.1 until Ctrl-C"
    )
    args = parse_command(parser, argv)
    if sum(map(bool, (args.model, args.run, args.serving, args.web))) != 1:
        raise UsageError(
            "give the name of a model, --run and a run's folder, or --serving or --web and the "
            "folder of an exported one"
        )
    _check_flags(args)
    if args.web:
        return _web(args)
    if args.run:
        quiet_tensorflow()
        _run(args.run)
        return
    if args.serving:
        quiet_tensorflow()
        from kerasdl.export import serving_page

        print(serving_page.page(args.serving))
        return
    catalog.row(args.model)
    quiet_tensorflow()
    from kerasdl.report import architecture

    print(architecture.describe(args.model, args.image_size, args.effective))


def _run(folder):
    """Print a run's metrics, warnings, and what its features are worth with few labels."""
    from kerasdl.report import probes
    from kerasdl.store import runs

    run = runs.open_run(folder)
    metrics = run.metrics()
    if not metrics:
        raise UserError(f"--run {folder}: is not finished: it has no metrics yet")
    print(f"{run.model_name} on {run.recipe.dataset}, seed {run.recipe.seed}")
    for name, value in metrics["test"].items():
        print(f"test {name} {value:.4f}")
    for warning in metrics.get("warnings", ()):
        print(warning)
    if found := metrics.get("probe"):
        print(table(probes.HEADS, probes.cells(found)))


def _check_flags(args):
    for name, applies in FLAGS.items():
        if getattr(args, name) and not getattr(args, applies):
            what = "the name of a model" if applies == "model" else f"--{applies}"
            given = (n for n in ("run", "serving", "web") if getattr(args, n))
            other = next((f"--{n}" for n in given), "the name of a model")
            raise UsageError(f"--{flag(name)} applies to {what}, not to {other}")
    if args.file and args.file not in KINDS:
        near = nearest(args.file, KINDS)
        raise UsageError(f"--file {args.file}: not one of {', '.join(KINDS)}{near}")


def _web(args):
    """Write the page, and serve it."""
    quiet_tensorflow()
    from kerasdl.export import web_page

    page, runtime = web_page.write(args.web, args.file or KINDS[0], args.runtime)
    print(f"{page}\n{runtime}", flush=True)
    if args.serve:
        web_page.serve(page.parent, functools.partial(print, flush=True))
