"""`predict`: ask a run or an exported model."""

import json
import sys

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command, source_arguments
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
    parser.add_argument("--top-k", type=int, help="sample from so many tokens; 0 is all (default)")
    parser.add_argument("--seed", type=int, help="seed of samples (0)")
    parser.add_argument(
        "--long-prompts",
        choices=("slide", "refuse"),
        help="where a text and its new tokens are more than a language model's context, write each "
        "after the last tokens that fit (slide, the default), or refuse",
    )
    parser.add_argument("--num", "--sample", type=int, help="images to sample (16)")
    parser.add_argument("--label", help="class to sample; all in turn if not given")
    parser.add_argument("--guidance", type=float, help="towards the class (2); 1 is none")
    parser.add_argument(
        "--output", metavar="FILE.png", help="where a picture is written, of samples or of answers"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image files, or texts")
    args = parse_command(parser, argv)
    if not args.output and not args.inputs:
        raise UsageError("give image files or texts, or --output FILE.png for samples")
    quiet_tensorflow()
    from kerasdl.inference import predict, sampling, texts

    where = args.run or args.saved_model or args.initial_checkpoint
    settings = {name: getattr(args, name) for name in (*texts.SETTINGS, "long_prompts")}
    drawing = {name: getattr(args, name) for name in sampling.SETTINGS}
    if not args.inputs:
        for name, value in settings.items():
            if value is not None and name not in drawing:
                raise UsageError(f"--{flag(name)} applies to language models only")
        with notes_to_stderr():
            written = sampling.write_images(where, args.output, drawing)
        print(written)
        return
    for name, value in drawing.items():
        if value is not None and name not in settings:
            raise UsageError(
                f"--{flag(name)} applies to models that sample images only, with --output FILE.png"
            )
    with notes_to_stderr():
        results = predict.predict(where, args.inputs, settings, args.output)
    for number, one in enumerate(results, 1):
        if one.get("unknown"):
            missing = " ".join(map(repr, one["unknown"]))
            print(f"note: text {number}: not in the vocabulary: {missing}", file=sys.stderr)
        if "note" in one:
            print(f"note: text {number}: {one['note']}", file=sys.stderr)
    if args.json:
        print(json.dumps(results, indent=1))
        return
    lines = [predict.line(one) for one in results]
    if args.output:
        lines = [args.output] if predict.only_pictures(results) else [*lines, args.output]
    print("\n".join(lines))
