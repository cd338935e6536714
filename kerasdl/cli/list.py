"""`list`: the models, the weights that they take, results of exported ones; into a README too."""

import json
from pathlib import Path

from kerasdl import catalog
from kerasdl.cli.arguments import command_parser, parse_command, table
from kerasdl.errors import UsageError, UserError
from kerasdl.recipe import Recipe
from kerasdl.system.files import write_text
from kerasdl.system.names import nearest
from kerasdl.system.processes import quiet_tensorflow

README = "README.md"
MODELS = "<!-- python train.py list --update-readme -->"
WEIGHTS = "<!-- python train.py list --weights --update-readme -->"
RESULTS = "<!-- python train.py list --results --update-readme -->"
END = "<!-- end -->"


def main(argv):
    """Run the command."""
    parser = command_parser("list")
    parser.add_argument("text", nargs="?", help="only models with this in their name or paper")
    parser.add_argument("--task", help="only models of this task")
    parser.add_argument("--markdown", action="store_true", help="as tables for a README")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--weights", action="store_true", help="whose published weights they take")
    parser.add_argument("--results", action="store_true", help="what exported models say")
    parser.add_argument("--export-dir", default=Recipe.export_dir, help="where those are")
    parser.add_argument(
        "--update-readme",
        nargs="?",
        const=README,
        metavar="FILE",
        help=f"write the tables between their markers in a file ({README})",
    )
    args = parse_command(parser, argv)
    tasks = sorted({row.task for row in catalog.ROWS})
    if args.task and args.task not in tasks:
        raise UsageError(
            f"--task {args.task}: not one of {', '.join(tasks)}{nearest(args.task, tasks)}"
        )
    if args.update_readme is not None and (args.text or args.task or args.json):
        raise UsageError(
            "--update-readme writes all models: give no text, --task or --json with it"
        )
    if args.results and args.weights:
        raise UsageError("--results and --weights are two tables: give one of them")
    rows = [catalog.MODELS[n] for n in catalog.list_models(args.task, args.text)]
    show, marker = _models, MODELS
    if args.results or args.weights:
        show, marker = (_results, RESULTS) if args.results else (_weights, WEIGHTS)
    if args.update_readme is None:
        print(show(args, rows))
        return
    args.markdown = True
    update(args.update_readme, marker, show(args, rows))
    print(args.update_readme)


def _models(args, rows) -> str:
    if args.json:
        return json.dumps([vars(row) for row in rows], indent=1)
    if args.markdown:
        return markdown(rows)
    heads = ("model", "task", "parameters", "paper", "limits")
    cells = [(r.name, r.task, f"{r.parameters:,}", r.paper, r.limits) for r in rows]
    return table(heads, cells)


def _weights(args, rows) -> str:
    quiet_tensorflow()
    from kerasdl.store.taken import taken

    found = {row.name: taken(row.name) for row in rows}
    if args.json:
        return json.dumps(found, indent=1)
    mark, lines = "`" if args.markdown else "", {}  # by paper and families: models that take both
    for row in rows:
        words = ", ".join(
            family + "".join(f" with {mark}{k}={v}{mark}" for k, v in arguments.items())
            for family, arguments in found[row.name].items()
        )
        if words:
            lines.setdefault((row.link, words), []).append(f"{mark}{row.name}{mark}")
    cells = [(", ".join(names), words) for (_, words), names in lines.items()]
    return table(("models", "weights of"), cells, args.markdown)


def _results(args, rows) -> str:
    from kerasdl.export import results

    names = [row.name for row in rows]
    cards = [c for c in results.cards(args.export_dir) if c["model"] in names]
    if args.json:
        return json.dumps(cards, indent=1)
    if not args.markdown:
        return table(results.HEADS, [results.row(card) for card in cards])
    chapters = {}
    for chapter, papers in catalog.CHAPTERS.items():
        inside = {name for paper in papers for name in paper.rows}
        chapters[chapter] = [results.row(card) for card in cards if card["model"] in inside]
    return "\n\n".join(
        fold(chapter, count(len(cells), "model"), table(results.HEADS, cells, True))
        for chapter, cells in chapters.items()
        if cells
    )


def markdown(rows) -> str:
    """Models as Markdown: a folded table for each chapter, a line for each paper.

    Args:
        rows: Of the catalogue.
    """
    chapters = []
    for chapter, papers in catalog.CHAPTERS.items():
        inside = {name for paper in papers for name in paper.rows}
        lines = {}  # by link: one paper may have models of several tasks
        for row in rows:
            if row.name in inside:
                lines.setdefault(row.link, []).append(row)
        if lines:
            total = count(sum(map(len, lines.values())), "model")
            heads = ("paper", "task", "models and parameters", "limits")
            cells = [_paper(models) for models in lines.values()]
            counts = f"{total}, {count(len(lines), 'paper')}"
            chapters.append(fold(chapter, counts, table(heads, cells, True), not chapters))
    return "\n\n".join(chapters)


def _paper(rows) -> tuple:
    """The cells of one paper."""
    limits = {}
    for row in rows:
        limits.setdefault(row.limits, []).append(row.name)
    limits = (
        text if len(names) == len(rows) else f"{', '.join(f'`{n}`' for n in names)}: {text}"
        for text, names in limits.items()
        if text
    )
    return (
        f"[{rows[0].paper}]({rows[0].link})",
        ", ".join(dict.fromkeys(row.task for row in rows)),
        ", ".join(f"`{row.name}` {compact(row.parameters)}" for row in rows),
        "; ".join(limits),
    )


def fold(chapter, counts, text, is_open=False) -> str:
    """A part of a page that a click opens.

    Args:
        chapter: What it is.
        counts: How much is in it.
        text: Markdown.
        is_open: Whether it is open before any click.
    """
    start = "<details open>" if is_open else "<details>"
    return f"{start}<summary>{chapter} ({counts})</summary>\n\n{text}\n\n</details>"


def count(n, what) -> str:
    """`1 paper`, `2 papers`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def compact(n) -> str:
    """Three digits of a number, and its thousands, millions or billions: 269,722 is 270K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= 0.9995 * size:  # 999,500 would be 1000K
            return f"{n / size:.3g}{unit}"
    return str(n)


def update(path, marker, text) -> None:
    """Replace what stands between a marker and the next `END` of a file.

    Args:
        path: Of the file; it is written under a temporary name, then renamed.
        marker: `MODELS` or `RESULTS`, a line of the file.
        text: What stands between them from now on.

    Raises:
        UserError: The file, the marker or the end is missing, or the marker stands there twice.
    """
    try:
        page = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"--update-readme {path}: is not UTF-8") from None
    except OSError as error:
        raise UserError(f"--update-readme {path}: {error.strerror}") from None
    before, *rest = page.split(f"{marker}\n")
    old, end, after = rest[0].partition(END) if len(rest) == 1 else ("", "", "")
    if not end or "<!--" in old:  # another table's end would take what lies between with it
        raise UserError(
            f"--update-readme {path}: must hold the line {marker} once, and below it {END}"
        )
    write_text(path, f"{before}{marker}\n{text}\n{END}{after}")
