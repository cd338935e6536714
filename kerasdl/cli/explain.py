"""`explain`: show what a classifier looks at, a ViT without labels, or a translation."""

import json

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command, source_arguments
from kerasdl.errors import UsageError
from kerasdl.system.processes import quiet_tensorflow

METHODS = ("saliency", "guided", "cam", "gradcam", "occlusion", "attention", "filters", "patches")


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("explain")
    source_arguments(parser)
    parser.add_argument(
        "--method", help=f"one of {', '.join(METHODS)} (gradcam, attention without labels)"
    )
    parser.add_argument("--image", nargs="+", metavar="FILE", default=[], help="image files")
    parser.add_argument("--text", nargs="+", metavar="TEXT", default=[], help="to be translated")
    parser.add_argument("--label", help="class that is explained; the likeliest if not given")
    parser.add_argument("--layer", help="of gradcam and patches; the last that has a map")
    parser.add_argument("--output", metavar="FILE.png", help="where the picture is written")
    parser.add_argument(
        "--pointing-game",
        action="store_true",
        help="how often the test part's objects hold what counts most; needs data with boxes",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    args = parse_command(parser, argv)
    if args.text:
        if args.image or args.label or args.layer or args.pointing_game:
            raise UsageError("--text takes --method attention, --output and --json only")
        if args.method not in (None, "attention"):
            raise UsageError(f"--method {args.method} does not apply to --text; attention does")
    elif args.pointing_game:
        if args.image or args.label or args.output or args.method in ("filters", "patches"):
            raise UsageError("--pointing-game takes --method and --layer only, of maps of images")
    elif args.method in ("filters", "patches"):
        if args.image or args.label:
            raise UsageError(f"--image and --label do not apply to --method {args.method}")
        if not args.output:
            raise UsageError(f"--method {args.method}: give --output FILE.png")
    elif not args.image:
        raise UsageError("give --image and image files, or --text and texts to be translated")
    quiet_tensorflow()
    from kerasdl.inference import explaining

    where, method = args.run or args.saved_model, args.method
    if args.pointing_game:
        with notes_to_stderr():
            result = explaining.pointing_game(where, method or "gradcam", args.layer)
        line = "{method} points at the object in {hits:.3f}, noise in {random:.3f} of {examples}"
        print(json.dumps(result) if args.json else line.format(**result))
        return
    with notes_to_stderr():
        if args.text:
            results = explaining.explain_texts(where, args.text, args.output)
        else:
            results = explaining.explain_files(
                where, args.image, method, args.label, args.layer, args.output
            )
    if args.json:
        print(json.dumps(results, indent=1))
        return
    print("\n".join([*map(explaining.line, results), *([args.output] if args.output else [])]))
