"""What the paper on masked autoencoders promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.layers.position import sinusoid_grid
from kerasdl.models.selfsupervised.mae import TINY, mae_b16, mae_small
from kerasdl.models.vision_transformer.vit import EncoderBlock, vit_digits
from kerasdl.ops.tokens import take_tokens
from kerasdl.store.initial import open_initial

SMALL = {**TINY["mae_small"], "depth": 2, "drop_rate": 0.0}


def settled(**arguments):
    """A model whose weights are all away from 0."""
    model, rng = mae_small(**{**SMALL, **arguments}), np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight.value + 0.1 * rng.normal(size=weight.shape))
    return model


def example(rng, n=3):
    noise = rng.random((n, 24), np.float32)
    return {"image": rng.random((n, 8, 12, 1), np.float32), "order": np.argsort(noise, axis=1)}


def test_positions_count_among_all_parameters_but_not_among_trained_ones():
    with keras.StatelessScope(initialize_variables=False):  # allocates nothing
        model = mae_b16()
    trained, total = (
        sum(math.prod(w.shape) for w in weights)
        for weights in (model.trainable_weights, model.weights)
    )
    keras.backend.clear_session()
    assert (trained, total) == (111_655_680, 111_907_840)
    assert model.decoder.predict.units == 768 and model.num_patches == 196


def test_an_order_and_its_inverse_restore_the_patches(rng):
    noise = rng.random((3, 24))
    order = np.argsort(noise, axis=1)
    x = rng.random((3, 24, 5))
    shuffled = take_tokens(x, order)
    np.testing.assert_array_equal(take_tokens(shuffled, np.argsort(order, axis=1)), x)
    outputs = settled()({"image": rng.random((3, 8, 12, 1)), "order": order})
    np.testing.assert_array_equal(outputs["ids_restore"], np.argsort(order, axis=1))
    kept = int(24 * (1 - 0.6))
    hidden = noise > np.sort(noise, axis=1)[:, kept - 1 : kept]
    np.testing.assert_array_equal(outputs["mask"], hidden.astype("float32"))


def test_the_encoder_sees_the_visible_patches_alone(rng, monkeypatch):
    """Masked pixels change nothing, and its blocks are given no token for them."""
    model, x, seen, call = settled(), example(rng), [], EncoderBlock.call

    def counted(block, x, **kwargs):
        seen.append(x.shape[1])
        return call(block, x, **kwargs)

    monkeypatch.setattr(EncoderBlock, "call", counted)
    outputs = model(x)
    assert seen[:3] == [1 + 9, 1 + 9, 1 + 24]
    pixels = np.asarray(model.mask_of_pixels(outputs["mask"]))
    assert pixels.mean() == pytest.approx(15 / 24)
    other = {**x, "image": np.where(pixels > 0, 1 - x["image"], x["image"])}
    np.testing.assert_array_equal(model(other)["prediction"], outputs["prediction"])
    moved = {**x, "image": np.where(pixels > 0, x["image"], 1 - x["image"])}
    assert (np.abs(model(moved)["prediction"] - outputs["prediction"]).max(axis=-1) > 0).all()


def test_the_order_among_visible_and_among_masked_patches_is_of_no_effect(rng):
    model, x = settled(), example(rng)
    order = np.concatenate([x["order"][:, :9][:, ::-1], x["order"][:, 9:][:, ::-1]], axis=1)
    first, second = model(x), model({**x, "order": order})
    np.testing.assert_allclose(first["prediction"], second["prediction"], rtol=0, atol=1e-4)


def test_patches_are_rows_of_pixels_and_go_back(rng):
    model = settled(image_shape=(8, 12, 2), patch_size=4, input_mean=(0.1, 0.2), input_std=0.5)
    image = rng.random((2, 8, 12, 2), np.float32)
    patches = np.asarray(model.patches(image))
    assert patches.shape == (2, 6, 32)
    fifth = image[:, 4:8, 4:8] - np.array([0.1, 0.2], "float32")
    np.testing.assert_allclose(patches[:, 4], fifth.reshape(2, -1) / 0.5, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.images(patches), image, rtol=0, atol=1e-6)


def test_errors_are_of_patches_with_or_without_their_statistics(rng):
    image, prediction = rng.random((2, 8, 12, 1), np.float32), rng.random((2, 24, 4), np.float32)
    plain, normalized = settled(norm_pix_loss=False), settled()
    target = np.asarray(plain.patches(image))
    expected = np.square(prediction - target).mean(-1)
    np.testing.assert_allclose(plain.errors(image, prediction), expected, rtol=1e-4)
    target = target - target.mean(-1, keepdims=True)
    target = target / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    expected = np.square(prediction - target).mean(-1)
    np.testing.assert_allclose(normalized.errors(image, prediction), expected, rtol=1e-4)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_what_is_predicted_rightly_is_restored(rng, norm_pix_loss):
    model = settled(norm_pix_loss=norm_pix_loss)
    x = example(rng)
    target = np.asarray(model.patches(x["image"]))
    if norm_pix_loss:
        target = target - target.mean(-1, keepdims=True)
        target = target / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    outputs = {**model(x), "prediction": keras.ops.convert_to_tensor(target)}
    np.testing.assert_allclose(model.restored(x["image"], outputs), x["image"], atol=1e-5)
    assert np.abs(model.restored(x["image"], model(x)) - x["image"]).max() > 0.1


def test_positions_are_fixed_sinusoids():
    model = settled()
    grid = np.asarray(model.backbone.tokens.positions.grid)
    np.testing.assert_array_equal(grid, sinusoid_grid(4, 6, 16))
    rates = 1 / 10000 ** (np.arange(4) / 4)
    expected = [np.sin(5 * rates), np.cos(5 * rates), np.sin(3 * rates), np.cos(3 * rates)]
    np.testing.assert_allclose(grid[3, 5], np.concatenate(expected), rtol=1e-6)
    assert not model.backbone.tokens.positions.trainable_weights
    assert model.decoder.positions.grid.shape == (4, 6, 12)
    assert not np.asarray(model.decoder.positions.before).any()


def test_a_classifier_of_its_size_starts_from_its_encoder(tmp_path, rng):
    sizes = ("image_shape", "patch_size", "dim", "depth", "num_heads", "mlp_dim")
    sizes += ("input_mean", "input_std")
    classifier, model = vit_digits(**{key: SMALL[key] for key in sizes}), settled()
    model.save(tmp_path / "mae.keras")
    line = open_initial(str(tmp_path / "mae.keras")).copy_to(classifier)
    assert "the head starts anew" in line and "adapted" not in line
    image = rng.random((2, 8, 12, 1), np.float32)
    np.testing.assert_array_equal(classifier.backbone.encode(image), model.backbone.encode(image))
    assert classifier.backbone.tokens.positions.trainable_weights
    larger = vit_digits(**{**{key: SMALL[key] for key in sizes}, "image_shape": (12, 16, 1)})
    line = open_initial(str(tmp_path / "mae.keras")).copy_to(larger)
    assert "(backbone/tokens/positions/grid of another shape, adapted)" in line


def test_features_are_of_the_whole_image(rng):
    image = rng.random((2, 8, 12, 1), np.float32)
    model, of_class_token = settled(), settled(pooling="cls")
    tokens = np.asarray(model.backbone.encode(image))
    assert tokens.shape == (2, 25, 16)
    np.testing.assert_allclose(model.features(image), tokens[:, 1:].mean(1), atol=1e-5)
    of_class_token.set_weights(model.get_weights())
    np.testing.assert_allclose(of_class_token.features(image), tokens[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio 1.0: must be at least 0 and below 1"),
        ({"mask_ratio": 0.97}, "mask_ratio 0.97: leaves none of 24 patches"),
        ({"patch_size": 5}, "5x5 patches do not divide 8x12"),
        ({"dim": 18}, "fixed positions of a grid need a multiple of 4 channels, got 18"),
        ({"decoder_heads": 5}, "num_heads 5: must divide the 12 channels"),
        ({"pooling": "max"}, "pooling 'max': not one of mean, cls"),
        ({"decoder": 1}, "mae_small has no argument 'decoder'"),
    ],
)
def test_sizes_that_do_not_fit(arguments, said):
    with pytest.raises(UserError, match=said):
        mae_small(**{**SMALL, **arguments})
