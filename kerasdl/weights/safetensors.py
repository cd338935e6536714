"""Read and write safetensors files: a header in JSON, checked before a number is read.

Source: https://huggingface.co/docs/safetensors
"""

import json
import math
import os
from collections import Counter

import numpy as np

from kerasdl.errors import UserError
from kerasdl.system import archives
from kerasdl.system.files import replacing
from kerasdl.system.terminal import printable
from kerasdl.weights import arrays

SUFFIX = ".safetensors"
HEADER = 16 * archives.MIB  # bytes; 100,000 names need some 10 MiB
# Number types in the order in which the library writes them
DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(path):
    """Open a file; reads its header alone.

    Args:
        path: Of the file.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: The header is not as the format says, or does not fit the file's size.
    """
    with arrays.reading(path):
        file = open(path, "rb")
    try:
        with arrays.reading(path):
            size = os.fstat(file.fileno()).st_size
            start, header = _header(path, file, size)
            metadata = _metadata(path, header.pop("__metadata__", {}))
            entries, places = _entries(path, header, size - start)
    except BaseException:
        file.close()
        raise

    def one(name):
        shape, dtype = entries[name]
        file.seek(start + places[name])
        value = np.fromfile(file, dtype, math.prod(shape))
        if value.size != math.prod(shape):
            raise ValueError("the file has become shorter")
        return value.reshape(shape)

    return arrays.Weights(path, entries, one, metadata, file.close)


def save(path, weights, metadata=None):
    """Write arrays, byte for byte as the format's library does, under a temporary name; rename it.

    Args:
        path: Of the file.
        weights: `{name: array}`, or what is like it: one array is asked for at a time.
        metadata: `{name: text}`.

    Raises:
        UserError: A type that the format does not have.
    """
    entries = weights.entries if isinstance(weights, arrays.Weights) else None
    get = weights.raw if isinstance(weights, arrays.Weights) else lambda name: weights[name]
    if entries is None:
        entries = {name: (np.shape(v), np.dtype(v.dtype)) for name, v in weights.items()}
    for name, (_, dtype) in entries.items():
        if dtype.name not in NAMES:
            raise UserError(f"{path}: {name} is of type {dtype}, which safetensors does not have")
    ranks = list(DTYPES.values())
    order = sorted(entries, key=lambda name: (ranks.index(entries[name][1].name), name))
    header, place = {}, 0
    if metadata:
        header["__metadata__"] = {str(key): str(value) for key, value in metadata.items()}
    for name in order:
        shape, dtype = entries[name]
        end = place + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": NAMES[dtype.name],
            "shape": [int(n) for n in shape],
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            value = np.ascontiguousarray(get(name), entries[name][1].newbyteorder("<"))
            if value.nbytes:
                file.write(value.reshape(-1).view(np.uint8).data)


def _header(path, file, size):
    """Where the numbers begin, and the header's object."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length < 2:
        raise UserError(f"{path}: is truncated, or no safetensors file: has no header")
    if length > size - 8:
        raise UserError(
            f"{path}: is truncated, or no safetensors file: its header has {length:,} bytes, "
            f"the file {size:,}"
        )
    if length > HEADER:
        raise UserError(f"{path}: its header has {length:,} bytes; {HEADER:,} are allowed")
    text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header cannot be read: {archives.first(error)}") from None
    if not isinstance(header, dict):
        raise UserError(f"{path}: its header cannot be read: is no JSON object")
    return 8 + length, header


def _once(pairs):
    """A dict of pairs with different keys."""
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"holds {printable(twice)} twice")
    return result


def _refuse(constant):
    raise ValueError(f"holds {constant}")


def _metadata(path, value):
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise UserError(f"{path}: its __metadata__ is no object of texts")
    return value


def _entries(path, header, size):
    """`({name: (shape, dtype)}, {name: first byte})` of a header whose arrays fill `size` bytes."""
    entries, spans = {}, {}
    for name, entry in header.items():
        what = f"{path}: {printable(name)}"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise UserError(f"{what} has not the fields dtype, shape and data_offsets")
        shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            allowed = ", ".join(DTYPES)
            raise UserError(f"{what} is of type {printable(dtype)}; there may be {allowed}")
        dtype = arrays.dtype_of(DTYPES[dtype])
        if not _whole(shape) or not arrays.countable(shape, dtype):
            raise UserError(f"{what} has no shape that can be: {printable(shape)}")
        if not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise UserError(f"{what} has no data_offsets that can be: {printable(offsets)}")
        if offsets[1] > size:
            raise UserError(
                f"{path}: is truncated: {printable(name)} ends at byte {offsets[1]:,} of {size:,}"
            )
        needed = math.prod(shape) * dtype.itemsize
        if offsets[1] - offsets[0] != needed:
            raise UserError(
                f"{what} has {offsets[1] - offsets[0]:,} bytes; its shape {printable(shape)} "
                f"needs {needed:,}"
            )
        entries[name], spans[name] = (tuple(shape), dtype), tuple(offsets)
    place = 0
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start != place:
            kind = "overlaps the array before" if start < place else "leaves bytes before it out"
            raise UserError(f"{path}: {printable(name)} {kind}")
        place = end
    if place != size:
        raise UserError(f"{path}: has {size - place:,} bytes that belong to no array")
    return entries, {name: start for name, (start, _) in spans.items()}


def _whole(values):
    """Whether these are whole numbers of at least 0, and of a size that files have."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)
