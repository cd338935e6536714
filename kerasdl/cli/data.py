"""`data`: what a data set holds, as training would read it, without training."""

import json
from dataclasses import replace

from kerasdl.cli.arguments import command_parser, notes_to_stderr, parse_command, table
from kerasdl.errors import SizesDiffer
from kerasdl.recipe import Recipe, flag
from kerasdl.system.processes import quiet_tensorflow
from kerasdl.system.terminal import LINE, printable

PICTURE = "data.png"
SHOWN = (64, 64)  # pixels of images that have no size in common
SETTINGS = {  # flags of `train` that say how data are read
    "image_size": {"type": int, "nargs": "+", "default": ()},
    "val_split": {"type": float},
    "seed": {"type": int},
    "data_dir": {},
    "tokenizer": {},
    "vocab_size": {"type": int},
    "max_length": {"type": int},
    "columns": {"nargs": "+"},
}


def main(argv) -> None:
    """Run the command."""
    parser = command_parser("data")
    parser.add_argument("--dataset", required=True, help="as of train")
    parser.add_argument("--model", help="read only what this model's task needs")
    for name, arguments in SETTINGS.items():
        arguments = {"default": getattr(Recipe, name, None), **arguments}
        parser.add_argument(f"--{flag(name)}", help="as of train", **arguments)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--picture", metavar="FILE.png", default=PICTURE, help=f"grid of examples ({PICTURE})"
    )
    args = parse_command(parser, argv)
    quiet_tensorflow()
    from kerasdl import catalog, tasks
    from kerasdl.data import examine, sources, summary
    from kerasdl.store import pictures

    pictures.check_output(args.picture, "--picture")
    given = {name: getattr(args, name) for name in ("dataset", *SETTINGS)}
    given |= {name: tuple(given[name]) for name in ("image_size", "columns")}
    recipe = Recipe(**given, skip_bad_files=True)
    task = tasks.get(catalog.row(args.model).task) if args.model else None
    with notes_to_stderr():
        try:
            source = sources.from_recipe(recipe, task)
        except SizesDiffer as error:
            source = sources.from_recipe(replace(recipe, image_size=SHOWN), task)
            line = str(error).partition(": ")[2].partition(";")[0]
            source.notes = (f"{line}: shown at {SHOWN[0]} x {SHOWN[1]}", *source.notes)
        result = {**summary.of_source(source), **examine.examine(source)}
        if source.info.named("image"):
            images, names = examine.example_grid(source, args.seed)
            result["picture"] = str(pictures.write_output(args.picture, images))
            result["rows"] = names
    print(json.dumps(result, indent=1) if args.json else "\n".join(lines(result, source)))


def lines(result, source) -> list[str]:
    """The result as lines to read."""
    sizes = ", ".join(f"{len(split):,} {part}" for part, split in source.parts.items())
    text = [f"{printable(source.name, LINE)}: {sizes}"]
    for name, column in result["columns"].items():
        shape = tuple(column["shape"])
        text.append(f"{printable(name)}: {column['kind']}{f' {shape}' if shape else ''}")
    if counts := result["classes"]:
        rows = [[printable(name), *map(str, of_part.values())] for name, of_part in counts.items()]
        text += ["", table(["class", *source.parts], rows), ""]
    if counts := result["objects"]:
        rows = [[printable(name), *map(str, of_part.values())] for name, of_part in counts.items()]
        text += ["", table(["objects", *source.parts], rows), ""]
    text += [f"note: {printable(note, LINE)}" for note in result["notes"]]
    for key in ("smallest", "largest"):
        if files := result.get(key):
            shown = ", ".join(f"{printable(f['file'], LINE)} ({f['bytes']:,} bytes)" for f in files)
            text.append(f"{key} files: {shown}")
    repeated = result["duplicates"]
    if repeated["count"]:
        text.append(f"{repeated['count']:,} of the examples stand in more than one part:")
        text += [f"  {printable(' = '.join(group), LINE)}" for group in repeated["examples"]]
    else:
        text.append("no example stands in more than one part")
    if constant := result.get("constant"):
        shown = ": " + printable(", ".join(constant["examples"]), LINE) if constant["count"] else ""
        text.append(f"{constant['count']:,} of {result['looked_at']:,} images are constant{shown}")
    if "picture" in result:
        text.append(f"{result['picture']}: random training examples, a row for each class")
    return text
