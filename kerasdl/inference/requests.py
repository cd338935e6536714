"""The checks of a request in the graph of a SavedModel: no server checks what it is sent.

Shapes first, then numbers, then what depends on several inputs; the first failure is reported, and
nothing is computed of what failed.
"""

import tensorflow as tf

from kerasdl.columns import PIXELS, RANGES
from kerasdl.tasks import bounds

TOLERANCE = 1e-3  # beyond a range of floats: of pixels that were resized, by rounding


class Checks:
    """Assertions that are made one after the other."""

    def __init__(self):
        self._last = []

    def check(self, right, message: str, *found):
        """Refuse a request with a message, and the tensors that say what was found."""
        with tf.control_dependencies(self._last):
            data = [tf.constant(message), *found]
            self._last = [tf.raw_ops.Assert(condition=tf.reduce_all(right), data=data)]

    def shape(self, name: str, value, shape):
        """Refuse a tensor of another shape; returns it. None is any size."""
        with tf.control_dependencies(self._last):
            value = tf.raw_ops.EnsureShape(input=value, shape=shape, name=name)
            self._last = [value]
        return value

    def after(self, values: dict) -> dict:
        """The same tensors, computed after all checks."""
        with tf.control_dependencies(self._last):
            return {name: tf.identity(value) for name, value in values.items()}


def shaped(checks: Checks, tensors: dict, specs, signature, allowed: dict) -> dict:
    """The tensors of a request, whose shapes and sizes are checked.

    Args:
        checks: The request's.
        tensors: `{input of the signature: tensor}` as they are served.
        specs: Their `TensorSpec`s, whose names are told to users.
        signature: The `Signature`.
        allowed: Of `bounds.of_request`.

    Returns:
        The same tensors.
    """
    values, batches = {}, {}
    for (name, value), spec in zip(tensors.items(), specs, strict=True):
        if spec.shape.rank is None:  # one number, or one per text
            values[name] = value
            continue
        values[name] = checks.shape(spec.name, value, spec.shape)
        if signature.inputs[name].batched:
            batches[spec.name] = tf.shape(values[name])[0]
    if batches:
        sizes = tf.stack(list(batches.values()))
        if len(batches) > 1:
            message = f"{', '.join(batches)} must have as many examples as each other, but have"
            checks.check(tf.equal(sizes, sizes[0]), message, sizes)
        count, most = sizes[0], allowed["examples"]
        message = f"a request must have at least 1 and at most {most:,} examples, but has"
        checks.check((count >= 1) & (count <= most), message, count)
        for (name, value), spec in zip(values.items(), specs, strict=True):
            if spec.shape.rank is None:
                size = tf.size(value)
                right = (tf.rank(value) <= 1) & (tf.equal(size, 1) | tf.equal(size, count))
                message = f"{spec.name} must be one number or one per example, but there are"
                checks.check(right, message, size)
            elif name in signature.text_inputs:
                texts = _texts(checks, spec.name, value, count, signature.inputs[name], allowed)
                _bounded(checks, spec.name, texts, tf.strings.length(value), "text_bytes", allowed)
            elif signature.inputs[name].kind == "tokens":
                length = tf.shape(value)[-1]
                checks.check(length >= 1, f"{spec.name} must have at least 1 token per example")
                texts = _texts(checks, spec.name, value, count, signature.inputs[name], allowed)
                _bounded(checks, spec.name, texts, length, "tokens", allowed)
    return checks.after(values)


def _texts(checks, name, value, count, spec, allowed):
    """How many texts an input has: as many as there are examples, or any number of its own."""
    if spec.batched:
        return tf.size(value) // tf.shape(value)[-1] if spec.shape[1:] else count
    texts, most = tf.shape(value)[0], allowed["examples"]
    message = f"{name}: there must be at least 1 and at most {most:,} texts, but there are"
    checks.check((texts >= 1) & (texts <= most), message, texts)
    return texts


def _bounded(checks, name, count, length, bound, allowed):
    """Refuse texts that are too long together, each as long as the longest."""
    whole = tf.cast(count, tf.int64) * tf.cast(tf.reduce_max(length), tf.int64)
    message = f"{name}: at most {bounds.WORDS[bound].format(f'{allowed[bound]:,}')}, but there are"
    checks.check(whole <= allowed[bound], message, whole)


def checked(checks: Checks, values: dict, made, signature, info) -> dict:
    """The same tensors, given only where their numbers and their sum are as they must be.

    Args:
        checks: The request's.
        values: `{input of the function: tensor}`.
        made: Names of those that were made from files and texts, which are right.
        signature: The `Signature`.
        info: The `DataInfo`.
    """
    for name, spec in signature.inputs.items():
        if name not in made:
            _check_numbers(checks, name, values[name], spec, info)
    for name, spec in signature.inputs.items():
        for axis, size in enumerate(spec.shape if not spec.batched else ()):
            if size in signature.inputs:
                right = tf.equal(tf.shape(values[name])[axis], values[size])
                checks.check(right, f"{name} must have {size} entries")
    wide = {
        name: tf.cast(value, tf.int64) if value.dtype.is_integer else value
        for name, value in values.items()
    }
    for limit in signature.limits:
        for right in limit.met(wide):
            checks.check(right, limit.message)
    return checks.after(values)


def _check_numbers(checks, name, value, spec, info):
    """Refuse what is not finite, or outside of the range of its kind."""
    low, high = range_of(spec, info)
    if value.dtype.is_floating:
        words = f"{name} must be finite"
        message = words if low is None else f"{words} and from {low:g} to {high:g}"
        low = value.dtype.min if low is None else low - TOLERANCE
        high = value.dtype.max if high is None else high + TOLERANCE
    elif low is None:
        return
    else:
        message = f"{name} must be from {low:,} to {high:,}"
    if spec.kind in PIXELS:
        message += " (pixels of 0 to 255 divided by 255)"
    # Of numbers that are none the smallest and the largest are none either.
    smallest, largest = tf.reduce_min(value), tf.reduce_max(value)
    right = (smallest >= low) & (largest <= high)
    checks.check(right, f"{message}, but its smallest and largest are", smallest, largest)


def range_of(spec, info) -> tuple:
    """The smallest and the largest number that an input may hold; None, None is any.

    Args:
        spec: Its `Spec`.
        info: The `DataInfo`, whose vocabulary token ids are of.
    """
    if spec.min is not None:
        return spec.min, spec.max
    if spec.kind == "tokens" and info.vocab_size:
        return 0, info.vocab_size - 1
    return RANGES.get(spec.kind, (None, None))
