"""Names: what they may hold, and the nearest of those, or of the numbers, that are allowed."""

import difflib
import re

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable

NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")  # of folders


def check_name(flag: str, name: str) -> None:
    """Refuse what is no plain name of a folder.

    Raises:
        UserError: Names the flag and what is allowed.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"--{flag} {name}: must hold only letters, digits, _, - and ., and begin with one of "
            "the first three"
        )


def nearest(name: str, names) -> str:
    """` (did you mean X?)` for the nearest of `names`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], 1, 0.5)
    return f" (did you mean {printable(close[0])}?)" if close else ""


def nearest_multiples(value: int, part: int) -> list[str]:
    """The multiples of `part` next to `value`, which is none: one below, if above 0, one above."""
    low = value // part * part
    return [str(low), str(low + part)] if low else [str(part)]


def few(names, maximum: int = 10) -> str:
    """The first of some names in words, and how many more there are."""
    names = list(map(printable, names))
    more = f" and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(names[:maximum]) + more
