"""Masked autoencoders of transformers: answers, configs, and names there and back."""

import numpy as np
import pytest

import kerasdl
from kerasdl.errors import UserError
from kerasdl.models.selfsupervised.mae import TINY, mae_small
from kerasdl.store import load
from kerasdl.tasks.masked_patches import masked_mean, order_of
from kerasdl.weights.configs import Config
from kerasdl.weights.families.vit import of_mae
from kerasdl.weights.rename import to_ours, to_theirs
from tests.goldens import deviation
from tests.weights.test_published import PREPROCESSOR, folder_of, of_nchw
from tests.weights.test_vit import BY_NAME, randomized

FAMILY = "transformers MAE"
SMALL = {**TINY["mae_small"], "depth": 2, "drop_rate": 0.0}


@pytest.mark.parametrize("checkpoint", [False, True])
def test_answers_are_those_of_the_library(tmp_path, checkpoint):
    path, golden = folder_of("vit_mae", tmp_path / "m", checkpoint=checkpoint)
    model, expected = kerasdl.from_pretrained(path), golden.outputs
    image = of_nchw(golden.inputs["pixel_values"])
    order = order_of(golden.inputs["noise"])
    outputs = model({"image": image, "order": order})
    errors = model.errors(image, outputs["prediction"])
    assert deviation(outputs["prediction"], expected["logits"]) < 1e-4
    assert abs(np.mean(masked_mean(errors, outputs["mask"])) - expected["loss"]) < 1e-4
    np.testing.assert_array_equal(outputs["mask"], expected["mask"])
    np.testing.assert_array_equal(outputs["ids_restore"], expected["ids_restore"])
    encoded = model.backbone.encode(image, visible=order[:, : model.visible])
    assert deviation(encoded, expected["encoded"]) < 1e-4
    assert deviation(model.patches(image), expected["patches"]) < 1e-6
    published = golden.checkpoint if checkpoint else golden.weights
    back = to_theirs(BY_NAME[FAMILY], model, names=published)
    assert back.keys() == published.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, published[name])


def test_the_encoder_goes_into_a_classifier(tmp_path):
    path, golden = folder_of("vit_mae", tmp_path / "m", checkpoint=True)
    mae = kerasdl.from_pretrained(path)
    sizes = {"image_shape": (20, 20, 3), "patch_size": 4, "dim": 24, "depth": 2}
    sizes |= {"num_heads": 3, "mlp_dim": 44, "epsilon": 1e-12, "num_classes": 5}
    classifier = kerasdl.create_model("vit_b16", **sizes)
    report = kerasdl.load_weights(classifier, path)
    assert report.anew == ("head/kernel", "head/bias") and not report.left_over
    image = of_nchw(golden.inputs["pixel_values"])
    features = classifier.backbone(image)["cls"]
    np.testing.assert_allclose(features, mae.backbone(image)["cls"], rtol=1e-5, atol=1e-5)


def test_the_encoder_alone_and_what_a_folder_says_of_its_images(tmp_path):
    config = {"architectures": ["ViTMAEModel"]}
    files = {"preprocessor_config": PREPROCESSOR}
    path, golden = folder_of("vit_mae", tmp_path / "m", config, **files)
    encoder = kerasdl.from_pretrained(path)
    assert encoder.normalize.mean == pytest.approx([0.5, 0.4, 0.3])
    image = of_nchw(golden.inputs["pixel_values"])
    config = {"architectures": ["ViTMAEForPreTraining"]}
    path, _ = folder_of("vit_mae", tmp_path / "whole", config, **files)
    whole = kerasdl.from_pretrained(path)
    np.testing.assert_array_equal(encoder.encode(image), whole.backbone.encode(image))
    info = load.load_info(path).info
    assert info.image_shape == (20, 20, 3) and info.input_std == (0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_bias": False, "norm_pix_loss": False, "activation": "silu"},
        {"image_shape": (8, 8, 3), "decoder_heads": 1, "decoder_depth": 3},
    ],
)
def test_every_option_goes_there_and_back(options):
    first, second = (randomized(mae_small(**{**SMALL, **options})) for _ in range(2))
    for weight in second.weights:
        weight.assign(np.zeros(weight.shape))
    theirs = to_theirs(BY_NAME[FAMILY], first)
    renamed = to_ours(BY_NAME[FAMILY], second, theirs)
    assert not renamed.left_over and not renamed.missing
    for weight in first.weights:
        np.testing.assert_array_equal(renamed.arrays[weight.path.partition("/")[2]], weight)


def test_configs():
    row, arguments = of_mae(Config("it", {"architectures": ["ViTMAEForPreTraining"]}))
    assert row == "mae_b16" and arguments["epsilon"] == 1e-12
    assert not arguments["norm_pix_loss"] and "features" not in arguments
    values = {"hidden_act": "relu", "mask_ratio": 0.5, "qkv_bias": False, "image_size": 32}
    more = {"decoder_hidden_size": 20, "num_channels": 1, "layer_norm_eps": 1e-3}
    _, arguments = of_mae(Config("it", {**values, **more}))
    expected = {"activation": "relu", "mask_ratio": 0.5, "qkv_bias": False, "decoder_dim": 20}
    expected |= {"image_shape": (32, 32, 1), "epsilon": 1e-3}
    assert expected.items() <= arguments.items()
    for key, value in (("hidden_act", "mish"), ("norm_pix_loss", "yes"), ("mask_ratio", "most")):
        with pytest.raises(UserError, match=key):
            of_mae(Config("it", {key: value}))
