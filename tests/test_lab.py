"""Lab and back, and colors as classes."""

import numpy as np
import pytest

from kerasdl.ops import lab

# Red, green, blue, white and a gray of half: sRGB's, of the white D65
KNOWN = [
    ((1, 0, 0), (53.2408, 80.0925, 67.2032)),
    ((0, 1, 0), (87.7347, -86.1827, 83.1793)),
    ((0, 0, 1), (32.2970, 79.1875, -107.8602)),
    ((1, 1, 1), (100.0, 0.0, 0.0)),
    ((0.5, 0.5, 0.5), (53.3890, 0.0, 0.0)),
    ((0, 0, 0), (0.0, 0.0, 0.0)),
]


def test_known_colors():
    rgb, expected = (np.array(x, "float64") for x in zip(*KNOWN, strict=True))
    np.testing.assert_allclose(lab.rgb_to_lab(rgb), expected, atol=2e-3)


def test_there_and_back(rng):
    rgb = rng.random((4, 5, 6, 3)) ** 3  # dark ones too, where the curves are lines
    np.testing.assert_allclose(lab.lab_to_rgb(lab.rgb_to_lab(rgb)), rgb, atol=1e-9)
    beyond = np.array([[50.0, 200.0, 0.0], [120.0, 0.0, 0.0], [-5.0, 0.0, 0.0]])
    shown = np.asarray(lab.lab_to_rgb(beyond))
    assert shown.min() >= 0 and shown.max() <= 1
    np.testing.assert_allclose(shown[1:], [[1, 1, 1], [0, 0, 0]], atol=1e-9)


def test_313_colors_are_in_the_gamut():
    """The paper's number, and the first and last of its published list."""
    bins = lab.ab_bins(10)
    assert bins.shape == (313, 2)
    assert bins[:6].tolist() == [[-90, b] for b in (50, 60, 70, 80, 90)] + [[-80, 20]]
    assert bins[-6:].tolist() == [[100, b] for b in (-50, -40, -30, -20, -10, 0)]
    assert len(lab.ab_bins(40)) < len(lab.ab_bins(20)) < 313


def test_a_color_stands_for_the_nearest_classes():
    bins = lab.ab_bins(10)
    ab = np.array([[[3.0, -4.0], [20.0, 30.0]], [[-300.0, 0.0], [9.9, 10.1]]])
    label = np.asarray(lab.soft_encoded(ab, bins))
    assert label.shape == (2, 2, 313)
    np.testing.assert_allclose(label.sum(-1), 1, atol=1e-12)
    assert (label > 0).sum(-1)[0, 0] == 5  # nothing is as far as the fifth
    far = np.square(ab[0, 0] - bins).sum(-1)
    nearest = np.argsort(far)[:5]
    weight = np.exp(-far[nearest] / (2 * 5.0**2))
    np.testing.assert_allclose(label[0, 0, nearest], weight / weight.sum(), atol=1e-9)
    assert bins[label[0, 1].argmax()].tolist() == [20, 30]
    assert (label[1, 0] > 0).any() and np.isfinite(label).all()
    one = np.asarray(lab.soft_encoded(ab, bins, 1))
    assert set(np.unique(one)) == {0.0, 1.0}


def test_annealed_mean_lies_between_mean_and_mode():
    bins = np.array([[-10.0, 0.0], [30.0, 10.0]])
    logits = np.log([[0.25, 0.75]])
    mean, between, mode = (lab.annealed_mean(logits, bins, t) for t in (1.0, 0.38, 0.01))
    np.testing.assert_allclose(mean, [[20.0, 7.5]])
    np.testing.assert_allclose(mode, [[30.0, 10.0]])
    assert mean[0, 0] < between[0, 0] < mode[0, 0]


def test_rare_colors_count_more():
    bins = lab.ab_bins(20)
    counts = np.zeros(len(bins))
    gray = np.abs(bins).sum(-1).argmin()
    counts[gray] = 1000
    weights = lab.rebalanced(counts, bins)
    assert weights.argmin() == gray and weights.max() / weights.min() > 50
    smooth = np.exp(-np.square(bins - bins[gray]).sum(-1) / 50)
    np.testing.assert_allclose((smooth / smooth.sum()) @ weights, 1, rtol=0.01)
    np.testing.assert_allclose(lab.rebalanced(counts, bins, uniform=1.0), 1, rtol=1e-9)


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (8, 12)])
def test_smaller_images_are_means_over_areas(rng, size):
    image = rng.random((2, 8, 12, 3))
    small = np.asarray(lab.averaged(image, size))
    assert small.shape == (2, *size, 3)
    np.testing.assert_allclose(small.mean((1, 2)), image.mean((1, 2)))
    if size == (4, 6):
        np.testing.assert_allclose(small[0, 1, 2], image[0, 2:4, 4:6].mean((0, 1)))
