"""Weights of torchvision's, timm's and transformers' convolutional networks, by their names."""

import functools

import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.weights import families, image_facts
from kerasdl.weights.configs import Config
from kerasdl.weights.families import densenet, resnet, resnet_v2, vgg
from kerasdl.weights.rename import by_path, to_ours, to_theirs
from tests.goldens import deviation, read

CLOSE = 1e-4
V2 = {"stem_filters": 8, "stride_in_3x3": True}
GOLDENS = {
    "resnet_basic": ("resnet18", {"depths": (1, 2, 3, 1), "filters": 4}),
    "resnet_bottleneck": (
        "resnet50",
        {"depths": (1, 2, 3, 1), "filters": (4, 8, 16, 32), "stride_in_3x3": True},
    ),
    "resnetv2_bn": (
        "resnet50v2",
        {"depths": (2, 3, 1), "filters": (16, 32, 64), "inner": (8, 8, 16), **V2},
    ),
    "resnetv2_bit": (
        "bit_r50x1",
        {"depths": (1, 2), "filters": (16, 32), "inner": (8, 8), "groups": 4, **V2},
    ),
    "densenet": ("densenet121", {"depths": (2, 4, 3), "growth_rate": 6}),
    "vgg_bn": ("vgg16_bn", {"stages": ((6, 8), (10,), (12, 14)), "fc_dim": 20}),
}


def maps_of(value):
    """NCHW as NHWC."""
    return np.moveaxis(np.asarray(value), 1, -1)


def load(model, weights):
    """Give a model the weights of a file, every one of both sides; returns their family."""
    family = families.choose(model, weights, "file")
    renamed = to_ours(family, model, weights)
    assert not renamed.left_over
    assert not renamed.missing
    for path, variable in by_path(model).items():
        assert renamed.arrays[path].shape == tuple(variable.shape), path
        variable.assign(renamed.arrays[path])
    back = to_theirs(family, model)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert back[name].shape == value.shape, name
        if not name.endswith("num_batches_tracked"):  # what no network computes with
            np.testing.assert_array_equal(back[name], value, err_msg=name)
    return family


@functools.cache
def taken(name):
    """A golden, and our model with its weights."""
    golden = read(name)
    row, sizes = GOLDENS[name]
    shape = golden.inputs["x"].shape
    classes = golden.config["init"]["num_classes"]
    model = catalog.build(row, image_shape=(*shape[2:], shape[1]), num_classes=classes, **sizes)
    load(model, golden.weights)
    return golden, model


@pytest.mark.parametrize("name", GOLDENS)
def test_outputs_equal_those_of_the_library(name, monkeypatch):
    golden, model = taken(name)
    x, outputs = maps_of(golden.inputs["x"]), golden.outputs
    assert deviation(model(x), outputs["logits"]) < CLOSE
    features = model.backbone(x)
    last = list(features.values())[-1]
    if name == "densenet":  # theirs is before ReLU
        norm, seen = model.backbone.norms[-1], []
        call = norm.call
        monkeypatch.setattr(norm, "call", lambda *a, **k: seen.append(call(*a, **k)) or seen[-1])
        model.backbone(x)
        last = seen[0]
    assert deviation(last, maps_of(outputs["features"])) < CLOSE
    if "stem" in outputs:
        assert deviation(features["stage1"], maps_of(outputs["stem"])) < CLOSE
    if "pre_logits" in outputs:
        assert deviation(model.places(features), maps_of(outputs["pre_logits"])) < CLOSE


def same_answers(model, weights, name):
    """Other names of a golden's weights: the golden's logits again."""
    golden, _ = taken(name)
    load(model, weights)
    assert deviation(model(maps_of(golden.inputs["x"])), golden.outputs["logits"]) < CLOSE


def build_again(name):
    """The golden's model with other weights, and the golden."""
    golden, model = taken(name)
    model = type(model).from_config(model.get_config())
    model.build((None, *model.backbone.image_shape))
    return model, golden


