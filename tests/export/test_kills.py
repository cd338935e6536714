"""An export that is killed at any moment is not seen by a server, or is whole."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kerasdl.bench import native
from kerasdl.system import processes
from tests.fork_server import WITHOUT_KERAS, python

SCRIPT = Path(__file__).with_name("kills.py")


def files(version):
    return {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_thirty_kills_leave_whole_versions_alone(tmp_path, replay):
    out = tmp_path / "found.json"
    subprocess.run(
        [python(), SCRIPT, tmp_path / "models", "30", python(WITHOUT_KERAS), out],
        check=True,
        timeout=900,
        env=processes.environment(CUDA_VISIBLE_DEVICES=""),
    )
    result = json.loads(out.read_text())
    assert len(result) == 30
    assert sum(one["half"] > 0 for one in result) >= 10  # most kills come in the middle
    versions = result[-1]["versions"]
    assert versions == list(range(1, len(versions) + 1))
    folder = tmp_path / "models" / "net"
    image = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
    answers = []
    for version in versions:
        assert files(folder / str(version)) == files(folder / "1")
        requested = [("serving_default", {"image": image})]
        answers += native.replay(replay, folder / str(version), requested, tmp_path / f"r{version}")
    for answer in answers:
        np.testing.assert_allclose(answer["logits"], answers[0]["logits"], atol=1e-6)
    assert (tmp_path / "models" / "models.config").is_file()
