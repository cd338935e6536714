"""What the localizer promises."""

import numpy as np

from kerasdl.models.detection.locate import locate_small

SIZE = {"stages": ((4,), (6,)), "norm": False, "fc_dim": 8}


def test_the_class_does_not_depend_on_the_place_and_the_box_does(rng):
    model = locate_small((16, 24, 1), num_classes=3, **SIZE)
    patch = rng.random((4, 4, 1), np.float32)
    images = np.zeros((2, 16, 24, 1), np.float32)
    images[0, 4:8, 4:8] = patch
    images[1, 8:12, 12:16] = patch  # multiples of the stride further
    outputs = {name: np.asarray(value) for name, value in model(images).items()}
    np.testing.assert_allclose(*outputs["logits"], atol=1e-6)
    assert outputs["boxes"].shape == (2, 4)
    assert np.abs(outputs["boxes"][0] - outputs["boxes"][1]).max() > 1e-3