def of_transformers(name):
    """A name of torchvision's ResNet as transformers has it."""
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    parts = name.split(".")
    if parts[0] == "fc":
        return f"classifier.1.{parts[1]}"
    if not parts[0].startswith("layer"):
        return f"resnet.embedder.embedder.{kinds[parts[0][:-1]]}.{parts[1]}"
    start = f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{start}.shortcut.{kinds[parts[3]]}.{parts[4]}"
    return f"{start}.layer.{int(parts[2][-1]) - 1}.{kinds[parts[2][:-1]]}.{parts[3]}"


@pytest.mark.parametrize("name", ["resnet_basic", "resnet_bottleneck"])
def test_transformers_names_of_resnets(name):
    model, golden = build_again(name)
    weights = {of_transformers(n): v for n, v in golden.weights.items()}
    same_answers(model, weights, name)
    bare = {
        n.removeprefix("resnet."): v for n, v in weights.items() if not n.startswith("classifier")
    }
    renamed = to_ours(resnet.FAMILIES[1], model, bare)  # of ResNetModel
    assert not renamed.left_over
    assert set(renamed.missing) == {"head/kernel", "head/bias"}


def test_names_of_2017_of_densenets():
    model, golden = build_again("densenet")
    weights = {}
    for name, value in golden.weights.items():
        if "denselayer" in name:
            for kind in ("norm", "conv"):
                name = name.replace(f".{kind}1", f".{kind}.1").replace(f".{kind}2", f".{kind}.2")
        if "num_batches" not in name:
            weights[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in weights
    same_answers(model, weights, "densenet")


def test_torchvision_names_of_vggs(rng):
    """Its dense layers are over a flattened (C, 7, 7) map."""
    stages = ((4, 5), (6,), (7,))
    model = catalog.build("vgg11", image_shape=(56, 60, 3), num_classes=3, stages=stages, fc_dim=9)
    shapes = {"features.0": (4, 3, 3, 3), "features.2": (5, 4, 3, 3), "features.5": (6, 5, 3, 3)}
    shapes |= {"features.8": (7, 6, 3, 3)}
    shapes |= {"classifier.0": (9, 343), "classifier.3": (9, 9), "classifier.6": (3, 9)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.standard_normal(shape).astype("float32")
        weights[f"{name}.bias"] = rng.standard_normal(shape[0]).astype("float32")
    assert load(model, weights).name == "torchvision VGG"
    x = rng.random((2, 56, 60, 3)).astype("float32")
    flat = np.moveaxis(np.asarray(model.backbone(x)["stage3"]), -1, 1).reshape(2, -1)
    for name in ("classifier.0", "classifier.3", "classifier.6"):
        flat = flat @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        flat = flat if name == "classifier.6" else np.maximum(flat, 0)
    assert deviation(model(x), flat) < CLOSE


def config(**values):
    return Config("there", values)


def sizes_of(row, arguments):
    """The shapes of a model of those arguments, which is small."""
    return {p: tuple(v.shape) for p, v in by_path(catalog.build(row, **arguments)).items()}


STATS = {"input_size": [3, 64, 96], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
INPUT = {"image_shape": (64, 96, 3), "input_mean": (0.5, 0.4, 0.3), "input_std": (0.2, 0.2, 0.1)}


@pytest.mark.parametrize(
    ("name", "architecture", "options"),
    [
        ("resnet_basic", "resnet18", {"layers": [1, 2, 3, 1], "channels": [4, 8, 16, 32]}),
        ("resnet_bottleneck", "resnet50", {"layers": [1, 2, 3, 1], "channels": [4, 8, 16, 32]}),
        (
            "resnetv2_bn",
            "resnetv2_50",
            {"layers": [2, 3, 1], "channels": [16, 32, 64], "stem_chs": 8},
        ),
        (
            "densenet",
            "densenet161",
            {"block_config": [2, 4, 3], "growth_rate": 6, "num_init_features": 12},
        ),
    ],
)
def test_configs_of_timm(name, architecture, options):
    values = {"architecture": architecture, "num_classes": 5, "pretrained_cfg": STATS}
    row, arguments = families.of_config(config(**values))[1](config(**values, model_args=options))
    assert {k: arguments[k] for k in INPUT} == INPUT
    assert arguments["num_classes"] == 5
    _, model = taken(name)
    stem = {"stem_filters": 4} if name.startswith("resnet_") else {}  # timm has 64
    shapes = sizes_of(row, arguments | {"num_classes": 7} | stem)
    assert shapes == {p: tuple(v.shape) for p, v in by_path(model).items()}


OURS = (resnet.NAMES, resnet_v2.ROWS, densenet.NAMES, vgg.NAMES)


@pytest.mark.parametrize("architecture", [name for names in OURS for name in names])
def test_configs_name_rows(architecture):
    read_config = families.of_config(config(architecture=architecture))[1]
    row, arguments = read_config(config(architecture=architecture))
    known = set(catalog.build(row, **catalog.module_of(row).TINY[row]).argument_names())
    assert set(arguments) <= known
    assert arguments["image_shape"] == (224, 224, 3)
    assert arguments["input_mean"] == image_facts.MEAN


def test_sizes_of_timm():
    read_v2 = resnet_v2.of_timm
    row, wide = read_v2(config(architecture="resnetv2_152x2_bit"))
    assert row == "bit_r101x1"
    assert wide["filters"] == (512, 1024, 2048, 4096)
    assert wide["stem_filters"] == 128
    assert wide["depths"] == (3, 8, 36, 3)
    assert "pads_with_zeros" in wide
    _, basic = read_v2(config(architecture="resnetv2_18"))
    assert basic["filters"] == (64, 128, 256, 512)
    assert not (basic["bottleneck"] or basic["pads_with_zeros"])
    assert "stride_in_3x3" not in resnet.of_timm(config(architecture="resnet34"))[1]
    assert resnet.of_timm(config(architecture="resnet26"))[1]["depths"] == (2, 2, 2, 2)
    _, large = densenet.of_timm(config(architecture="densenet161"))
    assert (large["growth_rate"], large["stem_filters"]) == (48, 96)
    options = {"drop_rate": 0.2, "in_chans": 1, "num_classes": 9}
    given = {"mean": [0.5], "std": [0.25]}
    values = {"architecture": "vgg16", "model_args": options, "pretrained_cfg": given}
    row, arguments = vgg.of_timm(config(**values))
    assert row == "vgg16"
    assert arguments["image_shape"] == (224, 224, 1)
    assert (arguments["drop_rate"], arguments["num_classes"]) == (0.2, 9)


def test_configs_of_transformers():
    read_config = resnet.of_transformers
    values = {"hidden_sizes": [16, 32], "depths": [1, 2], "embedding_size": 6}
    names = {"0": "cat", "1": "dog", "2": "cow"}
    row, arguments = read_config(config(**values, id2label=names, num_channels=1, image_size=32))
    assert row == "resnet50"
    assert arguments["num_classes"] == 3
    assert arguments["stride_in_3x3"]
    shapes = sizes_of(row, arguments)
    assert shapes["backbone/stem/conv/kernel"] == (7, 7, 1, 6)
    assert shapes["backbone/stage3_block2/conv2/conv/kernel"] == (3, 3, 8, 8)
    assert shapes["head/kernel"] == (32, 3)
    row, arguments = read_config(config(downsample_in_bottleneck=True, depths=[3, 4, 23, 3]))
    assert row == "resnet101"
    assert not arguments["stride_in_3x3"]
    assert "image_shape" not in arguments
    row, arguments = read_config(config(**values, layer_type="basic"))
    assert (row, arguments["filters"]) == ("resnet18", (16, 32))


@pytest.mark.parametrize(
    ("read_config", "values", "said"),
    [
        (resnet.of_timm, {"architecture": "resnet50", "model_args": {"aa_layer": "blur"}}, "aa_la"),
        (resnet.of_timm, {"architecture": "resnet50", "global_pool": "max"}, "global_pool"),
        (resnet.of_timm, {"architecture": "resnet50", "model_args": {"layers": [1, -2]}}, "layers"),
        (resnet.of_timm, {"architecture": "resnet50", "num_classes": -1}, "num_classes"),
        (
            resnet_v2.of_timm,
            {"architecture": "resnetv2_50", "model_args": {"avg_down": True}},
            "av",
        ),
        (
            resnet_v2.of_timm,
            {"architecture": "resnetv2_50", "model_args": {"stem_type": "deep"}},
            "stem_type",
        ),
        (densenet.of_timm, {"architecture": "densenet121", "model_args": {"aa_layer": 1}}, "aa_la"),
        (vgg.of_timm, {"architecture": "vgg11", "pretrained_cfg": {"std": [0, 1, 1]}}, "std"),
        (vgg.of_timm, {"architecture": "vgg11", "pretrained_cfg": {"mean": ["a"]}}, "mean"),
        (vgg.of_timm, {"architecture": "vgg11", "pretrained_cfg": {"input_size": [3]}}, "input_s"),
        (vgg.of_timm, {"architecture": "vgg11", "model_args": {"in_chans": 2}}, "2 channels"),
        (vgg.of_timm, {"architecture": "vgg11", "num_classes": 2, "label_names": ["a"]}, "names"),
        (resnet.of_transformers, {"hidden_act": "gelu"}, "hidden_act"),
        (resnet.of_transformers, {"downsample_in_first_stage": True}, "downsample_in_first_stage"),
        (resnet.of_transformers, {"hidden_sizes": [6, 8], "depths": [1, 1]}, "multiples of 4"),
        (resnet.of_transformers, {"hidden_sizes": [8], "depths": [1, 1]}, "depths of 2"),
        (resnet.of_transformers, {"id2label": {"x": "cat"}}, "names"),
    ],
)
def test_what_changes_the_mathematics_is_refused(read_config, values, said):
    with pytest.raises(UserError, match=said):
        read_config(config(**values))


@pytest.mark.parametrize(
    ("name", "row", "sizes", "said"),
    [
        ("resnet_bottleneck", "resnet50", {"stride_in_3x3": False}, "stride_in_3x3=True"),
        ("resnet_basic", "resnet18", {"small": True}, "small=False"),
        ("resnetv2_bn", "resnet50v2", {"stride_in_3x3": False}, "stride_in_3x3=True"),
    ],
)
def test_a_network_that_answers_differently_is_refused(name, row, sizes, said):
    golden, _ = taken(name)
    model = catalog.build(
        row, image_shape=(32, 32, 3), num_classes=7, **{**GOLDENS[name][1], **sizes}
    )
    with pytest.raises(UserError, match=said):
        families.choose(model, golden.weights, "file")


def test_every_stage_projects_where_its_library_does():
    sizes = {"depths": (2, 1), "filters": (8, 16), "inner": (8, 8), **V2}
    for first in (False, True):
        model = catalog.build(
            "resnet50v2", image_shape=(16, 16, 3), num_classes=3, projects_first=first, **sizes
        )
        names = to_theirs(resnet_v2.FAMILIES[0], model)
        assert ("stages.0.blocks.0.downsample.conv.weight" in names) == first
        assert "stages.0.blocks.1.downsample.conv.weight" not in names
        assert "stages.1.blocks.0.downsample.conv.weight" in names


def test_statistics_of_a_preprocessor():
    facts = image_facts.of_preprocessor
    plain = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3}
    cropped = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
    result = facts(plain | cropped)
    assert result["input_mean"] == (0.5, 0.5, 0.5)
    assert result["image_size"] == (224, 224)
    assert (result["crop_fraction"], result["interpolation"]) == (0.875, "bicubic")
    assert facts(plain | {"size": 160, "crop_pct": 0.9})["crop_fraction"] == 0.9
    assert facts(plain | {"size": 384, "crop_pct": 0.9})["crop_fraction"] == 1.0
    both = facts(plain | {"size": {"height": 20, "width": 30}})
    assert (both["image_size"], both["crop_fraction"]) == ((20, 30), 1.0)
    assert facts({"do_normalize": False})["input_std"] == (1.0,)
    twice = facts(plain | {"rescale_factor": 2 / 255})  # (2 x - 0.5) / 0.25
    assert (twice["input_mean"][0], twice["input_std"][0]) == (0.25, 0.125)
    assert facts(plain | {"do_rescale": False})["input_mean"][0] == 0.5 / 255
