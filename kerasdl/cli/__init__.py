"""The command line: `train.py` and `kerasdl`. No framework is imported until a command runs."""

import importlib
import sys

from kerasdl import __version__
from kerasdl.cli.arguments import COMMANDS
from kerasdl.errors import REPORTED, UsageError
from kerasdl.system import terminal
from kerasdl.system.names import nearest


def run() -> None:
    """The console script `kerasdl`."""
    sys.exit(main())


def main(argv=None) -> int:
    """Run a command line; returns the exit status: 2 with one line for bad input."""
    argv = [*(sys.argv[1:] if argv is None else argv)]  # `list` is a command here
    try:
        with terminal.printed():
            return dispatch(argv) or 0
    except REPORTED as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'the system'}: {error.strerror or error}")


def _complain(error) -> int:
    line = " ".join(str(error).split())
    print(f"error: {terminal.printable(line, terminal.LINE)}", file=sys.stderr)
    return 2


def dispatch(argv) -> int | None:
    """Run the command that `argv` names, `train` where it names none."""
    if argv and argv[0] in ("--version", "-V"):
        print(__version__)
        return 0
    if not argv or argv[0].startswith("-"):
        argv = ["train", *argv]
    command, *rest = argv
    if command not in COMMANDS:
        raise UsageError(
            f"unknown command {command!r}{nearest(command, COMMANDS)}; "
            f"the commands are {', '.join(COMMANDS)}"
        )
    return importlib.import_module(f"kerasdl.cli.{command}").main(rest)
