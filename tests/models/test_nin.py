"""What the paper on network in network promises."""

import numpy as np
import pytest

from kerasdl.models.cnn import nin

SIZES = {"filters": ((6, 5, 4), (7, 6), (8, 5)), "num_classes": 3}


def test_logits_are_averages_of_the_classes_maps(rng):
    model = nin.nin((8, 12, 1), **SIZES)
    x = rng.random((2, 8, 12, 1), np.float32)
    features = model.backbone(x)
    maps = np.asarray(model.class_maps(features))
    assert maps.shape == (2, 2, 3, 3)
    assert maps.min() < 0  # no ReLU
    np.testing.assert_allclose(model(x), maps.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    kernels = {w.shape for w in model.weights if w.path.endswith("kernel")}
    assert all(len(shape) == 4 for shape in kernels)  # no dense layer


def test_any_size_of_image_has_the_same_weights(rng):
    model = nin.nin((8, 8, 1), **SIZES)
    larger = nin.nin((16, 11, 1), **SIZES)
    larger.set_weights(model.get_weights())
    assert larger(rng.random((1, 16, 11, 1), np.float32)).shape == (1, 3)


def test_a_block_is_a_perceptron_at_each_place(rng):
    """Equation 2: the 1x1 convolutions do the same at each place, of its channels alone."""
    block = nin.MLPConv((6, 5, 4), 5)
    x = rng.standard_normal((1, 7, 6, 3)).astype("float32")
    y = np.asarray(block(x))
    z = block.convs[0](x)
    for conv in block.convs[1:]:
        kernel, bias = (np.asarray(w) for w in (conv.kernel, conv.bias))
        z = np.maximum(np.asarray(z) @ kernel[0, 0] + bias, 0)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


def test_stages_of_cifar():
    backbone = nin.nin(features=True)
    assert backbone.strides == {"stage1": 1, "stage2": 2, "stage3": 4}
    assert backbone.channels == {"stage1": 96, "stage2": 192, "stage3": 192}
    maps = backbone(np.zeros((1, 32, 32, 3), "float32"))
    assert [x.shape[1] for x in maps.values()] == [32, 16, 8]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_shape": (3, 8, 1)}, "NiN takes .* of at least 4x4 pixels"),
        ({"filters": ((4, 4), (4, 4))}, "must hold those of 3 blocks or more"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        nin.nin(**kwargs)
