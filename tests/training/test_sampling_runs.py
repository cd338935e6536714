"""A run of a model that draws, from the command to its report."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasdl import app
from kerasdl.inference import reference_classifier


class Stub:
    """A referee that takes the brightest rows for the class, and pixels for features."""

    name, top1, sha256 = "stub", 0.98, "0" * 64

    def __call__(self, images):
        rows = images.mean((2, 3))  # (N, H)
        return rows.argmax(-1), images.reshape(len(images), -1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures", "ways"),
    [
        (
            "ddpm_unet_small",
            {"samples.png", "trajectory.png", "trajectory.gif", "interpolation.png"},
            {"guided", "conditional", "unconditional"},
        ),
        (
            "vae",
            {"samples.png", "reconstructions.png", "walk.png", "interpolation.png"},
            {"samples"},
        ),
        (
            "dcgan",
            {"samples.png", "interpolation.png", "walk_trajectory.png", "walk_trajectory.gif"},
            {"samples"},
        ),
    ],
)
def test_a_run_draws_and_is_judged(name, pictures, ways, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_classifier, "of_recipe", lambda recipe, say: Stub())
    steps = {"task_kwargs": {"steps": 2}} if name.startswith("ddpm") else {}
    given = {
        "model": name,
        "dataset": "digits",
        "tiny": True,
        "epochs": 1,
        "limit_batches": 3,
        "export": (),
        "output": str(tmp_path),
        "experiment": "a",
        **steps,
    }
    lines = []
    assert app.train(given, lines.append) == 0
    assert {p.name for p in (tmp_path / "a" / "pictures").iterdir()} == pictures
    for path in (tmp_path / "a" / "pictures").iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 40 and np.asarray(image).std() > 0
            assert getattr(image, "n_frames", 1) > 1 or path.suffix == ".png"
    evaluated = json.loads((tmp_path / "a" / "metrics.json").read_text())["samples"]
    assert set(evaluated["ways"]) == ways and evaluated["notes"] == []
    for way in evaluated["ways"].values():
        assert way["pixel"]["frechet"] > way["pixel"]["frechet_real"] > 0
        assert sum(way["classes"]["shares"].values()) == pytest.approx(1)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "<h2>Samples</h2>" in page
    assert page.count("data:image/gif") == sum(p.endswith(".gif") for p in pictures)
    assert any(line.startswith("samples ") for line in lines)
