"""Open a file of weights by name; what stands in it is untrusted and checked before it is read.

| where | what |
|---|---|
| `.safetensors` | one file of the Hugging Face Hub, of timm, of diffusers |
| `.safetensors.index.json`, `.bin.index.json`, `.weights.json` | the index of several such files |
| `.npz` | NumPy's; those below `weights/` alone where there are such |
| `.h5` | those of Keras and `keras.applications`, by their paths inside |
| `.pth`, `.pt`, `.bin` | torch's, where torch is installed |
| a folder | one of these in it |
| a dict | arrays of NumPy or torch |
"""

import contextlib
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kerasdl.errors import UserError
from kerasdl.system import archives
from kerasdl.system.names import few, nearest
from kerasdl.system.terminal import printable
from kerasdl.weights import arrays, hdf5, safetensors

save_safetensors = safetensors.save
INDEX = 32 * archives.MIB  # bytes
TORCH = (".pth", ".pt", ".bin")
BELOW = "weights/"  # of names in an npz
TEXT = archives.MIB  # bytes of a text beside the arrays of an npz
STATES = ("state_dict", "model_state_dict", "model", "module")  # where a training keeps its weights
# Files that a folder holds, the first there is; and folders of diffusers' pipelines
STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")
FILES = (
    *(f"{stem}{end}" for stem in STEMS for end in (".safetensors", ".safetensors.index.json")),
    *("model.weights.h5", "model.weights.json"),
    *(f"{stem}{end}" for stem in STEMS for end in (".bin", ".bin.index.json")),
)
FOLDERS = ("unet", "transformer")
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.safetensors|\.bin)")


def open_weights(where):
    """Arrays by name, read when they are asked for.

    Args:
        where: A file, a folder that holds one, or a dict of arrays.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: There is nothing of that kind, or it is damaged.
    """
    if isinstance(where, arrays.Weights):
        return where
    if isinstance(where, Mapping):
        return arrays.of_dict(where)
    path = Path(where)
    with arrays.reading(where):
        if path.is_dir():
            path = file_of(path)
        elif not path.exists():
            raise UserError(f"{where}: there is no such file or folder")
        if not path.is_file():
            raise UserError(f"{path}: is no file")
    for suffix, read in READERS.items():
        if path.name.lower().endswith(suffix):
            return read(path)
    raise UserError(f"{path}: is no file of weights by its name; there may be {', '.join(READERS)}")


def file_of(folder):
    """The file of weights, or the index of several, in a folder.

    Raises:
        UserError: There is none, or more than one that could be meant.
    """
    folder = Path(folder)
    for place in (folder, *(folder / name for name in FOLDERS)):
        for name in FILES:
            if (place / name).is_file():
                return place / name
    names = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if part := next(filter(None, map(SHARD.fullmatch, names)), None):
        raise UserError(
            f"{folder}: {part[1]}{part[4]}.index.json is missing, which names the parts of "
            f"{part[1]}, such as {printable(part[0])}"
        )
    if len(names) == 1:
        return folder / names[0]
    if names:
        raise UserError(f"{folder}: holds several files of weights, name one: {few(names)}")
    raise UserError(f"{folder}: holds no file of weights; there may be {', '.join(FILES[:4])}, ...")


def read_npz(path):
    """Open an archive of NumPy; its texts become `metadata`.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: It is damaged, or holds anything but numbers.
    """
    entries, members, texts = {}, {}, {}
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(archives.opened(path))
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(infos) < len(archive.infolist()):
            raise UserError(f"{path}: holds an array twice, with .npy and without")
        below = BELOW if any(name.startswith(BELOW) for name in infos) else ""
        for name, info in infos.items():
            with archive.open(info) as file:
                shape, dtype = archives.array_header(file)
                start = file.tell()
            if dtype.kind == "U" and shape == () and info.file_size <= TEXT:
                texts[name] = str(archives.read_array(archive, info))
            elif name.startswith(below):
                what = f"{path}: {printable(name)}"
                arrays.check_dtype(what, dtype)
                size = math.prod(shape) * dtype.itemsize
                if not arrays.countable(shape, dtype) or start + size != info.file_size:
                    raise UserError(f"{what}: its shape {printable(shape)} does not fit its size")
                name = name.removeprefix(below)
                entries[name], members[name] = (tuple(shape), dtype), info
        close = stack.pop_all().close
    return arrays.Weights(
        path, entries, lambda name: archives.read_array(archive, members[name]), texts, close
    )


