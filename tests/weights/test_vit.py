"""Vision Transformers of timm and transformers: their weights, and what their configs stand for."""

import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.vision_transformer import vit
from kerasdl.weights.configs import Config
from kerasdl.weights.families import families
from kerasdl.weights.families.vit import of_dinov2, of_timm, of_vit
from kerasdl.weights.rename import to_ours, to_theirs
from tests.goldens import deviation, read

BY_NAME = {family.name: family for family in families()}
SMALL = {**vit.TINY["vit_digits"], "drop_rate": 0.0, "drop_path": 0.0}


def fill(family, model, weights):
    """Give a model another library's weights; what no rule took."""
    renamed = to_ours(BY_NAME[family], model, weights)
    assert not renamed.missing
    names = {v.path.removeprefix(f"{model.name}/"): v for v in model.weights}
    for path, value in renamed.arrays.items():
        names.get(path, names.get(path.removeprefix("backbone/"))).assign(value)
    return renamed.left_over


def built(of_config, values, **more):
    row, arguments = of_config(Config("it", values))
    return getattr(vit, row)(**{**arguments, **more})


def randomized(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def of_golden(name):
    golden = read(name)
    if name == "vit":
        init = golden.config["init"]
        options = {k: v for k, v in init.items() if k not in ("img_size", "in_chans")}
        given = {"input_size": [init["in_chans"], *init["img_size"]], "mean": [0], "std": [1]}
        values = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": given}
        model = built(of_timm, {**values, "model_args": options})
        return "timm ViT", golden, model
    values = golden.config["resolved_config"]
    if name == "hf_vit":
        return "transformers ViT", golden, built(of_vit, values)
    return "transformers DINOv2", golden, built(of_dinov2, values)


@pytest.fixture(scope="module", params=["vit", "hf_vit", "dinov2"])
def given(request):
    return of_golden(request.param)


def test_answers_are_those_of_the_library(given):
    family, golden, model = given
    x = np.moveaxis(next(iter(golden.inputs.values())), 1, -1)
    for weights in filter(None, (golden.weights, golden.checkpoint)):
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        assert not fill(family, model, weights)
        backbone = getattr(model, "backbone", model)
        answers = {"tokens": backbone.encode(x)}
        if backbone is model:
            answers["pooled"] = model(x)["cls"]
        else:
            answers["logits"] = model(x)
        assert answers.keys() == golden.outputs.keys()
        for name, value in answers.items():
            assert deviation(value, golden.outputs[name]) < 1e-4


def test_weights_go_back_under_the_published_names(given):
    family, golden, model = given
    published = golden.checkpoint or golden.weights
    fill(family, model, published)
    back = to_theirs(BY_NAME[family], model)
    assert back.keys() == published.keys()
    for name, value in back.items():
        if not name.endswith("mask_token"):  # of training alone: zeros are written
            np.testing.assert_array_equal(value, published[name])
        assert value.shape == published[name].shape


OPTIONS = [
    ("timm ViT", {}),
    ("timm ViT", {"qkv_bias": False, "mlp_bias": False, "activation": "quick_gelu"}),
    ("timm ViT", {"pooling": "mean", "pool_norm": True, "final_norm": False, "depth": 3}),
    ("timm ViT", {"pooling": "mean", "class_token": False, "layer_scale": 0.1}),
    ("timm ViT", {"class_token": False, "pooling": "mean", "registers": 3}),
    ("timm ViT", {"registers": 3, "positions_before": 4, "gated": True}),
    ("timm ViT", {"registers": 1, "positions_before": 0, "num_heads": 4}),
    ("timm ViT", {"features": True, "layer_scale": 0.1}),
    ("transformers ViT", {"qkv_bias": False, "activation": "silu", "epsilon": 1e-12}),
    ("transformers ViT", {"features": True, "image_shape": (12, 20, 3)}),
    ("transformers DINOv2", {"pooling": "cls_mean", "layer_scale": 0.1, "gated": True}),
    ("transformers DINOv2", {"pooling": "cls_mean", "layer_scale": 0.1, "qkv_bias": False}),
    (
        "transformers DINOv2 with registers",
        {"pooling": "cls_mean", "layer_scale": 0.1, "registers": 2},
    ),
    (
        "transformers DINOv2 with registers",
        {"features": True, "layer_scale": 0.1, "registers": 2},
    ),
]


@pytest.mark.parametrize(("family", "options"), OPTIONS)
def test_every_option_goes_there_and_back(family, options):
    first, second = (randomized(vit.vit_digits(**{**SMALL, **options})) for _ in range(2))
    for weight in second.weights:
        weight.assign(np.zeros(weight.shape))
    assert BY_NAME[family].accepts(first)
    theirs = to_theirs(BY_NAME[family], first)
    assert not fill(family, second, theirs)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_family_takes_no_network_that_its_library_lacks():
    def accepted(**options):
        model = vit.vit_digits(**{**SMALL, **options})
        return [name for name in BY_NAME if "ViT" in name and BY_NAME[name].accepts(model)]

    assert accepted() == ["timm ViT", "transformers ViT", "KerasHub ViT"]
    assert accepted(layer_scale=0.1, registers=2) == ["timm ViT"]
    assert accepted(pooling="all_mean") == ["KerasHub ViT"]
    assert accepted(patch_bias=False) == ["KerasHub ViT"]
    assert accepted(qkv_bias=False, project_bias=False) == ["KerasHub ViT"]
    assert accepted(qkv_bias=False, mlp_bias=False) == ["timm ViT", "KerasHub ViT"]
    assert accepted(pooling="cls_mean") == []
    assert accepted(pool_norm=True) == []


def test_files_of_the_authors_of_dinov2_are_taken():
    options = {**SMALL, "layer_scale": 0.1, "gated": True, "registers": 2, "features": True}
    model = randomized(vit.vit_digits(**options))
    theirs = to_theirs(BY_NAME["timm ViT"], model)
    changes = {"reg_token": "register_tokens", "mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}
    for old, new in changes.items():
        theirs = {name.replace(old, new): value for name, value in theirs.items()}
    theirs["mask_token"] = np.zeros((1, 16), "float32")
    assert not fill("timm ViT", randomized(vit.vit_digits(**options)), theirs)


@pytest.mark.parametrize("family", ["timm ViT", "transformers ViT"])
def test_a_backbone_is_filled_by_a_classifier_and_the_other_way_round(family):
    whole, alone = vit.vit_digits(**SMALL), vit.vit_digits(**SMALL, features=True)
    theirs = to_theirs(BY_NAME[family], randomized(whole))
    assert all("head" in name or "classifier" in name for name in fill(family, alone, theirs))
    x = np.random.default_rng(0).random((2, 8, 12, 1), np.float32)
    np.testing.assert_allclose(alone(x)["cls"], whole.backbone(x)["cls"], rtol=1e-5, atol=1e-5)
    renamed = to_ours(BY_NAME[family], whole, to_theirs(BY_NAME[family], alone))
    assert renamed.missing == ("head/kernel", "head/bias")
    assert not renamed.left_over


def test_positions_of_a_square_image_are_a_square_for_another_one():
    square = randomized(vit.vit_digits(**{**SMALL, "image_shape": (12, 12, 1)}))
    wide = vit.vit_digits(**SMALL)
    renamed = to_ours(BY_NAME["timm ViT"], wide, to_theirs(BY_NAME["timm ViT"], square))
    grid = renamed.arrays["backbone/tokens/positions/grid"]
    np.testing.assert_array_equal(grid, square.backbone.tokens.positions.grid)
    adapted = wide.adapt_weight("backbone/tokens/positions/grid", grid, (2, 3, 16))
    assert adapted.shape == (2, 3, 16)
    wide = vit.vit_digits(**{**SMALL, "image_shape": (8, 20, 1)})
    oblong = to_theirs(BY_NAME["timm ViT"], vit.vit_digits(**SMALL))
    with pytest.raises(UserError, match="7 positions less 1 are neither 2 x 5 nor a square"):
        to_ours(BY_NAME["timm ViT"], wide, oblong)


def test_patches_are_pooled_beside_the_class_token():
    model = vit.vit_digits(**SMALL, pooling="cls_mean", registers=3)
    x = np.random.default_rng(0).random((2, 8, 12, 1), np.float32)
    tokens = np.asarray(model.backbone.encode(x))
    assert tokens.shape == (2, 1 + 3 + 6, 16)
    pooled = np.concatenate([tokens[:, 0], tokens[:, 4:].mean(1)], axis=-1)
    np.testing.assert_allclose(model(x), model.head(pooled), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="no class token"):
        vit.vit_digits(**SMALL, class_token=False)
    with pytest.raises(UserError, match="positions_before 5: must be at least 0 and at most 4"):
        vit.vit_digits(**SMALL, registers=3, positions_before=5)


def test_tokens_without_positions_stay_as_they_are():
    model = vit.vit_digits(**SMALL, registers=3, positions_before=1)
    tokens = model.backbone.tokens
    tokens.positions.before.assign(np.ones((1, 16)))
    result = np.asarray(tokens(np.zeros((2, 8, 12, 1), "float32")))
    np.testing.assert_array_equal(result[:, 0], np.ones((2, 16)))
    np.testing.assert_array_equal(result[1, 1:4], tokens.registers[0])


def test_configs_of_published_files():
    size = {"architecture": "vit_base_patch14_reg4_dinov2", "num_classes": 0}
    row, arguments = of_timm(Config("it", {**size, "pretrained_cfg": {"input_size": [3, 28, 28]}}))
    assert row == "vit_b16" and arguments["features"]
    expected = {"registers": 4, "positions_before": 0, "layer_scale": 1e-5, "patch_size": 14}
    assert expected.items() <= arguments.items()
    _, arguments = of_timm(Config("it", {"architecture": "vit_giant_patch14_dinov2"}))
    assert (arguments["dim"], arguments["mlp_dim"], arguments["gated"]) == (1536, 4096, True)
    values = {"architecture": "vit_large_patch16_224", "model_args": {"global_pool": "avg"}}
    _, arguments = of_timm(Config("it", values))
    expected = {"pooling": "mean", "pool_norm": True, "final_norm": False, "depth": 24}
    assert expected.items() <= arguments.items()
    published = {"architectures": ["Dinov2ForImageClassification"], "hidden_size": 1536}
    _, arguments = of_dinov2(Config("it", {**published, "use_swiglu_ffn": True}))
    assert "features" not in arguments and arguments["mlp_dim"] == 4096
    _, arguments = of_vit(Config("it", {"architectures": ["ViTModel"], "hidden_act": "swish"}))
    assert arguments["features"] and arguments["activation"] == "silu"


@pytest.mark.parametrize(
    ("of_config", "values", "message"),
    [
        (of_vit, {"hidden_act": "mish"}, "hidden_act is 'mish' in its config"),
        (of_vit, {"patch_size": [16, 8]}, r"patch_size is \(16, 8\)"),
        (of_vit, {"image_size": [16, 8, 3]}, "image_size cannot be"),
        (of_dinov2, {"hidden_size": "large"}, "hidden_size cannot be 'large'"),
        (of_timm, {"architecture": "vit_base_patch16_clip_224"}, "as in vit_base_patch16_224"),
        (of_timm, {"architecture": "vit_base_patch16_224", "global_pool": "map"}, "global_pool"),
        (
            of_timm,
            {"architecture": "vit_base_patch16_224", "model_args": {"qk_norm": True}},
            "qk_norm",
        ),
    ],
)
def test_options_that_are_not_ours_are_refused_by_name(of_config, values, message):
    with pytest.raises(UserError, match=message):
        of_config(Config("it", values))
