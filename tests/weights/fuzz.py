"""Opens damaged files of weights, each of which is read or refused in one line.

Arguments: a folder to work in, and a seed. It needs no framework, so that its memory is that of
reading. Prints a line of JSON: `files`, `read`, `refused`, `broken` (what else came of a file), the
longest `seconds` of one, and `bytes`, by which the process grew.
"""

import json
import struct
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from kerasdl.errors import UserError
from kerasdl.weights.files import open_weights, save_safetensors

RNG = np.random.default_rng(int(sys.argv[2]))
ARRAYS = {
    "a.weight": RNG.standard_normal((6, 5)).astype("float32"),
    "a.bias": RNG.standard_normal(6).astype("float16"),
    "count": np.arange(3),
}
HUGE = 10**15


def main(folder):
    files = list(damaged(Path(folder)))
    read(files[0])  # what is imported on the way counts for nothing
    before, found = peak(), {"read": 0, "refused": 0, "broken": [], "seconds": 0.0}
    for path in files:
        start = time.monotonic()
        try:
            read(path)
            found["read"] += 1
        except UserError as error:
            found["refused"] += 1
            if "\n" in str(error) or not str(error).startswith(str(path.parent)):
                found["broken"].append(f"{path.name}: {error!r}")
        except BaseException as error:
            found["broken"].append(f"{path.name}: {error!r}")
        found["seconds"] = max(found["seconds"], time.monotonic() - start)
    print(json.dumps(found | {"files": len(files), "bytes": peak() - before}))


def read(path):
    with open_weights(path) as weights:
        for name in weights:
            bytes(weights[name].data)


def peak() -> int:
    """The largest memory that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def damaged(folder):
    """The paths of files, of which the first is whole."""
    whole = {}
    for suffix in (".safetensors", ".npz", ".h5"):
        path = folder / f"whole{suffix}"
        write(path)
        whole[suffix] = path.read_bytes()
        yield path
    for suffix, content in whole.items():
        for i in range(24):
            yield made(folder / f"flipped{i}{suffix}", flipped(content, 1 + i % 6))
        for i, part in enumerate(np.linspace(0, len(content), 9, False).astype(int)):
            yield made(folder / f"cut{i}{suffix}", content[:part])
        yield made(folder / f"longer{suffix}", content + b"\0" * 64)
        yield made(folder / f"zeros{suffix}", bytes(len(content)))
    content = whole[".safetensors"]
    (length,) = struct.unpack("<Q", content[:8])
    for i, claim in enumerate((HUGE, 2**63, 2**64 - 1, 0, length - 1, length + 1)):
        yield made(folder / f"claims{i}.safetensors", struct.pack("<Q", claim) + content[8:])
    header = json.loads(content[8 : 8 + length])
    for i, change in enumerate(
        (
            {"shape": [HUGE]},
            {"shape": [2**31, 2**31, 2**31]},
            {"shape": [-1, 30]},
            {"shape": [6, 5], "data_offsets": [0, HUGE]},
            {"shape": [6.5, 5]},
            {"shape": "6"},
            {"dtype": "F512"},
            {"data_offsets": [0]},
        )
    ):
        other = header | {"a.weight": header["a.weight"] | change}
        yield made(folder / f"header{i}.safetensors", headed(other, content[8 + length :]))
    deep = b"[" * 100_000
    yield made(folder / "deep.safetensors", struct.pack("<Q", len(deep)) + deep)
    for i, map_ in enumerate(
        (None, [], {}, {"a": 1}, {"a": "../whole.npz"}, {"a": "none.npz"}, {"b": "whole.npz"})
    ):
        yield made(folder / f"m{i}.index.json", json.dumps({"weight_map": map_}).encode())
    yield made(folder / "deep.index.json", deep)
    huge = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE},)}}".encode().ljust(117)
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(huge) + 1) + huge + b"\n"
    np.savez(folder / "huge.npz", a=np.zeros(3))
    stored = np.lib.format.header_data_from_array_1_0(np.zeros(3))
    old = (folder / "huge.npz").read_bytes()
    start = old.index(b"\x93NUMPY")
    assert stored["shape"] == (3,)
    yield made(folder / "huge.npz", old[:start] + array + old[start + len(array) :])


def write(path):
    if path.suffix == ".safetensors":
        save_safetensors(path, ARRAYS)
    elif path.suffix == ".npz":
        np.savez(path, **ARRAYS)
    else:
        with h5py.File(path, "w") as file:
            for name, value in ARRAYS.items():
                file[name.replace(".", "/")] = value


def made(path, content):
    path.write_bytes(content)
    return path


def headed(header, rest):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def flipped(content, count):
    """With `count` bytes changed, most of them at the beginning, where headers are."""
    result = bytearray(content)
    for _ in range(count):
        end = len(result) if RNG.random() < 0.4 else min(len(result), 512)
        result[RNG.integers(end)] = RNG.integers(256)
    return bytes(result)


if __name__ == "__main__":
    main(sys.argv[1])
