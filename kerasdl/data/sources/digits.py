"""`digits`: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn."""

from kerasdl.columns import PARTS
from kerasdl.data.arrays import from_arrays
from kerasdl.data.handwriting import handwritten
from kerasdl.data.splits import check_no_argument

GIVES = {"image": "image", "label": "label"}


def load(where, options):
    """The digits; the last 360 are the test part, the 180 before them validation."""
    check_no_argument(where, options)
    parts = {part: handwritten(part) for part in PARTS}
    return from_arrays(parts, options, class_names=tuple("0123456789"))
