"""What the architecture promises of the source: imports, docstrings, sizes, papers, start-up."""

import ast
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

OTHERS = "any library that is no framework"
FRAMEWORKS = ("tensorflow", "keras", "jax", "torch", "keras_cv", "keras_hub", "keras_nlp")
_CORE = {"numpy", "keras", "kerasdl.ops"}
# What a part of the package may import besides itself and the standard library; a name allows
# what lies below it.
ALLOWED = {
    "catalog.py": set(),
    "recipe.py": set(),
    "folders.py": set(),
    "processes.py": set(),
    "__init__.py": set(),
    "cli.py": {"kerasdl.catalog", "kerasdl.recipe", OTHERS},
    "launch": {"kerasdl.catalog", "kerasdl.recipe", "kerasdl.processes", "kerasdl.cli"},
    "ops": {"numpy", "keras"},
    "layers": _CORE,
    "models": _CORE | {"kerasdl.layers", "kerasdl.recipe", "kerasdl.tasks.task", "kerasdl.catalog"},
    "tasks": _CORE | {"kerasdl.layers", "kerasdl.metrics", "kerasdl.recipe"},
    "metrics": _CORE | {"keras_cv", OTHERS},
    "data": _CORE | {"tensorflow", "keras_cv", "keras_hub", "kerasdl.tasks", OTHERS},
    "training": _CORE
    | {"tensorflow", "kerasdl.layers", "kerasdl.tasks", "kerasdl.metrics", "kerasdl.data"}
    | {"kerasdl.recipe", "kerasdl.catalog", "kerasdl.processes", "kerasdl.folders", OTHERS}
    # A run may start from a saved model, and ends in an export.
    | {"kerasdl.export", "kerasdl.models"},
}
EVERYTHING = ("export", "bench")
LAZY = ("cli.py", "__init__.py")  # inside functions these import everything as well


def part_of(path):
    """`layers` of `kerasdl/layers/core.py`, `cli.py` of `kerasdl/cli.py`."""
    return path.relative_to(PACKAGE).parts[0]


def imports(tree):
    """Yield (dotted module, names taken from it) of every import in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(alias.name for alias in node.names)


def allowed(part, module, names):
    """Whether files of `part` may import `names` from `module`."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if module == "kerasdl.catalog" and set(names) == {"nearest"}:
        return True  # for messages
    if module == "kerasdl":  # `from kerasdl import catalog`, or the version
        modules = [f"kerasdl.{name}" for name in names if name != "__version__"]
        return all(allowed(part, m, ()) for m in modules)
    if top not in ("kerasdl", *FRAMEWORKS) and OTHERS in ALLOWED[part]:
        return True
    inside = {f"kerasdl.{part}", *ALLOWED[part]}
    return any(module == name or module.startswith(name + ".") for name in inside)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_inwards(path):
    part = part_of(path)
    if part in EVERYTHING:
        return
    tree = TREES[path]
    if part in LAZY:
        tree = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    wrong = [m for m, names in imports(tree) if not allowed(part, m, names)]
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
