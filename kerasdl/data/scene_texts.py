"""The texts of a scene of digits: a caption, and a question with its answer.

One digit is left of another where its box's center is, and where the centers are at least as far
apart across as down; right of, above and below likewise. So exactly one of the four is true of two
digits whose centers differ.
"""

from typing import NamedTuple

COLORS = ("red", "green", "blue", "yellow", "magenta", "cyan")
RELATIONS = ("left of", "right of", "above", "below")
# Every answer is one of these.
ANSWERS = (*"0123456789", "yes", "no", *COLORS)


class Digit(NamedTuple):
    """One digit of a scene.

    Attributes:
        label: 0 to 9.
        color: Its name, or None in a gray scene.
        box: `(ymin, xmin, ymax, xmax)` in pixels, the ends excluded.
    """

    label: int
    color: str | None
    box: tuple[int, int, int, int]

    @property
    def area(self):
        """Pixels of the box."""
        ymin, xmin, ymax, xmax = self.box
        return (ymax - ymin) * (xmax - xmin)

    @property
    def center(self):
        """Twice the box's center `(y, x)`, which is whole."""
        ymin, xmin, ymax, xmax = self.box
        return ymin + ymax, xmin + xmax


def relation(a, b) -> str:
    """Where digit `a` is as seen from digit `b`: one of `RELATIONS`."""
    (ya, xa), (yb, xb) = a.center, b.center
    if abs(xa - xb) >= abs(ya - yb):
        return "left of" if xa < xb else "right of"
    return "above" if ya < yb else "below"


def with_article(phrase) -> str:
    """`a 7`, `an 8`, `a red 8`."""
    return f"{'an' if phrase.startswith('8') else 'a'} {phrase}"


def caption(digits) -> str:
    """`a red 3 left of a 7`: the largest digit and where it is as seen from the next largest.

    Equally large ones come in the order given. A single digit is `a red 3`; gray ones have no
    color.

    Args:
        digits: One `Digit` or more.
    """
    first, *others = sorted(digits, key=lambda d: -d.area)
    text = with_article(f"{first.color} {first.label}" if first.color else str(first.label))
    if others:
        text += f" {relation(first, others[0])} {with_article(str(others[0].label))}"
    return text


def question(digits, rng) -> tuple[str, str]:
    """A question that the scene answers in one way only, and the answer, one of `ANSWERS`.

    The kinds are equally frequent where the scene admits them: how many digits there are; whether
    a certain one is there (no as often as yes); what is left of, right of, above or below one; what
    color one has; which one has a color.

    Args:
        digits: One `Digit` or more.
        rng: A numpy `Generator`.
    """
    kinds = [_how_many(digits), _whether(digits, rng), _where(digits)]
    if digits[0].color:
        kinds += [_what_color(digits), _which(digits)]
    kinds = [pairs for pairs in kinds if pairs]
    pairs = kinds[rng.integers(len(kinds))]
    return pairs[rng.integers(len(pairs))]


def _only(digits, value):
    """The digits that no other one equals in `value(digit)`."""
    values = [value(d) for d in digits]
    return [d for d, v in zip(digits, values, strict=True) if values.count(v) == 1]


def _how_many(digits):
    return [("how many digits are there?", str(len(digits)))]


def _whether(digits, rng):
    there = {d.label for d in digits}
    answer = rng.integers(2) == 1
    labels = [k for k in range(10) if (k in there) == answer]
    return [(f"is there {with_article(str(k))}?", "yes" if answer else "no") for k in labels]


def _where(digits):
    pairs = []
    for seen_from in _only(digits, lambda d: d.label):
        others = [d for d in digits if d is not seen_from]
        where = [relation(d, seen_from) for d in others]
        pairs += [
            (f"what is {place} the {seen_from.label}?", str(d.label))
            for d, place in zip(others, where, strict=True)
            if where.count(place) == 1
        ]
    return pairs


def _what_color(digits):
    return [(f"what color is the {d.label}?", d.color) for d in _only(digits, lambda d: d.label)]


def _which(digits):
    return [(f"which digit is {d.color}?", str(d.label)) for d in _only(digits, lambda d: d.color)]
