"""Each augmentation: what it does to pixels and labels, and its papers' identities."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import augment, pixels, randaugment, warps
from kerasdl.data.augment import Augment
from kerasdl.ops import noise
from kerasdl.recipe import AUGMENTATIONS, Recipe


def make_batch(n=64, shape=(12, 10, 3), classes=4):
    rng = np.random.default_rng(0)
    label = np.eye(classes, dtype=np.float32)[np.arange(n) % classes]
    return {
        "image": tf.constant(rng.random((n, *shape)), tf.float32),
        "label": tf.constant(label),
        "key": noise.keys(0, 0, tf.range(n)),
    }


def columns_of(batch):
    """The columns of `make_batch`."""
    shape, classes = batch["image"].shape[1:], batch["label"].shape[1]
    return DataInfo.of_images(shape, range(classes)).columns


def augmented(batch, *names, **settings):
    return Augment(names, **settings)(batch, columns_of(batch))


def shift_flip(image, *sampled):
    return pixels.warp(image, warps.shift_flip(image.shape[1:3], *sampled), "NEAREST", 0.0)


def changed(before, after):
    """bool `(B, H, W)`: which pixels differ."""
    return np.any(np.asarray(before) != np.asarray(after), axis=-1)


def u(*rows):
    return tf.constant(rows, tf.float32)


def test_from_recipe_takes_every_setting():
    recipe = Recipe(
        augment=("flip", "noise"), reprob=0.1, mixup=0.2, cutmix=0.3, crop_scale=(0.1, 0.9)
    )
    assert Augment.from_recipe(recipe) == Augment(("flip", "noise"), 0.1, 0.2, 0.3, (0.1, 0.9))
    assert Augment.from_recipe(Recipe()) == Augment()
    assert Augment.from_recipe(Recipe(crop_ratio=(1, 2))) == Augment(crop_ratio=(1, 2))
    assert Augment.from_recipe(recipe).mixes and not Augment.from_recipe(Recipe()).mixes


def test_none_changes_nothing():
    batch = make_batch()
    assert augmented(batch)["image"] is batch["image"]


@pytest.mark.parametrize("shape", [(12, 10, 3), (8, 8, 1), (17, 33, 3), (6, 6, 4)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_keeps_shape_and_range_and_changes_pixels(name, shape):
    batch = make_batch(32, shape)
    out = augmented(batch, name)
    assert out["image"].shape == batch["image"].shape and out["image"].dtype == tf.float32
    image = out["image"].numpy()
    assert image.min() >= 0 and image.max() <= 1
    assert changed(batch["image"], image).any(axis=(1, 2)).sum() >= 8
    np.testing.assert_array_equal(out["label"], batch["label"])


def test_switching_one_on_does_not_change_another():
    batch = make_batch(16)
    alone = augmented(batch, "flip")["image"]
    both = augmented(batch, "flip", "cutout")["image"].numpy()
    same = both == alone.numpy()
    assert (same | (both == 0)).all()


def test_shift_crops_the_zero_padded_image():
    image = make_batch(5, (20, 32, 3))["image"]
    py, px = 2, 4
    sampling_modes = u((0, 0), (0.999, 0.999), (0.5, 0.5), (0, 0.999), (0.3, 0.7))
    out = shift_flip(image, sampling_modes, None).numpy()
    padded = np.pad(image, ((0, 0), (py, py), (px, px), (0, 0)))
    for i, (a, b) in enumerate(sampling_modes.numpy()):
        y, x = int(a * (2 * py + 1)), int(b * (2 * px + 1))
        np.testing.assert_array_equal(out[i], padded[i, y : y + 20, x : x + 32])


def test_flip_mirrors_left_and_right_exactly():
    image = make_batch(2)["image"].numpy()
    out = shift_flip(image, None, u((0.1,), (0.9,))).numpy()
    np.testing.assert_array_equal(out[0], image[0, :, ::-1])
    np.testing.assert_array_equal(out[1], image[1])
    share = changed(make_batch(400)["image"], augmented(make_batch(400), "flip")["image"])
    assert 150 < share.any(axis=(1, 2)).sum() < 250


def test_color_jitter_by_hand():
    image = make_batch(3)["image"].numpy()
    half = u((0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5))
    out = augment.color_jitter(image, half).numpy()
    np.testing.assert_allclose(out[0], image[0], atol=1e-6)
    np.testing.assert_allclose(out[1], image[1] * 0.6, atol=1e-6)
    mean = (image[2] @ np.array([0.299, 0.587, 0.114])).mean()
    np.testing.assert_allclose(out[2], mean + 0.6 * (image[2] - mean), atol=1e-5)
    gray = np.repeat(image[:, :, :, :1], 3, axis=-1)  # saturation leaves gray alone
    saturated = augment.color_jitter(gray, u(*[(0.5, 0.5, 0.9)] * 3)).numpy()
    np.testing.assert_allclose(saturated, gray, atol=1e-6)


def test_cutout_zeroes_a_square_of_half_the_side():
    image = make_batch(2)["image"] * 0.5 + 0.5
    out = augment.cutout(image, u((0.5, 0.5), (0.0, 0.0))).numpy()
    middle = changed(image, out)[0]
    assert middle.sum() == 25 and middle[4:9, 3:8].all() and (out[0][4:9, 3:8] == 0).all()
    assert changed(image, out)[1].sum() == 9  # clipped at the corner


def test_random_erasing_takes_its_share_of_examples_and_area():
    batch = make_batch(500, (32, 32, 3))
    out = augmented(batch, reprob=0.3)["image"].numpy()
    pixels_changed = changed(batch["image"], out).sum(axis=(1, 2))
    assert 115 < (pixels_changed > 0).sum() < 185
    hit = pixels_changed[pixels_changed > 0] / 32**2
    assert hit.min() > 0.01 and hit.max() < 0.45 and 0.15 < hit.mean() < 0.27
    assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(augmented(batch, reprob=0.0)["image"], batch["image"])


def test_noise_has_its_deviation():
    batch = make_batch()
    batch["image"] = tf.fill(batch["image"].shape, 0.5)
    out = augmented(batch, "noise")["image"].numpy()
    assert abs(out.std() - augment.NOISE_STD) < 0.001 and abs(out.mean() - 0.5) < 0.002


def apply(name, image, sign=1.0):
    operation = tf.fill((len(image),), randaugment.OPERATIONS.index(name))
    return randaugment.apply(tf.constant(image), operation, tf.fill((len(image),), sign)).numpy()


def test_randaugment_operations_by_hand():
    image = make_batch(3, (9, 9, 3))["image"].numpy() * 0.5 + 0.2
    level = np.rint(image * 255)
    expected = {
        "identity": image,
        "invert": 1 - image,
        "solarize": np.where(image < randaugment.THRESHOLD, image, 1 - image),
        "posterize": np.floor(level / 16) * 16 / 255,
        "brightness": np.clip(image * 1.81, 0, 1),
    }
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    expected["autocontrast"] = (image - low) / (high - low)
    for name, value in expected.items():
        np.testing.assert_allclose(apply(name, image), value, atol=1e-6, err_msg=name)
    flat = np.full((1, 4, 4, 1), 0.3, np.float32)
    np.testing.assert_array_equal(apply("autocontrast", flat), flat)


def test_randaugment_moves_about_the_center():
    image = np.full((1, 21, 21, 1), randaugment.FILL, np.float32)
    image[0, 10, 10] = 1.0
    for name in ("rotate", "shear_x", "shear_y"):
        assert apply(name, image)[0, 10, 10, 0] == pytest.approx(1.0, abs=1e-5)
    right = apply("translate_x", image, -1.0)[0, :, :, 0]
    peak = np.unravel_index(right.argmax(), right.shape)
    assert peak == (10, 10 + round(0.45 * 0.9 * 21))
    line = np.full((1, 21, 21, 1), 0.0, np.float32)
    line[0, 10, 4:17] = 1.0
    turned = apply("rotate", line)[0, :, :, 0]
    weight = turned[3:18, 3:18]  # without the fill in the corners
    y, x = np.mgrid[-7:8, -7:8]
    xx, yy, xy = ((weight * v).sum() for v in (x * x, y * y, x * y))
    assert abs(np.degrees(np.arctan2(2 * xy, xx - yy) / 2)) == pytest.approx(27, abs=1)
    np.testing.assert_allclose(apply("rotate", line, -1.0)[0, ::-1, :, 0], turned, atol=1e-5)


def test_every_randaugment_operation_is_drawn():
    image = tf.zeros((1, 2, 2, 1))
    sampling_modes = np.linspace(0, 0.999999, 1300, dtype=np.float32)
    operation = tf.cast(sampling_modes * len(randaugment.OPERATIONS), tf.int32).numpy()
    assert sorted(set(operation)) == list(range(13))
    assert np.ptp(np.bincount(operation)) <= 2
    assert randaugment.randaugment(image, u((0.5, 0.5, 0.5, 0.5))).shape == image.shape


def test_mixup_mixes_image_and_label_alike():
    batch = make_batch(6)
    image, label = augment.mixup(batch["image"], batch["label"], 0.25)
    x = batch["image"].numpy()
    np.testing.assert_allclose(image, 0.25 * x + 0.75 * x[::-1], rtol=1e-6)
    np.testing.assert_allclose(np.sum(label, axis=1), 1)
    np.testing.assert_allclose(label[0], [0.25, 0.75, 0, 0])


def test_cutmix_label_weight_is_the_area_that_is_left():
    assert augment.kept_fraction(8, 10, 32, 32) == 0.921875
    for lam, y, x in [(0.5, 0.5, 0.5), (0.2, 0.0, 0.99), (1.0, 0.3, 0.3), (0.0, 0.5, 0.5)]:
        top, left, h, w, kept = (float(v) for v in augment.cutmix_box(32, 24, lam, y, x))
        assert 0 <= top <= top + h <= 32 and 0 <= left <= left + w <= 24
        assert kept == pytest.approx(1 - h * w / (32 * 24))
    batch = make_batch(6)
    image, label = augment.cutmix(batch["image"], batch["label"], 0.5, 0.5, 0.5)
    share = changed(batch["image"], image).mean(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(label)[0, 1], share[0], rtol=1e-6)
    np.testing.assert_allclose(np.sum(label, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 5.0])
def test_beta_has_its_moments(alpha):
    key = noise.keys(0, 0, tf.range(300))
    lam = tf.map_fn(lambda k: augment.beta(k, alpha), key, fn_output_signature=tf.float32).numpy()
    assert np.isfinite(lam).all() and lam.min() >= 0 and lam.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lam.mean() - 0.5) < 4 * np.sqrt(variance / 300)
    assert abs(lam.var() - variance) < 0.04


def test_both_mixes_are_drawn_with_equal_odds():
    batch = make_batch(2)
    mix = tf.function(lambda batch: augmented(batch, mixup=1.0, cutmix=1.0))
    pasted = 0
    for i in range(100):
        out = mix({**batch, "key": noise.keys(1, 0, tf.range(i, i + 2))})["image"].numpy()
        x = batch["image"].numpy()
        pasted += ((out == x) | (out == x[::-1])).all()
        assert out.min() >= 0 and out.max() <= 1
    assert 32 < pasted < 68


def test_mean_gray_does_not_depend_on_the_batch():
    image = make_batch(40, (31, 29, 3))["image"]
    whole = pixels.mean_gray(image).numpy()
    for i in (0, 17, 39):
        np.testing.assert_array_equal(pixels.mean_gray(image[i : i + 1]).numpy()[0], whole[i])
    np.testing.assert_allclose(
        whole[:, 0, 0, 0], (image.numpy() @ [0.299, 0.587, 0.114]).mean((1, 2)), atol=1e-5
    )


@pytest.mark.parametrize("scale", [(0.5,), (0.0, 1.0), (0.6, 0.5), (0.5, 1.1), (0.1, 0.2, 0.3)])
def test_a_crop_scale_out_of_range_is_refused(scale):
    with pytest.raises(ValueError, match="--crop-scale .*: must be two numbers above 0"):
        Recipe(crop_scale=scale)


@pytest.mark.parametrize("ratio", [(0.5,), (0.0, 1.0), (2.0, 0.5), (-1, 1)])
def test_a_crop_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="--crop-ratio .*: must be two numbers above 0"):
        Recipe(crop_ratio=ratio)


def test_vertical_flip_turns_half_of_them_upside_down():
    image = make_batch(2)["image"].numpy()
    out = shift_flip(image, None, None, u((0.1,), (0.9,))).numpy()
    np.testing.assert_array_equal(out[0], image[0, ::-1])
    np.testing.assert_array_equal(out[1], image[1])
    both = shift_flip(image, None, u((0.1,), (0.9,)), u((0.1,), (0.1,))).numpy()
    np.testing.assert_array_equal(both[0], image[0, ::-1, ::-1])
    np.testing.assert_array_equal(both[1], image[1, ::-1])
    part = changed(make_batch(400)["image"], augmented(make_batch(400), "vertical_flip")["image"])
    assert 150 < part.any(axis=(1, 2)).sum() < 250


def test_crop_of_what_is_in_memory_is_the_resized_crop():
    batch = make_batch(16)
    np.testing.assert_array_equal(
        augmented(batch, "crop")["image"], augmented(batch, "resized_crop")["image"]
    )
    square = augmented(batch, "crop", crop_ratio=(1.0, 1.0), crop_scale=(1.0, 1.0))["image"]
    np.testing.assert_allclose(square, batch["image"], atol=1e-5)


def test_blur_is_a_gaussian_of_its_deviation():
    image = np.zeros((3, 41, 41, 1), np.float32)
    image[:, 20, 20] = 1
    out = augment.blur(tf.constant(image), u((0.0, 1.0), (0.0, 0.4737), (0.9, 1.0))).numpy()
    np.testing.assert_array_equal(out[2], image[2])
    for one, sigma in ((out[0], 2.0), (out[1], 1.0)):
        y, x = np.mgrid[-20:21, -20:21]
        assert one.sum() == pytest.approx(1, abs=1e-5)
        deviation = np.sqrt((one[..., 0] * y**2).sum())
        assert deviation == pytest.approx(sigma, rel=0.03)
        np.testing.assert_allclose(one[..., 0], one[..., 0].T, atol=1e-7)
    flat = tf.fill((1, 9, 30, 3), 0.7)
    np.testing.assert_allclose(augment.blur(flat, u((0.0, 0.9))), flat, atol=1e-6)


def test_a_crop_of_any_image_has_its_area_and_ratio():
    rng = np.random.default_rng(0)
    for size in ((300, 500), (20, 400), (7, 3)):
        for numbers in rng.random((100, 4)).astype(np.float32):
            corner, sides = warps.crop_box(u(size)[0], tf.constant(numbers), (0.08, 1.0))
            corner, sides = corner.numpy(), sides.numpy()
            assert (corner >= 0).all() and (corner + sides <= np.array(size) * 1.0001).all()
            if sides.min() > 1:
                assert 0.7499 < sides[1] / sides[0] < 1.3334
            if size == (300, 500) and sides[0] < 299:
                area = 0.08 + 0.92 * numbers[0]
                assert sides.prod() / 150_000 == pytest.approx(area, rel=1e-3)
