"""`python_docs`: the docstrings of the running Python's standard library: text on any machine."""

import ast
import hashlib
import os
import platform
import sysconfig
import warnings
from pathlib import Path

from kerasdl.data.sources.text import BETWEEN, language_source
from kerasdl.data.splits import check_no_argument
from kerasdl.errors import UserError

GIVES = {"token_ids": "tokens"}
# Installed packages, tests and their broken files, whole programs, and copies of other packages.
SKIPPED = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"),
    *("pydoc_data", "_bundled", "lib-dynload", "__pycache__"),
}
COPIED = 0.5  # a module of which more stands in training modules, line by line, is one of these
PARTS = (("train", 0.8), ("validation", 0.9), ("test", 1.0))


def load(where, options):
    """All docstrings, one document per module, divided by a hash of the module's name.

    Validation and test are about a tenth of the modules each; those that mostly repeat lines of
    training modules are moved to training.
    """
    check_no_argument(where, options)
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = docstrings(root)
    if not texts:
        raise UserError(
            f"{options.name}: Python {platform.python_version()} has no source files in {root}, so "
            "there are no docstrings to read; text:FILE_OR_FOLDER reads other text"
        )
    parts, moved = divide(texts)
    count = sum(map(len, texts.values()))
    notes = [
        f"python_docs of Python {platform.python_version()}: {len(texts)} modules, "
        f"{count:,} characters; divided by module into "
        + ", ".join(f"{len(names)} {part}" for part, names in parts.items())
        + f"; {moved} of these were moved to train, since they copy its modules"
    ]
    documents = {part: [texts[name] for name in names] for part, names in parts.items()}
    return language_source(options, documents, notes)


def docstrings(root) -> dict[str, str]:
    """`{module: its docstrings in the order of the file}` of the Python files in a folder."""
    result, paths = {}, []
    for folder, below, names in os.walk(root):
        below[:] = [n for n in below if n not in SKIPPED and not n.startswith("config-")]
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    for path in sorted(paths):
        try:
            with warnings.catch_warnings():  # of escapes that a later Python refuses
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
        nodes.sort(key=lambda node: getattr(node, "lineno", 0))
        texts = [text.strip() for text in map(ast.get_docstring, nodes) if text]
        if text := BETWEEN.join(filter(None, texts)):
            result[".".join(path.relative_to(root).with_suffix("").parts)] = text
    return result


def divide(documents):
    """Divide modules.

    Args:
        documents: `{module: text}`.

    Returns:
        `{part: modules}`, and how many were moved to training since they copy it.
    """
    parts = {part: [] for part, _ in PARTS}
    for name in documents:
        place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
        parts[next(part for part, end in PARTS if place < end)].append(name)
    lines = {name: [line.strip() for line in text.split("\n")] for name, text in documents.items()}
    seen = {line for name in parts["train"] for line in lines[name]}
    moved = 0
    while True:
        copies = [
            (part, name)
            for part in ("validation", "test")
            for name in parts[part]
            if sum(len(x) for x in lines[name] if x in seen) > COPIED * sum(map(len, lines[name]))
        ]
        if not copies:
            return {part: sorted(names) for part, names in parts.items()}, moved
        for part, name in copies:
            parts[part].remove(name)
            parts["train"].append(name)
            seen.update(lines[name])
        moved += len(copies)
