"""What the commands share: their names, parsers whose errors are one line, tables."""

import argparse
import sys

from kerasdl.errors import UsageError
from kerasdl.recipe import flag
from kerasdl.system import terminal
from kerasdl.system.names import nearest

COMMANDS = {
    "train": "train a model, evaluate it, report and export (the default)",
    "list": "print the models",
    "data": "print what a data set holds",
    "show": "print a model's arguments, settings, size and paper",
    "evaluate": "evaluate a run's checkpoint or an exported model on its test set",
    "predict": "ask a model about image files and texts, or for images",
    "probe": "evaluate a run's features with few labels, beside a random start",
    "explain": "show what a classifier looks at",
    "export": "export a run's model",
    "ensemble": "average the probabilities of trained classifiers: evaluate and export them as one",
    "bench": "measure against named peers",
    "launch": "train in several processes, or on several machines",
}


def notes_to_stderr():
    """Within it, what is printed goes to the standard error: a command's result stands alone."""
    return terminal.printed(sys.stderr)


def command_parser(command):
    """An argument parser whose errors are one line."""

    class Parser(argparse.ArgumentParser):
        """Raises `UsageError` instead of printing its usage."""

        def error(self, message):
            raise UsageError(message)

    return Parser(prog=f"train.py {command}", description=COMMANDS[command], allow_abbrev=False)


def parse_command(parser, argv):
    """`parse_args` with flags in `-` or `_`, and the nearest flag where one is unknown."""

    def dashed(word):
        name, equals, value = word.partition("=")
        return name.replace("_", "-") + equals + value if word.startswith("--") else word

    argv = [dashed(word) for word in argv]
    args, rest = parser.parse_known_args(argv)
    if rest:
        names = [a.removeprefix("--") for a in parser._option_string_actions]
        word = rest[0].removeprefix("--")
        raise UsageError(f"unknown argument {rest[0]}{nearest_flag(word, names)}")
    return args


def nearest_flag(text, names) -> str:
    """What stands behind an unknown flag: the nearest of the names."""
    result = nearest(text.replace("_", "-"), names)
    return result.replace("mean ", "mean --") if result else "; --help lists them"


# Published weights, as `kerasdl.store.published` reads them
WHERE = (
    "published weights: a folder with a config.json, hf:ORG/REPO[@REVISION], timm:NAME, "
    "hub:PRESET_OR_FOLDER (of KerasHub), or keras:NAME; or a .keras file"
)


def read_pairs(setting: str, words) -> dict:
    """The `name=value` words of a setting.

    Raises:
        UsageError: A word is none.
    """
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise UsageError(f"--{flag(setting)} {name}: must be name=value")
    return {name.replace("-", "_"): load_value(text) for name, _, text in pairs}


def number(value):
    """A text that is a number as one: YAML 1.1 takes 1e-3 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def load_value(text):
    """What was typed, as a YAML value."""
    import yaml

    try:
        return number(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def table(heads, cells, markdown=False) -> str:
    """Texts as a table, in columns or in Markdown."""
    cells = [[terminal.printable(cell, terminal.LINE) for cell in row] for row in cells]
    if markdown:
        cells = ([cell.replace("|", "\\|") for cell in row] for row in cells)
        rows = (f"| {' | '.join(row)} |" for row in cells)
        return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows])
    widths = [max(len(r[i]) for r in (heads, *cells)) for i in range(len(heads))]
    padded = ((c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in (heads, *cells))
    return "\n".join("  ".join(row).rstrip() for row in padded)


def source_arguments(parser) -> None:
    """Add `--run`, `--saved-model` and `--initial-checkpoint`, of which one must be given."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--run", metavar="DIR", help="a run's folder")
    group.add_argument(
        "--saved-model",
        metavar="DIR",
        help="an exported model's folder, or a .tflite or .keras file",
    )
    group.add_argument("--initial-checkpoint", metavar="WHERE", help=WHERE)
