"""`show`: print what a model is, or how to serve an exported one."""

from kerasdl import catalog
from kerasdl.cli.arguments import command_parser, parse_command
from kerasdl.errors import UsageError
from kerasdl.system.processes import quiet_tensorflow


def main(argv):
    """Run the command."""
    parser = command_parser("show")
    parser.add_argument("model", nargs="?", help="its name")
    parser.add_argument("--image-size", type=int, nargs="+", help="side, or height and width")
    parser.add_argument("--serving", metavar="DIR", help="how to serve and ask an exported model")
    parser.add_argument(
        "--effective",
        action="store_true",
        help="measure effective receptive fields too, as the model starts",
    )
    args = parse_command(parser, argv)
    if bool(args.model) == bool(args.serving):
        raise UsageError("give the name of a model, or --serving and the folder of an exported one")
    if args.serving and (args.image_size or args.effective):
        flag = "--image-size" if args.image_size else "--effective"
        raise UsageError(f"{flag} applies to the name of a model, not to --serving")
    if args.serving:
        quiet_tensorflow()
        from kerasdl.export import serving_page

        print(serving_page.page(args.serving))
        return
    catalog.row(args.model)
    quiet_tensorflow()
    from kerasdl.report import architecture

    print(architecture.describe(args.model, args.image_size, args.effective))
