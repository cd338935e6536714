"""What the Vision Transformer promises."""

import numpy as np
import pytest

from kerasdl.models.vision_transformer.vit import TINY, vit_digits, vit_s16

ARGUMENTS = {**TINY["vit_digits"], "drop_rate": 0.0, "drop_path": 0.0}


@pytest.fixture(scope="module")
def model():
    return vit_digits(**ARGUMENTS)


@pytest.fixture
def x(rng):
    return rng.random((3, 8, 12, 1), np.float32)


def test_attention_maps_are_those_of_the_answer(model, x):
    maps = np.asarray(model.attention_maps(x))
    assert maps.shape == (3, 2, 2, 7, 7)  # 2x3 patches and the class token
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    tokens = model.backbone.tokens(model.backbone.normalize(x))
    _, first = model.backbone.blocks[0](tokens, return_weights=True)
    np.testing.assert_array_equal(maps[:, 0], first)


def test_the_answer_is_the_head_of_the_class_token(model, x):
    features = model.backbone(x)
    assert {k: tuple(v.shape) for k, v in features.items()} == {
        "cls": (3, 16),
        "stage1": (3, 2, 3, 16),
        "stage2": (3, 2, 3, 16),
    }
    np.testing.assert_array_equal(model(x), model.head(features["cls"]))
    assert model.backbone.strides == {"stage1": 4, "stage2": 4}


def test_stages_are_quarters_of_the_blocks():
    backbone = vit_digits(**{**ARGUMENTS, "depth": 5}, features=True)
    assert backbone.ends == {1: "stage1", 2: "stage2", 3: "stage3", 5: "stage4"}


def test_without_positions_it_does_not_see_where_a_patch_is(x):
    model = vit_digits(**ARGUMENTS)
    swapped = x.copy()
    swapped[:, :4, :4], swapped[:, 4:, 4:8] = x[:, 4:, 4:8], x[:, :4, :4]
    positions = model.backbone.tokens.positions.grid
    positions.assign(np.random.default_rng(0).normal(size=positions.shape))
    assert np.abs(model(x) - model(swapped)).max() > 1e-3
    positions.assign(np.zeros(positions.shape))
    np.testing.assert_allclose(model(x), model(swapped), atol=1e-5)


def test_weights_of_another_image_size_are_interpolated(model):
    large = vit_digits(**{**ARGUMENTS, "image_shape": (16, 24, 1)})
    ramp = np.broadcast_to(np.arange(3.0)[None, :, None], (2, 3, 16)).astype("float32")
    grid = large.backbone.tokens.positions.grid
    value = large.adapt_weight(grid.path, ramp, tuple(grid.shape))
    assert value.shape == (4, 6, 16)
    np.testing.assert_allclose(value.mean(), 1, atol=1e-5)
    assert np.all(np.diff(value[0, :, 0]) > 0)  # still a ramp along the width
    np.testing.assert_allclose(value[0], value[3], atol=1e-6)
    same = model.adapt_weight(grid.path, ramp, ramp.shape)
    np.testing.assert_array_equal(same, ramp)


def test_drop_path_rises_to_the_last_block():
    blocks = vit_digits(**{**ARGUMENTS, "depth": 3, "drop_path": 0.2}).backbone.blocks
    assert [block.drop_path1.rate for block in blocks] == [0, 0.1, 0.2]


def test_one_example_does_not_see_another(model, x):
    np.testing.assert_allclose(model(x)[1:2], model(x[1:2]), atol=1e-6)


def test_blocks_start_from_different_kernels():
    model = vit_digits(**ARGUMENTS)
    first, second = (block.attention.qkv.kernel.value for block in model.backbone.blocks)
    assert np.abs(first - second).max() > 0.01


def test_bad_sizes_are_named_with_those_that_work():
    with pytest.raises(ValueError, match="32x48 and 48x64"):
        vit_s16(image_shape=(40, 50, 3))
    with pytest.raises(ValueError, match="at least 16x16"):
        vit_s16(image_shape=(8, 32, 3))
    with pytest.raises(ValueError, match="num_heads 3"):
        vit_digits(num_heads=3)
