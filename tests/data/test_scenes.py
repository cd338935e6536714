"""Scenes of digits: drawn from (seed, part, index) alone, and true in every column."""

import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits

from kerasdl.data import scenes
from kerasdl.data.handwriting import handwritten
from kerasdl.data.scene_texts import ANSWERS, COLORS

COUNT = 400
HUES = {  # which channels of an image a color lights
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}


@pytest.fixture(scope="module", params=[1, 6], ids=["gray", "colored"])
def examples(request):
    """The first examples of the training part, row by row."""
    columns = scenes.arrays("train", seed=3, count=COUNT, colors=request.param)
    return [{name: column[i] for name, column in columns.items()} for i in range(COUNT)]


def valid(example):
    """`(label, box, instance)` of each digit."""
    rows = np.flatnonzero(example["valid"])
    return [(example["labels"][m], example["boxes"][m], example["instances"][m]) for m in rows]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# How they are drawn


def test_an_example_depends_on_seed_part_and_index_alone():
    first = scenes.scene(5, "train", 17, colors=6)
    scenes.scene(5, "train", 18, colors=6)
    assert same(first, scenes.scene(5, "train", 17, colors=6))
    for other in ((6, "train", 17), (5, "train", 18), (5, "test", 17)):
        assert not same(first, scenes.scene(*other, colors=6))


def test_any_length():
    assert scenes.scene(0, "train", 10**12)["valid"].any()
    longer, shorter = (scenes.arrays("train", count=n) for n in (30, 7))
    for name, column in shorter.items():
        assert len(column) == 7
        np.testing.assert_array_equal(column, longer[name][:7])


def test_held_out_parts_are_the_same_under_every_seed():
    for part in ("validation", "test"):
        a, b = (scenes.arrays(part, seed=seed, count=20) for seed in (0, 9))
        assert same(a, b)
    assert scenes.COUNTS["test"] == 1000


def test_another_process_draws_the_same():
    code = (
        "import sys; from kerasdl.data.scenes import scene;"
        "e = scene(2, 'train', 3, colors=6);"
        "print(int(e['image'].sum()), int(e['mask'].sum()), e['caption'], e['answer']);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    e = scenes.scene(2, "train", 3, colors=6)
    expected = f"{e['image'].sum()} {e['mask'].sum()} {e['caption']} {e['answer']}"
    assert out.stdout.strip() == expected


def test_parts_of_the_digits_are_disjoint_and_complete():
    """By place in the file, and by the pictures themselves."""
    data = load_digits()
    parts = [handwritten(part) for part in ("train", "validation", "test")]
    assert [len(labels) for _, labels in parts] == [1257, 180, 360]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), data.images / 16)
    np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), data.target)
    pictures = [{x.tobytes() for x in images} for images, _ in parts]
    assert not pictures[0] & pictures[2] and not pictures[1] & pictures[2]


