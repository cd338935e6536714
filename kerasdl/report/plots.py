"""Curves as SVG and matrices as PNG, for a page that needs nothing beside it."""

import html
import math
import struct
import zlib

import numpy as np

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
DOTS = 40  # up to so many points each is shown
LOG_FROM = 30  # ratio of the largest to the smallest from which a positive axis is logarithmic


def curves(lines: dict, mark: float | None = None, log: bool = False) -> str:
    """Lines over a common axis.

    Args:
        lines: `{CSS class: [(x, y)]}`; points that are not finite are left out.
        mark: Where a dashed vertical line stands.
        log: Whether the y axis may be logarithmic, where its values differ much.

    Returns:
        An SVG element; its colors come from the CSS classes.
    """
    lines = {k: [p for p in v if all(map(math.isfinite, p))] for k, v in lines.items()}
    points = [p for line in lines.values() for p in line]
    if not points:
        return "<p class=note>no finite values</p>"
    ys = [y for _, y in points]
    log = log and min(ys) > 0 and max(ys) / min(ys) >= LOG_FROM
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), 6, whole=True)
    y_ticks = log_ticks(min(ys), max(ys)) if log else ticks(min(ys), max(ys), 5)
    bend = math.log10 if log else float
    x_of = _scale([x for x, _ in points], LEFT + 6, WIDTH - RIGHT - 6)
    y_of = _scale([bend(y) for y in (*ys, *y_ticks)], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for y in y_ticks:
        v = y_of(bend(y))
        parts.append(f'<path class="grid" d="M{LEFT} {v:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{v + 4:.1f}" class="end">{number(y)}</text>')
    for x in x_ticks:
        if min(p[0] for p in points) <= x <= max(p[0] for p in points):
            parts.append(f'<text x="{x_of(x):.1f}" y="{HEIGHT - 8}" class="mid">{x:g}</text>')
    if mark is not None:
        parts.append(f'<path class="mark" d="M{x_of(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for name, line in lines.items():
        at = [(x_of(x), y_of(bend(y)), x, y) for x, y in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in at)
        parts.append(f'<path class="line {html.escape(name)}" d="M{path}"/>' if path else "")
        for x, y, true_x, true_y in at if len(at) <= DOTS else ():
            parts.append(
                f'<circle class="{html.escape(name)}" cx="{x:.1f}" cy="{y:.1f}" r="2.2">'
                f"<title>{true_x:g}: {true_y:.6g}</title></circle>"
            )
    return "".join(parts) + "</svg>"


def _scale(values, low, high):
    """A function from the range of `values` to `[low, high]`; one value alone goes midway."""
    minimum, maximum = min(values), max(values)
    if maximum == minimum:
        return lambda v: (low + high) / 2
    return lambda v: low + (high - low) * (v - minimum) / (maximum - minimum)


def ticks(low: float, high: float, maximum: int, whole: bool = False) -> list[float]:
    """Round numbers that span `[low, high]`, about `maximum` of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / maximum))
    step = next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= maximum)
    if whole:
        step = max(1, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """The powers of ten that span `[low, high]`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = -(-(last - first) // 6)  # few enough to be read
    return [10.0**i for i in range(first, last + step, step)]


def number(value: float) -> str:
    """A short text of a number on an axis."""
    return f"{value:g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.0e}"


def heat_png(fraction, maximum: int = 256) -> bytes:
    """A matrix of values in [0, 1] as a PNG, 0 transparent and 1 opaque blue; large ones pooled.

    Args:
        fraction: `(K, K)`.
        maximum: Pixels of a side; larger matrices show the largest value of each square.
    """
    fraction = np.asarray(fraction, float)
    k = len(fraction)
    by = -(-k // maximum)
    if by > 1:
        fraction = np.pad(fraction, (0, -k % by))
        n = len(fraction) // by
        fraction = fraction.reshape(n, by, n, by).max((1, 3))
    # The root shows what is rare.
    alpha = (255 * np.sqrt(np.clip(fraction, 0, 1))).round().astype(np.uint8)
    pixels = np.stack([np.full_like(alpha, v) for v in (37, 99, 235)] + [alpha], -1)
    return png(pixels)


def png(pixels) -> bytes:
    """A PNG file of uint8 `(H, W, 4)`."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each begins with its filter, none
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def png_size(data: bytes) -> tuple[int, int] | None:
    """`(width, height)` of a PNG file, or None if it is none."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return None
    return struct.unpack(">II", data[16:24])
