"""Files that are read when they are needed: one that cannot be read is named, or another one
stands for it."""

import contextlib
import itertools
import os
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from kerasdl.errors import UserError

BEGIN, END = "[kerasdl: ", " :kerasdl]"  # of a line within an error of TensorFlow
ADVICE = "cannot be read; --skip-bad-files puts another of its class in its place"
_watched = weakref.WeakSet()


def readable(path) -> str:
    """A path or name as text that can be printed: bytes that are no UTF-8 as `\\xe9`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@tf.autograph.experimental.do_not_convert
def guarded(path, read, shape, instead):
    """What `read` makes of a file, or of the one that stands for it where it cannot be read.

    Args:
        path: string scalar.
        read: `path -> uint8 tensor`, in graph operations.
        shape: Of what it gives.
        instead: `path as bytes -> path` of the file that stands for it.
    """
    # The one way to go on after an operation has failed; it takes 0.1 ms.
    done = tf.data.Dataset.from_tensors(path).map(lambda path: (read(path), True)).ignore_errors()
    failed = tf.data.Dataset.from_tensors((tf.zeros(shape, tf.uint8), False))
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    result, good = done.concatenate(failed).take(1).with_options(options).get_single_element()
    result = tf.cond(
        good,
        lambda: result,
        lambda: read(tf.ensure_shape(tf.numpy_function(instead, [path], tf.string), ())),
    )
    result.set_shape(shape)
    return result


def first_readable(paths, read, instead_of):
    """The first of `paths` that `read` can read; a `named_errors` line if there is none.

    Args:
        paths: As bytes.
        read: As of `guarded`.
        instead_of: The path of the file that cannot be read, as bytes.
    """
    for path in paths:
        if _can(read, path):
            return path
    name = readable(instead_of)
    raise UserError(f"{BEGIN}{name} cannot be read, nor any other of its class{END}")


def first_unreadable(paths, read):
    """The first of `paths`, bytes, that `read` cannot read, or None."""
    paths = iter(paths)
    with ThreadPoolExecutor() as pool:
        while some := list(itertools.islice(paths, 512)):
            good = list(pool.map(lambda path: _can(read, path), some))
            if not all(good):
                return some[good.index(False)]
    return None


def _can(read, path):
    try:
        with tf.device("CPU:0"):
            read(tf.constant(path))
        return True
    except tf.errors.OpError:
        return False


def watch(split) -> None:
    """Have `named_errors` look for the file in a split when reading one has failed.

    Args:
        split: Its `unreadable()` gives the path of a file that cannot be read, or None.
    """
    _watched.add(split)


@contextlib.contextmanager
def named_errors():
    """Within it, or within what it decorates, a file that cannot be read is a `UserError`."""
    try:
        yield
    except tf.errors.OpError as error:
        text = str(error)
        found = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", text, re.DOTALL)
        if found:
            raise UserError(found[1]) from error
        if "IteratorGetNext" in text:  # TensorFlow does not say which file it was
            for split in list(_watched):
                if path := split.unreadable():
                    advice = getattr(split, "advice", ADVICE)
                    raise UserError(f"{readable(path)} {advice}") from error
        raise
