"""What the paper on identity mappings promises, and weights of timm's ResNet v2."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import resnet_v2

GOLDEN = Path(__file__).parents[1] / "goldens" / "resnetv2_bn.npz"
# timm's names: where they stand in ours; {stage} is of 2 on, {block} of 1 on
NAMES = {
    r"stem\.conv\.weight": "backbone/stem/kernel",
    r"(?P<block>.*)\.downsample\.conv\.weight": "backbone/{block}/project/kernel",
    r"(?P<block>.*)\.conv(?P<i>\d)\.weight": "backbone/{block}/conv{i}/kernel",
    r"(?P<block>.*)\.norm(?P<i>\d)\.(?P<part>\w+)": "backbone/{block}/norm{i}/{part}",
    r"norm\.(?P<part>\w+)": "backbone/norm/{part}",
    r"head\.fc\.weight": "head/kernel",
    r"head\.fc\.bias": "head/bias",
}
PARTS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def ours(name):
    """The path in our model of a weight of timm's."""
    for pattern, path in NAMES.items():
        if match := re.fullmatch(pattern, name):
            parts = match.groupdict()
            if "block" in parts:
                stage, block = re.fullmatch(
                    r"stages\.(\d+)\.blocks\.(\d+)", parts["block"]
                ).groups()
                parts["block"] = f"stage{int(stage) + 2}_block{int(block) + 1}"
            if "part" in parts:
                parts["part"] = PARTS[parts["part"]]
            return path.format(**parts)
    raise KeyError(name)


def test_answers_equal_those_of_timm():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    sizes = json.loads(str(golden["config"]))["init"]
    x = golden["inputs/x"].transpose(0, 2, 3, 1)
    model = resnet_v2.resnet50v2(
        image_shape=x.shape[1:],
        num_classes=sizes["num_classes"],
        depths=tuple(sizes["layers"]),
        filters=tuple(sizes["channels"]),
        stem_filters=sizes["stem_chs"],
        inner=(8, 8, 16),
        stride_in_3x3=True,
    )
    weights = {w.path.removeprefix("resnet50v2/"): w for w in model.weights}
    for key, value in golden.items():
        name = key.removeprefix("weights/")
        if name == key or name.endswith("num_batches_tracked"):
            continue
        weight = weights.pop(ours(name))
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        weight.assign(value.reshape(weight.shape))
    assert not weights

    features = list(model.backbone(x).values())[-1]
    expected = golden["outputs/features"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    np.testing.assert_allclose(model(x), golden["outputs/logits"], atol=1e-4)


def silent(block):
    """The block with convolutions that answer 0, but for the projection."""
    for conv in block.convs:
        conv.kernel.assign(np.zeros(conv.kernel.shape))
    return block


def test_nothing_follows_the_sum(rng):
    """Equation 5: with F = 0 what comes in goes out, below 0 too; so through all blocks."""
    x = rng.standard_normal((2, 5, 4, 6)).astype("float32")
    for inner in (None, 3):
        block = resnet_v2.PreActBlock(6, inner)
        block.build(x.shape)
        np.testing.assert_array_equal(silent(block)(x), x)


@pytest.mark.parametrize(
    ("channels", "stride", "projects"), [(6, 1, False), (4, 1, True), (6, 2, True), (4, 2, True)]
)
def test_the_projection_sees_what_is_activated(channels, stride, projects, rng):
    x = rng.standard_normal((2, 6, 4, channels)).astype("float32")
    block = resnet_v2.PreActBlock(6, None, stride)
    block.build(x.shape)
    assert (block.project is not None) == projects
    if projects:
        activated = np.maximum(x / np.sqrt(1 + 1e-5), 0)
        np.testing.assert_allclose(silent(block)(x), block.project(activated), rtol=1e-5, atol=1e-6)


def test_option_a_adds_the_raw_input(rng):
    x = rng.standard_normal((2, 5, 4, 4)).astype("float32")
    block = resnet_v2.PreActBlock(6, None, 2, projects=False)
    block.build(x.shape)
    expected = np.zeros((2, 3, 2, 6))
    expected[..., :4] = x[:, ::2, ::2]
    np.testing.assert_array_equal(silent(block)(x), expected)
    assert {w.path.split("/")[-2][:4] for w in block.weights} == {"norm", "conv"}


@pytest.mark.parametrize("shape", [(32, 40, 1), (33, 37, 1), (30, 31, 1)])
def test_the_stem_is_pooled_as_if_nothing_were_around(shape, rng):
    """Values below 0 at the border stay: padding by zeros would win there."""
    sizes = {"depths": (1,), "filters": (4,), "stem_filters": 4}
    backbone = resnet_v2.resnet18v2(shape, **sizes, features=True)
    silent(backbone.blocks[0])  # which leaves the last norm and ReLU
    backbone.norm.moving_mean.assign(np.full(4, -9.0))
    features = backbone(rng.random((2, *shape), np.float32))
    stem = np.asarray(features["stage1"])
    (_, height, width, _), windows = stem.shape, []
    for i in range(0, height, 2):
        rows = stem[:, max(i - 1, 0) : i + 2]
        windows.append([rows[:, :, max(j - 1, 0) : j + 2].max((1, 2)) for j in range(0, width, 2)])
    expected = np.moveaxis(np.array(windows), 2, 0)
    assert expected.min() < 0
    pooled = np.asarray(features["stage2"]) * np.sqrt(1 + 1e-5) - 9.0
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_stages():
    with keras.StatelessScope():
        backbone = resnet_v2.resnet50v2(features=True)
        maps = backbone(keras.Input((224, 224, 3)))
    keras.backend.clear_session()
    assert backbone.strides == {f"stage{s + 1}": 2 ** (s + 1) for s in range(5)}
    assert list(backbone.channels.values()) == [64, 256, 512, 1024, 2048]
    for stage, x in maps.items():
        side = 224 // backbone.strides[stage]
        assert x.shape == (None, side, side, backbone.channels[stage])
    backbone = resnet_v2.resnet20v2(features=True)
    assert backbone.strides == {"stage1": 1, "stage2": 2, "stage3": 4}
    assert backbone.channels == {"stage1": 16, "stage2": 32, "stage3": 64}
    last = backbone(np.ones((1, 8, 8, 3), "float32"))["stage3"]
    assert np.min(last) == 0 < np.max(last)


def test_image_too_small():
    with pytest.raises(ValueError, match="ResNet v2 takes .* at least 32x32 pixels"):
        resnet_v2.resnet18v2(image_shape=(31, 64, 3))
