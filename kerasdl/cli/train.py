"""`train`: train a model, evaluate it, report and export; its flags are the fields of `Recipe`."""

import re
from dataclasses import fields
from pathlib import Path

from kerasdl.cli.arguments import COMMANDS, load_value, nearest_flag, number, read_pairs
from kerasdl.errors import UsageError
from kerasdl.recipe import REFUSED, Recipe, choices, flag, is_multiple
from kerasdl.system.names import nearest
from kerasdl.system.processes import quiet_tensorflow


def main(argv) -> int:
    """Run the command."""
    given = parse_settings(argv)
    if given is None:
        return 0
    quiet_tensorflow()
    from kerasdl import app

    return app.train(given)


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
    text = re.sub(r"--[a-z_]+", lambda result: result.group().replace("_", "-"), text)
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
        raise UsageError(f"unknown flag --{text}{nearest_flag(text, names)}")
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


def _value(field, values):
    """What was typed, as a YAML value."""
    if field.type is dict:
        return read_pairs(field.name, values)
    if is_multiple(field):
        words = [w for v in values for w in _items(v)]
        texts = "str" in str(field.type)
        return [] if words == ["none"] else [w if texts else load_value(w) for w in words]
    if len(values) == 1 and "str" not in str(field.type):
        return load_value(values[0])
    return values[0]


def _items(text):
    """What stands between the commas of a list; a name before an equals sign may hold some."""
    return re.findall(r"(.*?=[^=,]*)(?:,|$)", text) if "=" in text else text.split(",")


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
    result = {str(name).replace("-", "_"): value for name, value in settings.items()}
    for name in result:
        if name not in known:
            raise UsageError(f"--config {path}: unknown key {name!r}{nearest(name, known)}")
    floats = {name for name, field in known.items() if "float" in str(field.type)}
    return {name: number(v) if name in floats else v for name, v in result.items()}


def check_type(parser, field, value) -> None:
    """Refuse a value of another type than the setting's.

    Raises:
        UsageError: Names the flag, the value, and what is allowed.
    """
    from jsonargparse import ArgumentError

    try:
        result = parser.parse_object({field.name: value}, defaults=False)[field.name]
        if type(result) is not type(value) and not isinstance(result, tuple | float | dict):
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
