"""`list`: print the models, or the results of exported ones."""

import json

from kerasdl import catalog
from kerasdl.cli.arguments import command_parser, parse_command, table
from kerasdl.errors import UsageError
from kerasdl.recipe import Recipe
from kerasdl.system.names import nearest


def main(argv):
    """Run the command."""
    parser = command_parser("list")
    parser.add_argument("text", nargs="?", help="only models with this in their name or paper")
    parser.add_argument("--task", help="only models of this task")
    parser.add_argument("--markdown", action="store_true", help="as a table for a README")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--results", action="store_true", help="what exported models say")
    parser.add_argument("--export-dir", default=Recipe.export_dir, help="where those are")
    args = parse_command(parser, argv)
    tasks = sorted({row.task for row in catalog.ROWS})
    if args.task and args.task not in tasks:
        raise UsageError(
            f"--task {args.task}: not one of {', '.join(tasks)}{nearest(args.task, tasks)}"
        )
    rows = [catalog.MODELS[n] for n in catalog.list_models(args.task, args.text)]
    if args.results:
        _list_results(args, [row.name for row in rows])
        return
    if args.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return
    heads = ("model", "task", "parameters", "paper", "limits")
    cells = [(r.name, r.task, f"{r.parameters:,}", r.paper, r.limits) for r in rows]
    print(table(heads, cells, args.markdown))


def _list_results(args, names):
    from kerasdl.export import results

    cards = [c for c in results.cards(args.export_dir) if c["model"] in names]
    if args.json:
        print(json.dumps(cards, indent=1))
    else:
        cells = [results.row(card) for card in cards]
        print(table(results.HEADS, cells, args.markdown))
