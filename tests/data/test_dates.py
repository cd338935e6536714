"""`dates`: unambiguous, in every format, with test days that training never saw."""

import datetime

import numpy as np
import pytest

from kerasdl.data.sources import open_source
from kerasdl.data.sources.dates import COUNTS, FIRST, FORMATS, LAST, write
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.ops.text import BOS, EOS, PAD


@pytest.fixture(scope="module")
def source():
    return open_source("dates")


def pairs(source, part):
    tokenizer = Tokenizer.from_json(source.info.tokenizer)
    columns = getattr(source, part).arrays
    return [
        (tokenizer.decode(a), tokenizer.decode(b), int(group))
        for a, b, group in zip(*columns.values(), strict=True)
    ]


def test_a_format_is_named_by_how_it_writes_one_day():
    day = datetime.date(1999, 3, 3)
    assert [write(day, style) for style in FORMATS.values()] == list(FORMATS)
    nth = [write(datetime.date(2000, 1, d), "{nth}") for d in (1, 2, 3, 4, 11, 12, 13, 21, 22, 31)]
    assert nth == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "31st"]


def test_no_text_stands_for_two_days():
    days = [FIRST + datetime.timedelta(n) for n in range((LAST - FIRST).days + 1)]
    seen = {}
    for style in FORMATS.values():
        for day in days:
            assert seen.setdefault(write(day, style).casefold(), day) == day
    assert len(FORMATS) >= 15 and len(days) == 73_049


def test_texts_say_their_day(source):
    for part, count in COUNTS.items():
        result = pairs(source, part)
        assert len(result) == count
        for text, iso, group in result:
            style = list(FORMATS.values())[group]
            assert text.casefold() == write(datetime.date.fromisoformat(iso), style).casefold()
    texts = [text for text, _, _ in pairs(source, "test")]
    for cased in (str.islower, str.isupper, str.istitle):
        assert sum(map(cased, texts)) > 100


def test_days_stand_in_one_part_and_formats_are_even(source):
    days = {part: {iso for _, iso, _ in pairs(source, part)} for part in COUNTS}
    assert [len(d) for d in days.values()] == list(COUNTS.values())
    assert not days["train"] & days["test"] and not days["validation"] & days["test"]
    assert not days["train"] & days["validation"]
    group = np.bincount(source.test.arrays["group"])
    assert len(group) == len(FORMATS) and group.min() >= 100
    assert source.info.class_names == tuple(FORMATS)


def test_columns(source):
    arrays = source.test.arrays
    assert {name: a.dtype.name for name, a in arrays.items()} == dict.fromkeys(
        ("source_ids", "target_ids", "group"), "int32"
    )
    assert arrays["target_ids"].shape == (2000, 12)  # BOS, 1999-03-03, EOS
    assert source.info.max_length == arrays["source_ids"].shape[1] - 1
    ends = (arrays["source_ids"] == EOS).argmax(1)
    after = np.arange(arrays["source_ids"].shape[1]) > ends[:, None]
    assert (arrays["source_ids"][after] == PAD).all()
    assert (arrays["target_ids"][:, 0] == BOS).all() and (arrays["target_ids"][:, -1] == EOS).all()


def test_seeded(source):
    same, other = open_source("dates"), open_source("dates", seed=1)
    for name, array in source.train.arrays.items():
        np.testing.assert_array_equal(array, same.train.arrays[name])
    assert pairs(source, "test") != pairs(other, "test")
    again = open_source("dates", seed=1, info=source.info)
    assert again.info.tokenizer == source.info.tokenizer and again.info == source.info
    with pytest.raises(ValueError, match="dates takes no argument; write dates"):
        open_source("dates:x")
