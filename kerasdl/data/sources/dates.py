"""`dates`: days from 1900 to 2099 as people write them, and in ISO 8601; made on the spot."""

import datetime
import hashlib

import numpy as np

from kerasdl.data.sources.pairs import translation_source
from kerasdl.data.splits import check_no_argument

GIVES = {"source_ids": "tokens", "target_ids": "tokens", "group": "label"}
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
COUNTS = {"train": 24_000, "validation": 1_000, "test": 2_000}
TENTHS = {"test": (0, 1), "validation": (1, 2), "train": (2, 10)}  # of the days, by their hash
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Named by how the 3rd of March 1999 is written. No two days share a text: a day or month in digits
# has a dot after it, or stands after the year.
FORMATS = {
    "3 March 1999": "{d} {month} {y}",
    "03 March 1999": "{d:02} {month} {y}",
    "3 Mar 1999": "{d} {mon} {y}",
    "03-Mar-1999": "{d:02}-{mon}-{y}",
    "March 3, 1999": "{month} {d}, {y}",
    "Mar 3, 1999": "{mon} {d}, {y}",
    "March 3rd, 1999": "{month} {nth}, {y}",
    "3rd March 1999": "{nth} {month} {y}",
    "3rd of March 1999": "{nth} of {month} {y}",
    "the 3rd of March, 1999": "the {nth} of {month}, {y}",
    "Wednesday, March 3rd, 1999": "{weekday}, {month} {nth}, {y}",
    "Wednesday, 3 March 1999": "{weekday}, {d} {month} {y}",
    "Wed 3 Mar 1999": "{wkd} {d} {mon} {y}",
    "Wed, 03 Mar 1999": "{wkd}, {d:02} {mon} {y}",
    "1999 March 3": "{y} {month} {d}",
    "03.03.1999": "{d:02}.{m:02}.{y}",
    "3.3.1999": "{d}.{m}.{y}",
    "1999/03/03": "{y}/{m:02}/{d:02}",
    "1999/3/3": "{y}/{m}/{d}",
    "19990303": "{y}{m:02}{d:02}",
}


def load(where, options):
    """Pairs such as "Wednesday, March 3rd, 1999" and "1999-03-03".

    A day is training, validation or test by its hash, so test days are unseen in every format. The
    seed decides days, formats and upper and lower case. `group` is the format's number.
    """
    check_no_argument(where, options)
    days = {part: [] for part in COUNTS}
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + datetime.timedelta(number)
        tenth = int(hashlib.sha256(day.isoformat().encode()).hexdigest()[:8], 16) * 10 >> 32
        days[next(p for p, (low, high) in TENTHS.items() if low <= tenth < high)].append(day)
    parts, groups = {}, {}
    for number, (part, count) in enumerate(COUNTS.items()):
        rng = np.random.default_rng([options.seed, number])
        sampled = rng.choice(len(days[part]), count, replace=False)
        groups[part] = rng.permutation(count) % len(FORMATS)
        styles = list(FORMATS.values())
        parts[part] = [
            (cased(write(days[part][i], styles[group]), rng), days[part][i].isoformat())
            for i, group in zip(sampled, groups[part], strict=True)
        ]
    return translation_source(
        options,
        parts,
        (f"dates: one format each of {len(FORMATS)}; no test day is in another part",),
        kind="char",
        max_length=None,
        groups=groups,
        class_names=FORMATS,
    )


def write(day, style) -> str:
    """A day in a style, one of `FORMATS`' values."""
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day // 10 != 1 else 0, "th")
    return style.format(
        d=day.day,
        m=day.month,
        y=day.year,
        nth=f"{day.day}{ending}",
        month=month,
        mon=month[:3],
        weekday=weekday,
        wkd=weekday[:3],
    )


def cased(text, rng) -> str:
    """A text as it is, in lower or in upper case, or, one in ten, with random case."""
    choice = rng.random()
    if choice < 0.4:
        return text
    if choice < 0.9:
        return text.lower() if choice < 0.65 else text.upper()
    upper = rng.random(len(text)) < 0.5
    return "".join(c.upper() if u else c.lower() for c, u in zip(text, upper, strict=True))
