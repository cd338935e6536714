"""Names and texts that come from data, as they may be printed: none steers a terminal or a page."""

import contextlib
import re
import sys

NAME, LINE = 80, 4000  # characters at most
# Control characters, those that turn the direction of writing, and halves of pairs.
_STEERING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
IN_TEXTS, IN_LINES = re.compile(f"[{_STEERING}]"), re.compile(f"[\t\n{_STEERING}]")


def printable(name, maximum: int | None = NAME) -> str:
    """A name as it may stand in a line or a table: control characters as `\\x1b`.

    Args:
        name: Any value.
        maximum: Characters that are shown, or None for all; how many there are stands behind them.
    """
    text = str(name)
    if maximum is not None and len(text) > maximum:
        text = f"{text[:maximum]}... ({len(text):,} characters)"
    return IN_LINES.sub(_escaped, text)


def printable_text(text) -> str:
    """A text of several lines likewise."""
    return IN_TEXTS.sub(_escaped, str(text))


def lines(say):
    """`say`, each of whose texts is one line."""
    return lambda line: say(printable(line, LINE))


def _escaped(match) -> str:
    return match[0].encode("unicode_escape").decode()


class Printed:
    """A stream that writes what can be printed to another one.

    Args:
        stream: The other one.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        """Write a text; returns its length."""
        self._stream.write(printable_text(text))
        return len(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def printed(stream=None):
    """Within it, what is printed is printable, and goes to `stream` where one is given."""
    return contextlib.redirect_stdout(Printed(stream or sys.stdout))
