"""`digit_rows`: the digits of `digits`, for models that read an image row by row."""

from kerasdl.data.sources import digits

GIVES = digits.GIVES


def load(where, options):
    """The same images, labels and parts as `digits`."""
    return digits.load(where, options)
