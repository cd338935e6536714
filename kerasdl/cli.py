"""The command line: `train.py` and `kerasdl`. No framework is imported until a command runs."""

import json
import os
import re
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from kerasdl import __version__, catalog
from kerasdl.catalog import nearest
from kerasdl.recipe import REFUSED, Recipe, choices, flag, is_multiple

COMMANDS = {
    "train": "train a model, judge it, report and export (the default)",
    "list": "print the models",
    "show": "print a model's arguments, settings, size and paper",
    "evaluate": "judge a run's checkpoint or an exported model on its test set",
    "predict": "classify image files, continue or translate texts",
    "export": "export a run's model",
    "bench": "measure against named peers",
    "launch": "train in several processes, or on several machines",
}


class UsageError(Exception):
    """What was typed cannot be understood."""


def run() -> None:
    """The console script `kerasdl`."""
    sys.exit(main())


def main(argv=None) -> int:
    """Run a command line; returns the exit status: 2 with one line for bad input."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return dispatch(argv) or 0
    except UsageError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'the system'}: {error.strerror or error}")
    except Exception as error:
        if not _is_users(error):
            raise
        return _complain(error)


def _complain(error) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _is_users(error) -> bool:
    """Whether our own code raised it on purpose, because of what the user gave."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    ours = Path(trace.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parent)
    known = type(error).__name__ in ("TrainingError", "CheckpointError", "ExportError")
    raised_here = ours and isinstance(error, ValueError) and "in user code" not in str(error)
    return known or raised_here


def dispatch(argv) -> int | None:
    """Run the command that `argv` names, `train` where it names none."""
    if argv and argv[0] in ("--version", "-V"):
        print(__version__)
        return 0
    if argv and not argv[0].startswith("-"):
        if argv[0] not in COMMANDS:
            raise UsageError(
                f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)}; "
                f"the commands are {', '.join(COMMANDS)}"
            )
        return globals()[f"command_{argv[0]}"](argv[1:])
    return command_train(argv)


# -- train ----------------------------------------------------------------------------------------


def command_train(argv):
    """Train a model, judge it, report and export."""
    given = parse_settings(argv)
    if given is None:
        return 0
    quiet_tensorflow()
    from kerasdl.training import run

    return run.train(given)


def settings_parser():
    """The parser of `train`: one flag for each field of `Recipe`."""
    import jsonargparse

    names = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    parser = jsonargparse.ArgumentParser(
        prog="train.py",
        usage="%(prog)s [train] [flags]   or   %(prog)s COMMAND ...",
        description=f"Train a model by its name.\n\nCommands (each has a --help):\n{names}",
        formatter_class=_formatter(),
        exit_on_error=False,
        default_env=False,
    )
    parser.add_argument("--config", help="YAML file of settings, such as a run's args.yaml")
    parser.add_class_arguments(Recipe, help=None)
    return parser


def _formatter():
    import argparse

    from jsonargparse import DefaultHelpFormatter

    class Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Help with the lines of the description kept."""

    return Formatter


def parse_settings(argv) -> dict | None:
    """`{setting: value}` of what was given, `--config` below the flags; None after `--help`.

    Raises:
        UsageError: An unknown flag or key, or a value of the wrong type.
    """
    known = {f.name: f for f in fields(Recipe)}
    given = {}
    words = list(argv)
    parser = settings_parser()
    if words[:1] == ["-h"] or "--help" in words:
        print(_readable(parser.format_help()))
        return None
    typed = {}
    while words:
        name, values = _next_flag(words, known)
        if name == "config" in typed:
            raise UsageError("--config can be given once")
        typed[name] = values
    if "config" in typed:
        given = read_config(typed.pop("config"), known)
    given |= {name: _value(known[name], values) for name, values in typed.items()}
    for name, value in given.items():
        check_type(parser, known[name], value)
    return given


def _readable(text):
    """Help with flags as they are usually typed, and without Python's names of types."""
    text = re.sub(r"--[a-z_]+", lambda found: found.group().replace("_", "-"), text)
    return re.sub(r"\(type:.*?default:\s+(.*?)\)(?=\n|$)", r"(default: \1)", text, flags=re.DOTALL)


def _next_flag(words, known):
    """Take one flag and its values off the front of `words`."""
    word = words.pop(0)
    if not word.startswith("--"):
        raise UsageError(f"{word!r} belongs to no flag")
    text, equals, value = word[2:].partition("=")
    name = text.replace("-", "_")
    negated = name.startswith("no_") and name[3:] in known and known[name[3:]].type is bool
    name = name[3:] if negated else name
    if name not in known and name != "config":
        names = [flag(n) for n in (*known, "config")]
        raise UsageError(f"unknown flag --{text}{_nearest_flag(text, names)}")
    if negated and equals:
        raise UsageError(f"--{text} takes no value")
    if name in known and known[name].type is bool and not equals:
        return name, ["false" if negated else "true"]
    values = [value] if equals else []
    many = name in known and (is_multiple(known[name]) or known[name].type is dict)
    while words and not words[0].startswith("--") and (many or not values):
        values.append(words.pop(0))
    if not values:
        raise UsageError(f"--{text} needs a value")
    return name, values


