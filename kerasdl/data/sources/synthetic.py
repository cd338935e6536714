"""`synthetic`: made-up examples that any machine has, to try things out."""

import numpy as np

from kerasdl.data import wanted
from kerasdl.data.arrays import from_arrays
from kerasdl.data.sources import made_up
from kerasdl.data.sources.pairs import translation_source
from kerasdl.data.sources.text import language_source
from kerasdl.data.splits import ArraySplit, check_no_argument, make_source

GIVES = None  # whatever the task needs
COUNTS = {"train": 512, "validation": 128, "test": 128}
SIZE = (32, 32)
MAX_LENGTH = 32  # of a window of text


def load(where, options):
    """Ten patterns in noise, each a class; for other tasks sentences of a small grammar, pairs of a
    word and its mirror image, or any columns of the task's specs."""
    check_no_argument(where, options)
    rng = np.random.default_rng(options.seed)
    specs = wanted.specs(options.task)
    tokens = {name for name, spec in wanted.needed(options.task).items() if spec.kind == "tokens"}
    if specs and tokens == {"token_ids"} == set(specs):
        return _sentences(options, rng)
    if tokens == {"source_ids", "target_ids"} == set(wanted.needed(options.task)):
        return _mirrored(options, rng)
    size = options.image_size or SIZE
    if not set(wanted.kinds(specs).items()) <= {("image", "image"), ("label", "label")}:
        return _from_specs(specs, size, options, rng)
    patterns = made_up.patterns(*size, 3, rng)
    parts = {}
    for part, n in COUNTS.items():
        labels = rng.permutation(np.arange(n) % made_up.CLASSES)
        images = patterns[labels] + 0.1 * rng.standard_normal((n, *size, 3))
        parts[part] = made_up.to_bytes(images), labels
    return from_arrays(parts, options, class_names=tuple("0123456789"))


def _sentences(options, rng):
    """Text of sentences such as "the bad fig eats a gem." in which words go by their kind."""
    nouns, verbs, adjectives = ([made_up.word(rng) for _ in range(n)] for n in (12, 6, 6))

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
        words[made_up.word(rng)] = None
    words, parts = iter(words), {}
    for part, n in COUNTS.items():
        parts[part] = [(word, word[::-1]) for _, word in zip(range(n), words, strict=False)]
    return translation_source(options, parts, (), kind="char", max_length=None)


def _from_specs(specs, size, options, rng):
    """Examples with every column that the task names."""
    maker = made_up.Maker(specs, size, options, rng)
    splits = {part: ArraySplit(maker.arrays(n)) for part, n in COUNTS.items()}
    return make_source(options, splits, maker.info, ())
