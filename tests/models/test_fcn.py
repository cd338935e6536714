"""What the paper on fully convolutional networks promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models.segmentation import fcn

SMALL = {"backbone": "vgg11", "stages": ((6,), (8,), (4,)), "drop_rate": 0.0}


def numbers(weights):
    return sum(math.prod(w.shape) for w in weights)


def settle(model, rng):
    """Scores that are not zero."""
    for score in model.scores[:1]:
        score.kernel.assign(rng.normal(size=score.kernel.shape))
    return model


@pytest.mark.parametrize(
    ("name", "crop", "strides"),
    [("fcn32s", 19, [32]), ("fcn16s", 27, [32, 16]), ("fcn8s", 31, [32, 16, 8])],
)
def test_sizes_and_crops_of_the_paper(name, crop, strides):
    with keras.StatelessScope(initialize_variables=False):  # allocates nothing
        model = catalog.build(name)
    keras.backend.clear_session()
    assert (model.crop, model.strides) == (crop, strides)
    assert model.fc1.kernel.shape == (7, 7, 512, 4096)
    # The last upsampling is fixed, those between the maps are trained.
    assert not model.last.trainable and all(up.trainable for up in model.ups)
    assert numbers(model.trainable_variables) == catalog.row(name).parameters
    if name == "fcn32s":
        assert numbers(model.trainable_variables) == 134_346_581
        assert numbers(model.weights) == 136_152_917


def test_skips_start_at_zero(rng):
    """Then FCN-8s is FCN-32s but for upsampling in three parts, and all are interpolation."""
    x = rng.random((1, 48, 48, 1), np.float32)
    coarse = settle(fcn.fcn32s_small(**SMALL), rng)
    fine = fcn.fcn8s_small(**SMALL)
    assert all((np.asarray(score.kernel) == 0).all() for score in fine.scores)
    for a, b in zip(
        [*coarse.backbone.weights, coarse.scores[0].kernel],
        [*fine.backbone.weights, fine.scores[0].kernel],
        strict=True,
    ):
        b.assign(a)
    before = np.asarray(fine(x))
    inner = slice(8, -8)
    # Linear pieces of a ramp in one step or in three differ by little.
    far = np.abs(before - np.asarray(coarse(x)))[:, inner, inner].max()
    assert far < 0.3 * np.abs(before).max()
    fine.scores[2].kernel.assign(rng.normal(size=fine.scores[2].kernel.shape))
    assert np.abs(np.asarray(fine(x)) - before).max() > 0.1


@pytest.mark.parametrize("skips", [0, 1, 2])
@pytest.mark.parametrize("dense", [{"pad": 0}, {"pad": 16, "fc_dim": 5, "window": 5}])
def test_scores_lie_where_the_image_is(skips, dense):
    """A bright square shows in the scores where it is, not beside it."""
    model = fcn.fcn32s_small(num_classes=1, skips=skips, **SMALL, **dense)
    for weight in model.weights:
        if weight.name == "kernel" and weight is not getattr(model.last, "kernel", None):
            if not any(weight is up.kernel for up in model.ups):
                center = np.zeros(weight.shape)
                center[weight.shape[0] // 2, weight.shape[1] // 2] = 1 / weight.shape[2]
                weight.assign(center)
    x = np.zeros((1, 48, 48, 1), np.float32)
    x[0, 16:32, 8:24] = 1  # whole cells of all strides
    y = np.asarray(model(x))[0, ..., 0]
    rows = (np.arange(48) * y.sum(1)).sum() / y.sum()
    columns = (np.arange(48) * y.sum(0)).sum() / y.sum()
    assert (rows, columns) == pytest.approx((23.5, 15.5), abs=1e-3)


@pytest.mark.parametrize("size", [(48, 48), (50, 37), (96, 33)])
@pytest.mark.parametrize("name", ["fcn32s_small", "fcn8s_small"])
def test_images_of_any_size(size, name, rng):
    model = settle(catalog.build(name, **SMALL), rng)
    logits = np.asarray(model(rng.random((2, *size, 1), np.float32)))
    assert logits.shape == (2, *size, 11) and np.abs(logits).max() > 0


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        ("resnet20", [4, 2, 1]),
        ("densenet_bc_40_12", [4, 2, 1]),
        ("googlenet_small", [4, 2, 1]),
        ("vit_digits", [2]),
    ],
)
def test_any_backbone(backbone, strides, rng):
    model = fcn.fcn32s_small((16, 24, 1), 3, backbone=backbone, skips=len(strides) - 1)
    assert model.strides == strides
    assert settle(model, rng)(rng.random((1, 16, 24, 1), np.float32)).shape == (1, 16, 24, 3)


def test_a_classifier_of_the_same_backbone_gives_its_dense_layers():
    sizes = {"stages": ((6,), (8,)), "fc_dim": 5}
    model = fcn.fcn32s((28, 28, 1), 3, backbone="vgg11", pad=0, **sizes)
    classifier = catalog.build("vgg11", image_shape=(28, 28, 1), num_classes=3, **sizes)

    def shapes(model):
        return {w.path.partition("/")[2]: w.shape for w in model.weights}

    taken = {p: s for p, s in shapes(classifier).items() if not p.startswith("head")}
    assert taken.items() <= shapes(model).items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "mlp"}, "backbone mlp: has no maps"),
        ({"skips": 3}, "skips 3: must be 0 to 2 with resnet20"),
        ({"image_shape": (48, 48)}, r"must be \(height, width, channels\)"),
        ({"fliters": 8}, "no argument 'fliters' .*filters"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fcn.fcn8s_small(**arguments)
