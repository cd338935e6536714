"""A wheel holds every file of the package."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.mark.slow
def test_a_wheel_holds_every_file(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "kerasdl", source / "kerasdl", ignore=ignored)
    for name in OWN:
        shutil.copyfile(ROOT / name, source / name)
    (source / "kerasdl" / "report" / "parts").mkdir()  # what nobody told setup.py of
    (source / "kerasdl" / "report" / "parts" / "more.svg").write_text("<svg/>")
    expected = {str(p.relative_to(source)) for p in (source / "kerasdl").rglob("*") if p.is_file()}
    assert {Path(name).suffix for name in expected} >= {".py", ".html", ".cc", ".svg"}
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "--wheel-dir", tmp_path / "wheels", source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "wheels").glob("kerasdl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        result = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert result == expected
