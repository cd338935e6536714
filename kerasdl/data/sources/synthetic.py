"""`synthetic`: made-up examples that any machine has, to try things out."""

import numpy as np

from kerasdl.data.sources.pairs import translation_source
from kerasdl.data.sources.text import language_source
from kerasdl.data.splits import ArraySplit, from_arrays, needs, source
from kerasdl.errors import UserError

CLASSES = 10
COUNTS = {"train": 512, "validation": 128, "test": 128}
SIZE = (32, 32)
FREE = 16  # length of an axis that a spec leaves free
MAX_LENGTH = 32  # of a window of text
LETTERS = "abcdefgh"


def load(where, options):
    """Ten patterns in noise, each a class; for other tasks sentences of a small grammar, pairs of a
    word and its mirror image, or whatever the task's specs say."""
    if where:
        raise UserError(f"{options.name}: synthetic takes nothing after a colon")
    rng = np.random.default_rng(options.seed)
    task = options.task
    if needs(task) == "text":
        return _sentences(options, rng)
    if needs(task) == "pairs":
        return _mirrored(options, rng)
    specs = {**getattr(task, "inputs", {}), **getattr(task, "targets", {})}
    if set(specs) - {"image", "label"}:
        return _from_specs(specs, options, rng)
    height, width = options.image_size or SIZE
    # Smooth patterns, so that they survive a shift by a few pixels.
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    waves = rng.integers(1, 4, (CLASSES, 3, 2))
    phase = rng.uniform(0, 2 * np.pi, (CLASSES, 3))
    angle = 2 * np.pi * (waves[..., 0, None, None] * y + waves[..., 1, None, None] * x)
    patterns = 0.5 + 0.25 * np.sin(angle + phase[..., None, None])  # (K, C, H, W)
    patterns = patterns.transpose(0, 2, 3, 1)
    parts = {}
    for part, n in COUNTS.items():
        labels = rng.permutation(np.arange(n) % CLASSES)
        images = patterns[labels] + 0.1 * rng.standard_normal((n, height, width, 3))
        parts[part] = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8), labels
    return from_arrays(parts, options, class_names=tuple("0123456789"))


def _sentences(options, rng):
    """Text of sentences such as "the bad fig eats a gem." in which words go by their kind."""
    nouns, verbs, adjectives = ([_word(rng) for _ in range(n)] for n in (12, 6, 6))

    def thing():
        words = [rng.choice(["the", "a"]), rng.choice(nouns)]
        return words if rng.random() < 0.5 else [words[0], rng.choice(adjectives), words[1]]

    texts = {}
    for part, n in COUNTS.items():
        text = ""
        while len(text) < (n + 1) * (options.max_length or MAX_LENGTH):
            text += " ".join([*thing(), rng.choice(verbs), *thing()]) + ".\n"
        texts[part] = [text]
    return language_source(options, texts, (), max_length=MAX_LENGTH)


def _mirrored(options, rng):
    """Words, no two alike, and the same read backwards."""
    count, words = sum(COUNTS.values()), {}
    while len(words) < count:
        words[_word(rng)] = None
    words, parts = iter(words), {}
    for part, n in COUNTS.items():
        parts[part] = [(word, word[::-1]) for _, word in zip(range(n), words, strict=False)]
    return translation_source(options, parts, (), kind="char", max_length=None)


def _word(rng):
    return "".join(rng.choice(list(LETTERS), rng.integers(3, 9)))


def _from_specs(specs, options, rng):
    """Random examples of the named specs: integers below 10, floats in [0, 1)."""

    def column(spec, n):
        shape = (n, *(axis if isinstance(axis, int) else FREE for axis in spec.shape))
        if "int" in spec.dtype:
            return rng.integers(0, CLASSES, shape).astype(spec.dtype)
        return rng.random(shape).astype(spec.dtype)

    splits = {
        part: ArraySplit({name: column(spec, n) for name, spec in specs.items()})
        for part, n in COUNTS.items()
    }
    shape = splits["train"].arrays["image"].shape[1:] if "image" in specs else ()
    return source(options, splits, shape, tuple("0123456789"), ())
