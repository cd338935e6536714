"""What the architecture promises of the source: imports, docstrings, sizes, papers, start-up."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kerasdl.catalog import MODELS as BUILDERS
from kerasdl.catalog import ROWS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kerasdl"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
MODELS = [p for p in FILES if p.is_relative_to(PACKAGE / "models") and p.name != "__init__.py"]

FRAMEWORKS = ("tensorflow", "keras", "jax", "torch", "keras_cv", "keras_hub", "keras_nlp")
OTHERS = "any library that is no framework"
_BASE = {"errors", "system", "columns"}
_KERAS = {*_BASE, "keras", "numpy", "ops"}
_RUN = {*_KERAS, "tensorflow", "layers", "tasks", "recipe", "catalog", "weights", "store", OTHERS}
# What a part of the package may import besides itself and the standard library: parts of ours,
# frameworks, and other libraries. Parts that are not listed may import anything.
ALLOWED = {
    "errors": set(),
    "columns": set(),
    # One function loads TensorFlow without its notes, two read arrays of archives.
    "system": {"errors", "tensorflow", "numpy"},
    "recipe": _BASE,
    "catalog": _BASE,
    "kerasdl": {"catalog", "store"},
    "launch": _BASE,
    "ops": {*_BASE, "keras", "numpy"},
    "layers": _KERAS,
    "models": {*_KERAS, "layers", "recipe", "catalog", "tasks.task"},
    "metrics": {*_KERAS, "keras_cv", OTHERS},
    "tasks": {*_KERAS, "layers", "metrics", "recipe"},
    "data": {*_KERAS, "tensorflow", "keras_cv", "keras_hub", "tasks.task", OTHERS},
    # One function reads torch's files where torch is installed, two find presets of KerasHub.
    "weights": {*_KERAS, "layers", "catalog", "torch", "keras_hub", OTHERS},
    # Published weights have a tokenizer beside them.
    "store": {*_RUN, "data.text"} - {"store"},
    "training": {*_RUN, "data", "metrics"},
    "inference": {*_RUN, "data", "metrics"},
    "export": {*_RUN, "data", "inference", "kerasdl"},
    "report": {*_RUN, "inference"},
}


def module_of(path):
    """`kerasdl.layers.core` of its file, `kerasdl.layers` of that folder's `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module):
    """`layers` of `kerasdl.layers.core`, `app` of `kerasdl.app`, `kerasdl` of the package's top."""
    return module.split(".")[1] if "." in module else module


MODULES = {module_of(path): path for path in FILES}


def imports(path):
    """Every module that a file imports, within functions too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


GRAPH = {m: {i for i in imports(p) if i in MODULES and i != m} for m, p in MODULES.items()}


def circle(graph):
    """Some nodes of a graph that import each other in a circle, or an empty list."""
    done, on_path = set(), []

    def visit(node):
        if node in on_path:
            return [*on_path[on_path.index(node) :], node]
        if node in done:
            return []
        on_path.append(node)
        for neighbor in sorted(graph.get(node, ())):
            if result := visit(neighbor):
                return result
        done.add(on_path.pop())
        return []

    return next(filter(None, map(visit, sorted(graph))), [])


def test_no_circle_of_files():
    assert not circle(GRAPH), " -> ".join(circle(GRAPH))


def test_no_circle_of_packages():
    packages = {}
    for module, others in GRAPH.items():
        own = packages.setdefault(part_of(module), set())
        own |= {part_of(other) for other in others} - {part_of(module)}
    assert not circle(packages), " -> ".join(circle(packages))


def test_a_circle_is_noticed():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def allowed(part, module):
    """Whether files of `part` may import a module."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top != "kerasdl":
        return top in ALLOWED[part] or (top not in FRAMEWORKS and OTHERS in ALLOWED[part])
    below = module.removeprefix("kerasdl.")
    inside = {part, *ALLOWED[part]}
    return any(below == name or below.startswith(name + ".") for name in inside)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_inwards(path):
    part = part_of(module_of(path))
    if part not in ALLOWED:
        return
    wrong = sorted({m for m in imports(path) if not allowed(part, m)})
    assert not wrong, f"{path.relative_to(ROOT)} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_things_have_docstrings(path):
    tree = TREES[path]
    if not path.read_text().strip():
        return  # a package without code of its own
    assert ast.get_docstring(tree), f"{path.relative_to(ROOT)}: no docstring"
    missing = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and node.name not in BUILDERS  # the row, the table and the class say what they are
    ]
    assert not missing, f"{path.relative_to(ROOT)}: no docstring of {', '.join(missing)}"


# Words that the field has others for, and British spelling; a star stands for any ending.
COINAGES = (
    "judg* referee* law laws wish* starved drawn_from no_lite_batch artefact* colour* grey* "
    "centre* "
    "neighbour* optimis* normalis* quantis* initialis* synchronis* recognis* behaviour* labelled "
    "favour* modelling regularis* standardis* parallelis* summaris*"
).split()
COINED = re.compile(rf"\b(?:{'|'.join(w.replace('*', '[a-z_]*') for w in COINAGES)})\b", re.I)
KEYS = ('"referee"', "`referee`", '"recognised"', "`recognised`")  # of metrics.json: they stay


def coined(text):
    """The words of a text that stand in the list, without keys of files."""
    for key in KEYS:
        text = text.replace(key, "")
    return sorted({word.lower() for word in COINED.findall(text)})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_words_are_the_fields(path):
    assert not coined(path.read_text())


def test_a_coinage_is_noticed():
    assert coined("# Judged by the law of colours") == ["colours", "judged", "law"]
    assert coined('way["recognised"] of a lawn, judicious') == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_a_model_names_its_paper_and_its_deviations(path):
    if not _catalogued(path):
        return  # a helper of models, not one of them
    head = path.read_text().splitlines()[:12]
    assert any(line.startswith("Paper:") for line in head)
    assert any(line.startswith("Differs:") for line in head)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_row_of_a_model_has_a_tiny_variant(path):
    if not _catalogued(path):
        return
    names = {
        target.id
        for node in TREES[path].body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "TINY" in names


def _catalogued(path):
    module = ".".join(path.relative_to(PACKAGE / "models").with_suffix("").parts)
    return any(row.module == module for row in ROWS)


def test_help_needs_no_framework():
    code = (
        "import sys, kerasdl, kerasdl.catalog, kerasdl.recipe, kerasdl.cli\n"
        "kerasdl.list_models()\n"
        "heavy = {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"imported {done.stderr}"


def test_names_of_the_catalogue_are_unique():
    assert len(BUILDERS) == len(ROWS)
