"""What tests of sources share: two tasks of images, the sizes of the parts, notes."""

import contextlib
import resource
import time

from kerasdl.columns import Spec

IMAGE = {"image": Spec(("H", "W", "C"), "float32", "image")}
LABEL = {"label": Spec((), "int32", "label")}


class Labeled:
    """A task that needs labels."""

    inputs, targets = IMAGE, LABEL


class Unlabeled:
    """A task that can do without."""

    inputs, targets, optional = IMAGE, LABEL, ("label",)


def lengths(source):
    return len(source.train), len(source.validation), len(source.test)


def noted(source, *words):
    """Whether one note has all the words."""
    return any(all(word in note for word in words) for note in source.notes)


@contextlib.contextmanager
def bounded():
    """What is within must take no more than 30 seconds and 2 GiB, whatever the input is."""
    started, before = time.monotonic(), _peak()
    try:
        yield
    finally:
        assert time.monotonic() - started < 30 and _peak() - before < 2 * 2**30


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
