"""What identifies the examples of a data set, so that a run goes on with the ones it was made with.

Of a data set of files these are the paths within it, the classes, the sizes and both ends of the
contents; of others the contents. It does not hold where the data are: they may be moved.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kerasdl.columns import PARTS
from kerasdl.errors import UserError

END = 4096  # bytes of a file's start and end that are read
DIGEST_BYTES = 8


def of_source(source) -> dict:
    """The fingerprint of a `Source`, as JSON values.

    Returns:
        `{"parts": {part: {"examples", "digest"}}, "files": {part: {path: [digest, class]}}}`; there
        are `files` where each example is a file, and digests where the name of the data set does
        not decide what its examples are.
    """
    files = {}
    if source.files is not None:
        with ThreadPoolExecutor() as pool:
            for part, of_part in source.files.items():
                digests = pool.map(_digest_of_file, [path for path, _ in of_part.values()])
                files[part] = {
                    name: [digest, class_name]
                    for (name, (_, class_name)), digest in zip(
                        of_part.items(), digests, strict=True
                    )
                }
    parts = {}
    for part, split in source.parts.items():
        if part in files:
            digest = _hash(json.dumps(files[part], sort_keys=True).encode()).hexdigest()
        else:
            digest = None if source.generated else split.digest()
        parts[part] = {"examples": len(split), "digest": digest}
    return {"parts": parts, **({"files": files} if files else {})}


def division(fingerprint) -> dict | None:
    """`{path: part}` of the files of a fingerprint; None where there are none."""
    files = (fingerprint or {}).get("files")
    return files and {path: part for part, of_part in files.items() for path in of_part}


def check(old, new, name, parts=PARTS) -> int:
    """Refuse other data than those of a fingerprint, but for files that training has besides.

    Args:
        old: The fingerprint of the data that a run was started with.
        new: That of the data that are there now, divided as `division(old)` says.
        name: Of the data set.
        parts: Those that must agree, where the fingerprints hold no files.

    Returns:
        How many files are there besides.

    Raises:
        UserError: Names what changed.
    """
    problems, added = [], 0
    if "files" in old and "files" in new:
        problems, added = _changes_of_files(old["files"], new["files"])
    else:
        for part in parts:
            before, after = old["parts"][part], new["parts"][part]
            if before["examples"] != after["examples"]:
                problems.append(
                    f"the {part} part has {after['examples']:,} examples, had "
                    f"{before['examples']:,}"
                )
            elif before["digest"] != after["digest"]:
                problems.append(f"the {part} part has other contents")
    if problems:
        raise UserError(
            f"--dataset {name}: not the data that this run was started with: {'; '.join(problems)}"
        )
    return added


def _changes_of_files(old, new):
    """Lines of what is no longer as it was, and how many files are new."""
    before, after = (
        {
            path: (part, *values)
            for part, of_part in files.items()
            for path, values in of_part.items()
        }
        for files in (old, new)
    )
    kinds = {"missing": [], "content": [], "class": [], "part": []}
    for path, (part, digest, class_name) in before.items():
        if path not in after:
            kinds["missing"].append(path)
            continue
        part_now, digest_now, class_now = after[path]
        if digest_now != digest:
            kinds["content"].append(path)
        elif class_now != class_name:
            kinds["class"].append(f"{path}, {class_name} before and now {class_now}")
        elif part_now != part:
            kinds["part"].append(f"{path}, {part} before and now {part_now}")
    added = [path for path in after if path not in before]
    kinds["new"] = [f"{path} ({after[path][0]})" for path in added if after[path][0] != "train"]
    lines = {
        "new": "new in a part that is evaluated",
        "missing": "missing",
        "content": "with other contents",
        "class": "labeled otherwise",
        "part": "in another part",
    }
    problems = [
        f"{len(paths):,} file{'s' * (len(paths) > 1)} {lines[kind]}, the first {paths[0]}"
        for kind, paths in kinds.items()
        if paths
    ]
    return problems, len(added)


def _digest_of_file(path):
    """Of its size, its first and its last bytes."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(END)
        if size > 2 * END:
            file.seek(-END, os.SEEK_END)
        content += file.read(END)
    return _hash(str(size).encode() + b":" + content).hexdigest()


def of_arrays(arrays) -> str:
    """A digest of `{name: array}`: names, types, shapes and contents."""
    result = _hash()
    for name in sorted(arrays):
        array = arrays[name]
        result.update(f"{name} {array.dtype.str} {array.shape};".encode())
        result.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return result.hexdigest()


def _hash(content=b""):
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES)
