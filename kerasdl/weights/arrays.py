"""Arrays by name that are read when they are asked for."""

import contextlib
import math
from collections.abc import Mapping

import numpy as np

from kerasdl.errors import UserError
from kerasdl.system import archives
from kerasdl.system.names import nearest
from kerasdl.system.terminal import printable

AXES = 32
LARGEST = 2**60  # bytes of one array
# What reading a damaged file raises
DAMAGED = (*archives.DAMAGED, MemoryError, SyntaxError, TypeError, KeyError)


class Weights(Mapping):
    """`{name: array}` of a file; narrow floats become float32, everything else stays as it is.

    Attributes:
        name: Where they are from.
        entries: `{name: (shape, dtype)}` as they are stored.
        metadata: `{name: text}`, of the file's writer.
    """

    def __init__(self, name, entries, read, metadata=None, close=None):
        """Args:
        name: Where they are from.
        entries: `{name: (shape, dtype)}` as they are stored.
        read: Function of a name that gives the array as it is stored.
        metadata: `{name: text}`.
        close: Function that gives what is open back.
        """
        self.name = str(name)
        self.entries = entries
        self.metadata = dict(metadata or {})
        self._read, self._close = read, close

    @property
    def shapes(self):
        """`{name: shape}`."""
        return {name: shape for name, (shape, _) in self.entries.items()}

    @property
    def dtypes(self):
        """`{name: dtype}` as they are stored."""
        return {name: dtype for name, (_, dtype) in self.entries.items()}

    @property
    def nbytes(self):
        """Bytes of all as they are stored."""
        return sum(math.prod(s) * dtype.itemsize for s, dtype in self.entries.values())

    def raw(self, name):
        """An array as it is stored.

        Raises:
            UserError: There is none of that name, or it cannot be read.
        """
        if name not in self.entries:
            raise UserError(f"{self.name}: has no {printable(name)}{nearest(name, self.entries)}")
        with reading(f"{self.name}: {printable(name)}"):
            return self._read(name)

    def __getitem__(self, name):
        """An array, its floats as float32 or float64.

        Raises:
            KeyError: There is none of that name.
            UserError: It cannot be read.
        """
        if name not in self.entries:
            raise KeyError(name)
        return widened(self.raw(name))

    def __contains__(self, name):
        return name in self.entries

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)

    def close(self):
        """Give back what is open; nothing can be read then."""
        if self._close is not None:
            self._close()
            self._close = None

    def __del__(self):
        if hasattr(self, "_close"):
            self.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def of_dict(arrays, name="the given arrays"):
    """`Weights` of arrays in memory, those of torch too.

    Raises:
        UserError: One of them holds no numbers.
    """
    values = {}
    for key, value in arrays.items():
        value = values[str(key)] = _of_torch(value) if hasattr(value, "detach") else value
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            value = values[str(key)] = np.asarray(value)
        check_dtype(f"{name}: {printable(key)}", np.dtype(value.dtype))
    entries = {key: (tuple(v.shape), np.dtype(v.dtype)) for key, v in values.items()}
    return Weights(name, entries, lambda key: np.asarray(values[key]))


def _of_torch(tensor):
    tensor = tensor.detach().cpu()
    narrow = str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8"))
    return (tensor.float() if narrow else tensor).numpy()


def widened(array):
    """An array, float32 if its floats are narrower."""
    return array.astype(np.float32) if is_narrow(array.dtype) else array


def is_narrow(dtype):
    """Whether a type of floats is narrower than float32; those of ml_dtypes are."""
    return dtype.itemsize < 4 and dtype.kind not in "iub" and is_number(dtype)


def is_number(dtype):
    """Whether a type is of whole numbers, truth values, or floats, those of ml_dtypes too."""
    return dtype.kind in "fiub" or dtype.name.startswith(("bfloat", "float8"))


def check_dtype(what, dtype):
    """Refuse what is no type of numbers.

    Raises:
        UserError: Names `what` it is.
    """
    if not is_number(dtype) or dtype.itemsize > 8:
        raise UserError(
            f"{what} is of type {printable(dtype)}; numbers of up to 8 bytes are allowed"
        )


def dtype_of(name):
    """A NumPy type by its name; those of ml_dtypes have none there."""
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))


def countable(shape, dtype):
    """Whether an array of that shape could be; zeros hide no other number of it."""
    return len(shape) <= AXES and math.prod(max(n, 1) for n in shape) * dtype.itemsize <= LARGEST


@contextlib.contextmanager
def reading(what):
    """Errors of files and formats as one line that begins with `what` is read.

    Raises:
        UserError: It cannot be.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or archives.first(error)
        raise UserError(f"{what}: cannot be read: {reason}") from None
    except DAMAGED as error:
        raise UserError(f"{what}: cannot be read: {archives.first(error)}") from None