def _nearest_flag(text, names):
    found = nearest(text.replace("_", "-"), names)
    return found.replace("mean ", "mean --") if found else "; --help lists them"


def _number(value):
    """A text that is a number as one: YAML 1.1 takes 1e-3 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _value(field, values):
    """What was typed, as a YAML value."""
    if field.type is dict:
        return read_pairs(field.name, values)
    if is_multiple(field):
        words = [w for v in values for w in v.split(",")]
        return [] if words == ["none"] else [_load(w) for w in words]
    if len(values) == 1 and "str" not in str(field.type):
        return _load(values[0])
    return values[0]


def read_pairs(setting: str, words) -> dict:
    """The `name=value` words of a setting.

    Raises:
        UsageError: A word is none.
    """
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise UsageError(f"--{flag(setting)} {name}: must be name=value")
    return {name.replace("-", "_"): _load(text) for name, _, text in pairs}


def _load(text):
    import yaml

    try:
        return _number(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def read_config(values, known) -> dict:
    """The settings of a YAML file.

    Raises:
        UsageError: It cannot be read, or has an unknown key.
    """
    import yaml

    path = Path(values[0])
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise UsageError(f"--config {path}: must hold `setting: value` lines")
    found = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in found:
        if name not in known:
            raise UsageError(f"--config {path}: unknown key {name!r}{nearest(name, known)}")
    floats = {name for name, field in known.items() if "float" in str(field.type)}
    return {name: _number(v) if name in floats else v for name, v in found.items()}


def check_type(parser, field, value) -> None:
    """Refuse a value of another type than the setting's.

    Raises:
        UsageError: Names the flag, the value, and what is allowed.
    """
    from jsonargparse import ArgumentError

    try:
        found = parser.parse_object({field.name: value}, defaults=False)[field.name]
        if type(found) is not type(value) and not isinstance(found, tuple | float | dict):
            raise ValueError  # a text, say, that could be read as a number
        if value is None and "None" not in str(field.type):
            raise ValueError
    except (ArgumentError, TypeError, ValueError, KeyError):
        allowed = choices(field)
        if (field.name, str(value)) in REFUSED:
            what = REFUSED[field.name, str(value)]
        elif allowed:
            what = f"not one of {', '.join(allowed)}{nearest(value, allowed)}"
        else:
            what = f"must be {_type_name(field)}"
        raise UsageError(f"--{flag(field.name)} {value}: {what}") from None


def _type_name(field):
    if field.type is dict:
        return "name=value pairs"
    names = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
    text = str(getattr(field.type, "__name__", field.type))
    text = str(field.type) if is_multiple(field) else text
    plain = next((english for name, english in names.items() if name in text), text)
    return f"a list, each {plain}" if is_multiple(field) else plain


# -- list and show --------------------------------------------------------------------------------


def command_parser(command):
    """An argument parser whose errors are one line."""
    import argparse

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
        raise UsageError(f"unknown argument {rest[0]}{_nearest_flag(word, names)}")
    return args


def command_list(argv):
    """Print the models."""
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


def table(heads, cells, markdown=False) -> str:
    """Texts as a table, in columns or in Markdown."""
    if markdown:
        rows = (f"| {' | '.join(row)} |" for row in cells)
        return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows])
    widths = [max(len(r[i]) for r in (heads, *cells)) for i in range(len(heads))]
    padded = ((c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in (heads, *cells))
    return "\n".join("  ".join(row).rstrip() for row in padded)


def command_show(argv):
    """Print what a model is."""
    parser = command_parser("show")
    parser.add_argument("model", nargs="?", help="its name")
    parser.add_argument("--image-size", type=int, nargs="+", help="side, or height and width")
    parser.add_argument("--serving", metavar="DIR", help="how to serve and ask an exported model")
    args = parse_command(parser, argv)
    if bool(args.model) == bool(args.serving):
        raise UsageError("give the name of a model, or --serving and the folder of an exported one")
    if args.serving and args.image_size:
        raise UsageError("--image-size: is of the name of a model alone")
    if args.serving:
        quiet_tensorflow()
        from kerasdl.export import serving_page

        print(serving_page.page(args.serving))
        return
    catalog.row(args.model)
    quiet_tensorflow()
    from kerasdl.training import summary

    print(summary.describe(args.model, args.image_size))


# -- commands of parts ----------------------------------------------------------------------------


def command_evaluate(argv):
    """Print a trained or exported model's figures."""
    from kerasdl.export import command

    return command.evaluate(argv)


def command_predict(argv):
    """Print the classes of image files, or what follows or translates texts; or draw images."""
    from kerasdl.export import command

    return command.predict(argv)


def command_export(argv):
    """Export a run's model and print its card."""
    from kerasdl.export import command

    return command.export(argv)


def command_bench(argv):
    """Measure against named peers."""
    from kerasdl.bench import command

    return command.main(argv)


def command_launch(argv):
    """Train in several processes, or on several machines."""
    from kerasdl.launch import command

    return command.main(argv)


def quiet_tensorflow() -> None:
    """Import TensorFlow without its notes on the machine, unless they are asked for.

    It writes them to the standard error before its own log level counts. What it writes is shown
    where the import fails.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryFile() as notes:
        kept = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
