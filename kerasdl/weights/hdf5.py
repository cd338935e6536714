"""Read HDF5 files of weights: plain arrays, each in one piece and within its file."""

import os

import numpy as np

from kerasdl.errors import UserError
from kerasdl.weights import arrays

SUFFIXES = (".h5", ".hdf5")
DEPTH = 32  # of groups


def read(path):
    """Open a file of Keras, of `keras.applications` too; names are paths inside.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: It is damaged, or holds anything but arrays of numbers, each in one piece.
    """
    with arrays.reading(path):
        size = os.stat(path).st_size
        file = opened(path)
    try:
        with arrays.reading(path):
            datasets = _named(path, file, size)
            entries = {name: (d.shape, _dtype(d)) for name, d in datasets.items()}
    except BaseException:
        file.close()
        raise

    def one(name):
        return np.asarray(datasets[name][()]).view(entries[name][1])

    return arrays.Weights(path, entries, one, close=file.close)


def _named(path, file, size):
    try:
        return dict(arrays_of(file, size))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def opened(path):
    """An HDF5 file, or one in memory, to be read."""
    import h5py

    return h5py.File(path, "r")


def arrays_of(file, size):
    """`[(path, dataset)]` of all that an HDF5 file of `size` bytes holds.

    Raises:
        UserError: A link, an array that does not stand there as it is, or more than the file holds;
            and what h5py raises for damaged files.
    """
    total, result = 0, []
    for name, dataset in _walk(file, "", DEPTH, set()):
        _check_array(name, dataset)
        total += dataset.nbytes
        if total > size:
            raise UserError(f"{name} and those before it are larger than their file")
        result.append((name, dataset))
    return result


def _walk(group, place, depth, seen):
    """`(path, dataset)` of all below a group."""
    import h5py

    if not depth:
        raise UserError(f"more than {DEPTH} groups are in one another")
    for name in group:
        one = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        address = one and h5py.h5o.get_info(one.id).addr
        if not address or address in seen:
            raise UserError(f"{place}{name}: is a link")
        seen.add(address)
        if isinstance(one, h5py.Group):
            yield from _walk(one, f"{place}{name}/", depth - 1, seen)
        elif isinstance(one, h5py.Dataset):
            yield f"{place}{name}", one
        else:
            raise UserError(f"{place}{name}: is no array")


def _check_array(name, dataset):
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{name}: stands in another file")
    if dataset.dtype.kind not in "fiub" and not _is_bfloat16(dataset) or dataset.shape is None:
        raise UserError(f"{name}: holds no numbers")
    if dataset.chunks is not None or dataset.id.get_storage_size() != dataset.nbytes:
        raise UserError(f"{name}: does not stand there as it is")


def _is_bfloat16(dataset):
    """Whether Keras wrote bfloat16, which HDF5 keeps as two bytes without a meaning."""
    return dataset.dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"


def _dtype(dataset):
    return arrays.dtype_of("bfloat16") if _is_bfloat16(dataset) else dataset.dtype
