"""Files that are read when they are needed: one that cannot be read is named, or another one
stands for it."""

import contextlib
import os
import re

import tensorflow as tf

from kerasdl.errors import UserError

BEGIN, END = "[kerasdl: ", " :kerasdl]"  # of a line within an error of TensorFlow
ADVICE = " cannot be read; --skip-bad-files puts another of its class in its place"


def readable(path) -> str:
    """A path or name as text that can be printed: bytes that are no UTF-8 as `\\xe9`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@tf.autograph.experimental.do_not_convert
def guarded(path, read, shape, instead=None):
    """What `read` makes of a file.

    Args:
        path: string scalar.
        read: `path -> float32 tensor`, in graph operations.
        shape: Of what it gives.
        instead: `path as bytes -> path` of the file that stands for one that cannot be read; or
            None, where that is an error, which `named_errors` makes a `UserError`.
    """
    # The one way to go on after an operation has failed.
    done = tf.data.Dataset.from_tensors(path).map(lambda path: (read(path), True)).ignore_errors()
    failed = tf.data.Dataset.from_tensors((tf.zeros(shape), False))
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    result, good = done.concatenate(failed).take(1).with_options(options).get_single_element()
    if instead is None:
        name = tf.strings.unicode_transcode(path, "UTF-8", "UTF-8", replacement_char=ord("?"))
        line = tf.strings.join([BEGIN, name, ADVICE, END])
        with tf.control_dependencies([tf.debugging.Assert(good, [line])]):
            return tf.identity(result)
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
        with contextlib.suppress(tf.errors.OpError):
            read(tf.constant(path))
            return path
    name = readable(instead_of)
    raise UserError(f"{BEGIN}{name} cannot be read, nor any other of its class{END}")


@contextlib.contextmanager
def named_errors():
    """Within it, or within what it decorates, a file that cannot be read is a `UserError`."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", str(error), re.DOTALL)
        if not found:
            raise
        raise UserError(found[1]) from error