def conversion(path) -> str:
    """How a file of torch is converted where torch is."""
    path = Path(path)
    return (
        "convert the file where it is: import torch, safetensors.torch; "
        "safetensors.torch.save_file({k: v.clone() for k, v in torch.load("
        f"{path.name!r}, weights_only=True, map_location='cpu').items()}}, "
        f"{path.stem + safetensors.SUFFIX!r})"
    )


def read_torch(path):
    """Open a file of torch, where that is installed; nothing but numbers is unpickled.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: torch is not installed, or does not read it, or it holds no arrays by name.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: only torch reads this format, and it is not installed; {conversion(path)}"
        ) from None
    if zipfile.is_zipfile(path):
        with archives.opened(path):
            pass  # its directory is checked
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, and of many lines
        raise UserError(f"{path}: torch cannot read it: {archives.first(error)}") from None
    while isinstance(value, Mapping) and not any(map(_is_tensor, value.values())):
        value = next((value[key] for key in STATES if key in value), None)
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: holds no arrays by name")
    others = [key for key, one in value.items() if not _is_tensor(one)]
    if others:
        raise UserError(f"{path}: holds no numbers under {few(others, 3)}")
    return arrays.of_dict(value, path)


def _is_tensor(value):
    return hasattr(value, "detach")


def read_index(path):
    """Open the files that an index names.

    Returns:
        `arrays.Weights`.

    Raises:
        UserError: It is no index, a file or an array of it is missing, or one is damaged.
    """
    places = shards_of(path)
    names = sorted({name for each in places.values() for name in each})
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise UserError(
            f"{path}: {len(missing)} of {len(names)} files of weights are missing: "
            f"{few(missing, 5)}"
        )
    shards = {}

    def close():
        for shard in shards.values():
            shard.close()

    try:
        for name in names:
            shards[name] = open_weights(path.parent / name)
        owners = _owners(path, places, shards)
    except BaseException:
        close()
        raise
    entries = {name: shards[shard].entries[name] for name, shard in owners.items()}
    metadata = next(iter(shards.values())).metadata if shards else {}
    return arrays.Weights(path, entries, lambda n: shards[owners[n]].raw(n), metadata, close)


def shards_of(path):
    """`{name of an array, or of a group of them: its files}` of an index.

    Raises:
        UserError: It is no index, or names what is no file beside it.
    """
    places = archives.read_json(path, INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{path}: is no index of weights: has no weight_map")
    for name, files in places.items():
        places[name] = files = files if isinstance(files, list) else [files]
        for file in files:
            kinds = (safetensors.SUFFIX, *hdf5.SUFFIXES, *TORCH)
            plain = isinstance(file, str) and "\\" not in file and "\0" not in file
            if not plain or PurePosixPath(file).name != file or not file.endswith(kinds):
                raise UserError(
                    f"{path}: {printable(file)} is no file of weights beside the index; "
                    f"{printable(name)} cannot stand there"
                )
    return places


def _owners(path, places, shards):
    """`{name: its file}`; an index of Keras names groups."""
    owners = {}
    groups = {f: {f"/{n.rpartition('/')[0]}" for n in shard} for f, shard in shards.items()}
    for name, files in places.items():
        for file in files:
            if name in shards[file]:
                owners[name] = file
            elif name not in groups[file]:
                raise UserError(
                    f"{path}: {printable(name)} is missing in {file}{nearest(name, shards[file])}"
                )
    for file, shard in shards.items():
        for name in shard:
            other = owners.setdefault(name, file)
            if other != file and name not in places:
                raise UserError(f"{path}: {printable(name)} stands in {other} and in {file}")
    return owners


READERS = {  # by the end of the name
    safetensors.SUFFIX: safetensors.read,
    ".npz": read_npz,
    **dict.fromkeys(hdf5.SUFFIXES, hdf5.read),
    **dict.fromkeys(TORCH, read_torch),
    ".index.json": read_index,
    ".weights.json": read_index,
}
SUFFIXES = {suffix for suffix in READERS if not suffix.endswith(".json")}
