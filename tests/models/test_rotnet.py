"""What the paper on rotations promises."""

import keras
import numpy as np
import pytest

from kerasdl.models.selfsupervised import rotnet

SIZES = {"filters": ((6, 5), (7, 6), (8, 7), (9, 8))}


@pytest.fixture(scope="module")
def model():
    return rotnet.rotnet((8, 8, 1), **SIZES, stage="stage2")


def test_parameters_of_the_paper():
    with keras.StatelessScope():  # allocates nothing
        assert rotnet.rotnet().count_params() == 1_415_492


def test_features_are_those_of_the_stage_and_the_head_has_the_last_ones(model, rng):
    x = rng.random((3, 8, 8, 1), np.float32)
    maps = {name: np.asarray(y) for name, y in model.backbone(x).items()}
    assert list(maps) == ["stage1", "stage2", "stage3", "stage4"]
    assert [y.shape[1] for y in maps.values()] == [8, 4, 2, 2]
    np.testing.assert_allclose(model.features(x), maps["stage2"].mean((1, 2)), rtol=1e-5)
    kernel, bias = (np.asarray(w) for w in model.head.weights)
    logits = maps["stage4"].mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_any_backbone_of_the_catalogue():
    model = rotnet.rotnet_small((8, 8, 1), backbone="resnet20", depths=(1, 1), filters=4)
    assert model.features(np.zeros((2, 8, 8, 1), "float32")).shape == (2, 8)
    model = rotnet.rotnet_small((8, 8, 3), backbone="vit_digits", depth=1)
    assert model(np.zeros((2, 8, 8, 3), "float32")).shape == (2, 4)
    with pytest.raises(ValueError, match="resnet20 has no argument 'dephts'"):
        rotnet.rotnet_small((8, 8, 1), backbone="resnet20", dephts=(1,))
    with pytest.raises(ValueError, match="stage 'stage5': not one of stage1, .*stage4"):
        rotnet.rotnet((8, 8, 1), **SIZES, stage="stage5")
