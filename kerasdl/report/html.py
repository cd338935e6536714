"""Pieces of an HTML page: texts, tables, figures, and files that stand in it."""

import base64
import html
import math

from kerasdl.system.terminal import printable_text


def esc(value) -> str:
    """Any value as text of an HTML page, attributes included."""
    return html.escape(printable_text(value), quote=True)


def table(head, rows, kind: str = "") -> str:
    """An HTML table of texts, wide ones with a scroll bar of their own."""
    first = "".join(f"<th>{esc(h)}</th>" for h in head)
    body = "".join(f"<tr>{''.join(f'<td>{esc(c)}</td>' for c in row)}</tr>" for row in rows)
    return (
        f'<div class=scroll><table class="{kind}"><thead><tr>{first}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number_text(value, digits: int = 4) -> str:
    """A number in a few digits; empty where there is none."""
    if not is_number(value):
        return ""
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 10 ** (1 - digits):
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Seconds in the largest units that say enough."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def data_url(data: bytes, kind: str = "image/png") -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def is_number(value) -> bool:
    """Whether a value of a JSON file is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
