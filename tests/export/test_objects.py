"""Exported detectors where nothing is found, and where all places for objects are taken."""

from pathlib import Path

import numpy as np
import pytest

from kerasdl.export.exporter import export
from kerasdl.inference.artifact import open_artifact
from tests.export.examples import make_parts, quiet
from tests.variants import tiny

PLACES = 4
FILES = ("", "assets.extra/model.keras", "tflite/float32.tflite", "tflite/int8.tflite")


@pytest.mark.slow
@pytest.mark.parametrize(("min_score", "number"), [(1.0, 0), (0.0, PLACES)])
def test_no_object_and_all_places_taken(min_score, number, tmp_path):
    settings = {"min_score": min_score, "max_objects": PLACES, "nms_iou": 0.99}
    parts = make_parts("yolo_v1_small", task_kwargs=settings, **tiny("yolo_v1_small"))
    folder = Path(export(parts, ("tflite",), tmp_path, None, quiet)["folder"])
    image = parts.test["image"][:3]
    answers = [
        open_artifact(folder / file).answer("serving_default", {"image": image})
        for file in FILES
        if (folder / file).exists()
    ]
    assert len(answers) >= 3
    for answer in answers:
        assert answer["num"].tolist() == [number] * 3 and answer["boxes"].shape == (3, PLACES, 4)
        assert ((answer["label"] >= 0).sum(1) == number).all()
        assert number or not (answer["boxes"].any() or answer["scores"].any())
    for answer in answers[1:3]:  # of floats
        np.testing.assert_allclose(answer["boxes"], answers[0]["boxes"], atol=1e-4)
        np.testing.assert_array_equal(answer["label"], answers[0]["label"])
