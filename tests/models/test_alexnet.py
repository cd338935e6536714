"""What AlexNet's paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import alexnet


@pytest.fixture(scope="module")
def full():
    """The network of the paper, without values."""
    with keras.StatelessScope(initialize_variables=False):
        model = alexnet.alexnet()
        maps = model.backbone(keras.Input((227, 227, 3)))
    keras.backend.clear_session()
    return model, maps


def test_weights_of_each_layer(full):
    model, _ = full
    counts = [math.prod(block.conv.kernel.shape) for block in model.backbone.blocks]
    # 307,200 is half of what the second would have without groups
    assert counts == [34_848, 307_200, 884_736, 663_552, 442_368]
    dense = (model.fc1.kernel, model.fc2.kernel, model.head.kernel)
    assert [math.prod(kernel.shape) for kernel in dense] == [9216 * 4096, 4096**2, 4096 * 1000]
    assert sum(math.prod(w.shape) for w in model.trainable_weights) == 60_965_224


def test_sizes_of_figure_2(full):
    model, maps = full
    assert [tuple(x.shape[1:]) for x in maps.values()] == [(27, 27, 96), (13, 13, 256), (6, 6, 256)]
    assert model.backbone.strides == {"stage1": 8, "stage2": 16, "stage3": 32}
    conv1 = model.backbone.blocks[0].conv.compute_output_shape((None, 227, 227, 3))
    assert conv1 == (None, 55, 55, 96)
    assert model.window == (6, 6)


def test_groups_meet_in_the_third_layer_alone(rng):
    """Of the first half of a map, only the first half of the next one knows, but for conv3."""
    backbone = alexnet.alexnet_small(**alexnet.TINY["alexnet_small"], features=True)
    for block, grouped in zip(backbone.blocks[1:], alexnet.GROUPED[1:], strict=True):
        c = block.conv.kernel.shape[-2] * (3 if grouped else 1)
        x = rng.standard_normal((1, 7, 7, c)).astype("float32")
        changed = x.copy()
        changed[..., : c // 3] += 1.0
        moved = np.abs(np.asarray(block.conv(changed) - block.conv(x))).max(axis=(0, 1, 2)) > 0
        third = len(moved) // 3
        assert moved[:third].any()
        assert moved[third:].any() == (not grouped)


def test_responses_are_normalized_as_in_section_3_3(rng):
    norm = alexnet.AlexBlock(8, 3, norm=True).norm
    x = rng.random((1, 2, 3, 8)).astype("float32") * 100
    expected = np.zeros_like(x)
    for c in range(8):
        energy = (x[..., max(0, c - 2) : c + 3] ** 2).sum(-1)
        expected[..., c] = x[..., c] / (2 + 1e-4 * energy) ** 0.75
    np.testing.assert_allclose(norm(x), expected, rtol=1e-5)


def test_a_larger_image_is_answered_by_the_mean_over_windows(rng):
    sizes = {**alexnet.TINY["alexnet_small"], "image_shape": (55, 55, 1)}
    model = alexnet.alexnet_small(**sizes)
    assert model.window == (6, 6)
    wide = alexnet.alexnet_small(**{**sizes, "image_shape": (55, 63, 1)})
    wide.set_weights(model.get_weights())
    features = wide.backbone(rng.random((2, 55, 63, 1), np.float32))
    last = features["stage3"]
    assert last.shape[1:3] == (6, 7)
    windows = [model.pool({"last": last[:, :, i : i + 6]}) for i in range(2)]
    np.testing.assert_allclose(wide.pool(features), sum(windows) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("builder", "kwargs", "message"),
    [
        (alexnet.alexnet, {"image_shape": (66, 80, 3)}, "at least 67x67 pixels"),
        (alexnet.alexnet_small, {"image_shape": (14, 14, 1)}, "at least 15x15 pixels"),
        (alexnet.alexnet_small, {"groups": 5}, "groups"),
    ],
)
def test_wrong_sizes_are_refused(builder, kwargs, message):
    with pytest.raises(ValueError, match=message):
        builder(**kwargs)


def test_smallest_images():
    with keras.StatelessScope(initialize_variables=False):
        sizes = [
            alexnet.alexnet(image_shape=(67, 67, 1)).backbone.last_map(),
            alexnet.alexnet_small(image_shape=(15, 15, 1)).backbone.last_map(),
        ]
    keras.backend.clear_session()
    assert sizes == [(1, 1), (1, 1)]
