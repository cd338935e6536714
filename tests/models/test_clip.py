"""What CLIP's paper promises of its two towers."""

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.models.multimodal.clip import TINY, clip_b32, clip_small


@pytest.fixture(scope="module")
def vit():
    return clip_b32(**{**TINY["clip_b32"], "text_drop_rate": 0.0})


@pytest.fixture
def image(rng):
    return rng.random((3, 8, 12, 1)).astype("float32")


def test_an_image_is_its_class_token_or_the_mean_of_a_map(vit, image):
    np.testing.assert_array_equal(vit.features(image), vit.backbone(image)["cls"])
    residual = clip_small(**TINY["clip_small"])
    last = np.asarray(list(residual.backbone(image).values())[-1])
    np.testing.assert_allclose(residual.features(image), last.mean((1, 2)), rtol=1e-5, atol=1e-6)
    both = residual({"image": image, "caption_ids": np.array([[1, 4, 2]] * 3)})
    for embeds in both.values():
        np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1.0, rtol=1e-5)


def test_the_tower_of_images_has_a_norm_before_its_blocks(vit, image):
    x = np.asarray(vit.backbone.embed(image))
    np.testing.assert_allclose(x.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(-1), 1, atol=0.05)
    maps = vit.backbone.attention_maps(image)
    np.testing.assert_allclose(np.sum(maps, axis=-1), 1.0, rtol=1e-5)
    assert not vit.backbone.tokens.patches.use_bias


def test_the_tower_of_texts_looks_only_back(vit):
    ids = np.array([[1, 5, 6, 7, 2], [1, 5, 8, 9, 2]])
    first, second = np.asarray(vit.text.encode(ids))
    np.testing.assert_allclose(first[:2], second[:2], rtol=1e-5, atol=1e-6)
    assert np.abs(first[2:] - second[2:]).min(axis=-1).max() > 0


def test_its_backbone_is_a_classifiers(vit, image):
    row, arguments = vit.classifier
    statistics = {"input_mean": 0.4, "input_std": 0.3}
    classifier = catalog.build(row, image_shape=(8, 12, 1), **arguments, **statistics)
    for theirs, ours in zip(classifier.backbone.weights, vit.backbone.weights, strict=True):
        theirs.assign(ours)
    features = classifier.backbone(image)["cls"]
    np.testing.assert_allclose(features, vit.features(image), rtol=1e-5, atol=1e-6)


def test_any_backbone_by_name_and_what_it_does_not_take():
    sizes = {k: v for k, v in TINY["clip_b32"].items() if not k.startswith("text_")}
    plain = {"backbone": "vit_digits", "patch_size": 4, "depth": 1}
    own = {k: v for k, v in sizes.items() if k not in ("patch_size", "dim", "depth")}
    own = {k: v for k, v in own.items() if k not in ("num_heads", "mlp_dim")}
    model = clip_b32(**own, text_dim=8, text_depth=1, text_heads=2, text_mlp_dim=8, **plain)
    assert model.backbone.pre_norm is None and model.backbone.dim == 64
    with pytest.raises(UserError, match="no argument 'wide'"):
        clip_small(wide=3)
    with pytest.raises(UserError, match="projection_dim 0: must be a whole number from 1 on"):
        clip_small(**{**TINY["clip_small"], "projection_dim": 0})


def test_the_logits_are_cosines_times_the_scale(vit, rng):
    a, b = (keras.utils.normalize(rng.normal(size=(n, 6)).astype("float32")) for n in (2, 3))
    expected = np.exp(float(vit.logit_scale)) * a @ b.T
    np.testing.assert_allclose(vit.logits(a, b), expected, rtol=1e-5)