def shown(example):
    """What stands behind each digit: `(row of the file, ink (48, 48))`, where it is in no doubt.

    A digit of the file, enlarged by another library, is the one shown where it equals the image in
    every pixel that the example says is that digit's alone.
    """
    data, result = load_digits(), []
    covered = example["instances"].sum(0)
    for label, box, instance in valid(example):
        ymin, xmin, ymax, xmax = np.rint(48 * box).astype(int)
        box = slice(ymin, ymax), slice(xmin, xmax)
        side = max(ymax - ymin, xmax - xmin)
        at = (np.arange(side) + 0.5) * 8 / side - 0.5
        at = np.stack(np.meshgrid(at, at, indexing="ij"))
        alone = ((instance > 0) & (covered == 1))[box]
        brightness = example["image"].max(-1)[box]
        matches = []
        for row in np.flatnonzero(data.target == label):
            picture = 255 / 16 * data.images[row]
            picture = map_coordinates(picture, at, order=1, mode="grid-constant")
            picture = np.where(picture >= scenes.INK - 0.5, picture, 0)
            ys, xs = (np.flatnonzero(picture.any(axis)) for axis in (1, 0))
            picture = picture[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
            if picture.shape == alone.shape and np.abs(picture - brightness)[alone].max() <= 1:
                ink = np.zeros((48, 48))
                ink[box] = picture
                matches.append((row, ink))
        if len(matches) == 1:
            result.append((label, *matches[0]))
    return result


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_scene_shows_digits_of_its_own_part(part):
    place = {"train": range(1257), "validation": range(1257, 1437), "test": range(1437, 1797)}
    count = 0
    for index in range(5):
        example = scenes.scene(0, part, index)
        rows = [row for _, row, _ in shown(example)]
        assert all(row in place[part] for row in rows)
        assert len(rows) == example["valid"].sum()
        count += len(rows)
    assert count > 10


# What they hold


def test_columns(examples):
    channels = 3 if "red" in " ".join(e["caption"] for e in examples) else 1
    for e in examples:
        assert e["image"].shape == (48, 48, channels) and e["image"].dtype == np.uint8
        assert e["mask"].shape == (48, 48) and e["mask"].dtype == np.int32
        assert e["instances"].shape == (5, 48, 48) and e["instances"].dtype == np.uint8
        assert e["boxes"].shape == (5, 4) and e["boxes"].dtype == np.float32
        assert e["labels"].shape == (5,) and e["labels"].dtype == np.int32
        assert e["valid"].dtype == bool
        n = e["valid"].sum()
        assert e["valid"][:n].all()  # padding comes last
        assert (e["labels"][:n] >= 0).all() and (e["labels"][n:] == -1).all()
        assert not e["boxes"][n:].any() and not e["instances"][n:].any()
        assert e["instances"].max() == 1


def test_counts_classes_and_sizes(examples):
    counts = np.bincount([e["valid"].sum() for e in examples], minlength=6)
    assert counts[0] == 0 and (counts[1:] > COUNT / 10).all()
    labels = [label for e in examples for label, _, _ in valid(e)]
    assert (np.bincount(labels, minlength=10) > len(labels) / 20).all()
    longer = [48 * max(b[2] - b[0], b[3] - b[1]) for e in examples for _, b, _ in valid(e)]
    assert {round(float(side)) for side in longer} == set(range(10, 23))


def test_boxes_are_tight(examples):
    for e in examples:
        for _, box, instance in valid(e):
            ys, xs = np.nonzero(instance)
            tight = np.array([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]) / 48
            np.testing.assert_allclose(box, tight, atol=1e-6)


def test_boxes_overlap_little(examples):
    largest = 0
    for e in examples:
        boxes = [np.rint(48 * box).astype(int) for _, box, _ in valid(e)]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                cells = [np.zeros((48, 48), bool) for _ in range(2)]
                for cell, (y0, x0, y1, x1) in zip(cells, (a, b), strict=True):
                    cell[y0:y1, x0:x1] = True
                smaller = min(cell.sum() for cell in cells)
                largest = max(largest, (cells[0] & cells[1]).sum() / smaller)
    assert 0.25 < largest <= 0.3  # some do


def test_mask_agrees_with_instances(examples):
    shared = 0
    for e in examples:
        n = e["valid"].sum()
        covered = e["instances"][:n].sum(0)
        np.testing.assert_array_equal(e["mask"] > 0, covered > 0)
        for label, _, instance in valid(e):
            alone = (instance > 0) & (covered == 1)
            assert (e["mask"][alone] == 1 + label).all()
        shared += (covered > 1).sum()
        for y, x in zip(*np.nonzero(covered > 1), strict=True):
            there = e["labels"][:n][e["instances"][:n, y, x] > 0]
            assert e["mask"][y, x] - 1 in there
    assert shared > 0


def test_digits_are_brighter_than_the_background(examples):
    for e in examples[:50]:
        brightness = e["image"].max(-1)
        assert brightness[e["mask"] > 0].min() >= scenes.INK
        texture = e["image"][e["instances"].sum(0) == 0]
        assert len(np.unique(texture)) > 10  # it is not empty


def test_the_brightest_digit_wins(examples):
    """Shared pixels have the class, the brightness and the color of the digit with more ink."""
    compared = 0
    for e in examples[:60]:
        shared = e["instances"].sum(0) > 1
        digits = shown(e) if shared.any() else []
        if not digits or len(digits) < e["valid"].sum():
            continue
        inks = np.stack([ink for _, _, ink in digits])
        first, second = np.sort(inks, axis=0)[[-1, -2]]
        clear = shared & (first > second + 2)  # 1 is rounding
        winner = inks.argmax(0)
        labels = np.array([label for label, _, _ in digits])
        np.testing.assert_array_equal(e["mask"][clear], 1 + labels[winner[clear]])
        assert np.abs(e["image"].max(-1) - first)[clear].max(initial=0) <= 1
        if e["image"].shape[-1] == 3:
            colors = [digit[1] for digit in seen(e)]
            hues = np.array([HUES[color] for color in colors])[winner[clear]]
            np.testing.assert_array_equal(e["image"][clear] >= scenes.INK, hues > 0)
        compared += clear.sum()
    assert compared > 50


# What is said of them


def seen(example):
    """`(label, color, center, area)` of each digit, from the other columns alone."""
    digits, covered = [], example["instances"].sum(0)
    for label, box, instance in valid(example):
        color = None
        if example["image"].shape[-1] == 3:
            pixels = example["image"][(instance > 0) & (covered == 1)]
            lit = tuple(int(v) for v in np.median(pixels, axis=0) >= scenes.INK)
            color = next(name for name, hue in HUES.items() if hue == lit)
        ymin, xmin, ymax, xmax = (round(48 * float(v)) for v in box)
        center = (ymin + ymax) / 2, (xmin + xmax) / 2
        digits.append((int(label), color, center, (ymax - ymin) * (xmax - xmin)))
    return digits


def holds(a, words, b):
    """Whether center `a` is so as seen from center `b`."""
    down, right = a[0] - b[0], a[1] - b[1]
    if words in ("left of", "right of"):
        return abs(right) >= abs(down) and (right < 0 if words == "left of" else right > 0)
    return abs(down) > abs(right) and (down < 0 if words == "above" else down > 0)


WHERE = "left of|right of|above|below"


def test_captions_are_true(examples):
    pattern = re.compile(rf"(an?) (?:(\w+) )?(\d)(?: ({WHERE}) (an?) (\d))?")
    for e in examples:
        digits = sorted(seen(e), key=lambda d: -d[3])
        article, color, label, words, article2, label2 = pattern.fullmatch(
            str(e["caption"])
        ).groups()
        assert (article == "an") == (color is None and label == "8")
        assert (color is None) == (e["image"].shape[-1] == 1)
        assert (words is None) == (len(digits) == 1)
        largest = [d for d in digits if d[3] == digits[0][3]]
        if words is None:
            assert (digits[0][0], digits[0][1]) == (int(label), color)
            continue
        assert (article2 == "an") == (label2 == "8")
        pairs = [
            (a, b)
            for a in largest
            for b in digits
            if a is not b and b[3] >= digits[1][3] and holds(a[2], words, b[2])
        ]
        described = [(a[0], a[1], b[0]) for a, b in pairs]
        assert (int(label), color, int(label2)) in described


def answers(text, digits):
    """Everything that answers a question, read from the digits."""
    if text == "how many digits are there?":
        return [str(len(digits))]
    if matches := re.fullmatch(r"is there (an?) (\d)\?", text):
        assert (matches[1] == "an") == (matches[2] == "8")
        return ["yes" if int(matches[2]) in [d[0] for d in digits] else "no"]
    if matches := re.fullmatch(r"what color is the (\d)\?", text):
        return [d[1] for d in digits if d[0] == int(matches[1])]
    if matches := re.fullmatch(r"which digit is (\w+)\?", text):
        return [str(d[0]) for d in digits if d[1] == matches[1]]
    words, label = re.fullmatch(rf"what is ({WHERE}) the (\d)\?", text).groups()
    (seen_from,) = [d for d in digits if d[0] == int(label)]
    return [str(d[0]) for d in digits if d is not seen_from and holds(d[2], words, seen_from[2])]


def test_every_question_has_one_answer_and_it_is_given(examples):
    kinds, given = {}, set()
    for e in examples:
        assert answers(str(e["question"]), seen(e)) == [str(e["answer"])]
        kind = re.sub(rf"\ban? \d|\d|{'|'.join(COLORS)}", "*", str(e["question"]))
        kinds[kind] = kinds.get(kind, 0) + 1
        given.add(str(e["answer"]))
    colored = examples[0]["image"].shape[-1] == 3
    assert len(kinds) == (8 if colored else 6), kinds
    assert given == set(ANSWERS) if colored else given == set(ANSWERS) - set(COLORS)


# Canvases


@pytest.mark.parametrize("size", [(10, 10), (10, 64), (23, 17), (96, 80)])
def test_canvases_of_other_sizes(size):
    columns = scenes.arrays("train", count=50, size=size, colors=6)
    assert columns["image"].shape == (50, *size, 3)
    assert columns["instances"].shape == (50, 5, *size)
    assert columns["valid"][:, 0].all()
    counts = columns["valid"].sum(1)
    assert (counts == 1).all() if size == (10, 10) else counts.max() > 1
    for boxes, instances, real in zip(
        columns["boxes"], columns["instances"], columns["valid"], strict=True
    ):
        for box, instance in zip(boxes[real], instances[real], strict=True):
            ys, xs = np.nonzero(instance)
            tight = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
            np.testing.assert_allclose(box * np.array([*size, *size]), tight, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (9, 48)}, r"--image-size 9 48: .* at least 10 pixels"),
        ({"size": (48,)}, r"--image-size 48: .* a height and a width"),
        ({"part": "dev"}, "part 'dev': must be one of train, validation, test"),
        ({"colors": 2}, r"colors 2: must be 1 \(gray\) or 6"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"index": -1}, "index -1: must be at least 0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scenes.scene(**{"seed": 0, "part": "train", "index": 0, **arguments})
