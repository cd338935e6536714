"""`predict`: ask a run or an exported model."""

import json
import sys

from kerasdl.cli.arguments import command_parser, parse_command, source_arguments
from kerasdl.errors import UsageError
from kerasdl.recipe import flag
from kerasdl.system.processes import quiet_tensorflow


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("predict")
    source_arguments(parser)
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
    args = parse_command(parser, argv)
    if bool(args.output) == bool(args.inputs):
        raise UsageError("give image files or texts, or --output FILE.png for what a model draws")
    quiet_tensorflow()
    from kerasdl.inference import artifact, sampling, texts
    from kerasdl.store import load

    where = args.run or args.saved_model
    settings = {name: getattr(args, name) for name in texts.SETTINGS}
    requested = {name: getattr(args, name) for name in sampling.SETTINGS}
    if args.output:
        for name, value in settings.items():
            if value is not None and name not in requested:
                raise UsageError(f"--{flag(name)}: is of language models alone")
        print(sampling.write_images(where, args.output, requested))
        return
    for name, value in requested.items():
        if value is not None and name not in settings:
            raise UsageError(f"--{flag(name)}: is of models that draw, with --output FILE.png")
    if load.load_info(where).info.tokenizer:
        result = texts.predict_texts(where, args.inputs, settings)
        lines = [one["output"] for one in result]
        for number, one in enumerate(result, 1):
            if one["unknown"]:
                missing = " ".join(map(repr, one["unknown"]))
                print(f"note: text {number}: not in the vocabulary: {missing}", file=sys.stderr)
    else:
        for name, value in settings.items():
            if value is not None:
                raise UsageError(f"--{flag(name)}: is of language models alone")
        result = artifact.predict_files(where, args.inputs)
        lines = [f"{one['file']}: {one['class_name']} {one['probability']:.4f}" for one in result]
    print(json.dumps(result, indent=1) if args.json else "\n".join(lines))
