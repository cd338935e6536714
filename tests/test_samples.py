"""Figures of drawn images, against closed forms and scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from kerasdl.metrics import samples


def exact(rng, mean, root, n=400):
    """Rows whose mean and covariance are `mean` and `root' root` to the last bits."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(0)
    q, _ = np.linalg.qr(x)
    return np.asarray(mean) + np.sqrt(n - 1) * q @ np.asarray(root)


def test_frechet_of_gaussians_on_common_axes(rng):
    a = exact(rng, [1.0, 2.0, 3.0], np.diag([1.0, 2.0, 3.0]))
    b = exact(rng, [0.0, 2.0, 5.0], np.diag([4.0, 2.0, 0.5]), n=300)
    expected = (1 + 0 + 4) + (9 + 0 + 6.25)  # the means, then the standard deviations
    assert samples.frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert samples.frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)


def test_frechet_where_covariances_do_not_commute(rng):
    roots = rng.standard_normal((2, 2, 2))
    a, b = (exact(rng, [0.0, 0.0], root) for root in roots)
    cov_a, cov_b = (root.T @ root for root in roots)
    # tr(sqrt(M)) of a 2x2 matrix is sqrt(tr(M) + 2 sqrt(det(M)))
    root = np.sqrt(np.trace(cov_a @ cov_b) + 2 * np.sqrt(np.linalg.det(cov_a @ cov_b)))
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert expected > 0.1
    assert samples.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_equals_the_symmetric_form(rng):
    a = rng.standard_normal((50, 9)) @ rng.standard_normal((9, 9))
    b = rng.standard_normal((40, 9)) @ rng.standard_normal((9, 9)) + 0.5
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values)) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root)).sum()
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = shift + np.trace(cov_a) + np.trace(cov_b) - 2 * common
    assert samples.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_with_singular_covariances(rng):
    """Fewer rows than columns, columns that never vary, and a single point."""
    a = rng.standard_normal((10, 50))
    a[:, 20:] = 0.25
    assert samples.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert samples.frechet_distance(a, a[::-1] + 0.1) == pytest.approx(0.5, rel=1e-9)
    point = np.full((10, 50), 0.25)
    expected = ((a.mean(0) - 0.25) ** 2).sum() + a.var(0, ddof=1).sum()
    assert samples.frechet_distance(a, point) == pytest.approx(expected, rel=1e-9)


def test_frechet_takes_float32_as_float64(rng):
    a = (1000 + rng.standard_normal((500, 3))).astype(np.float32)
    assert samples.frechet_distance(a, a + np.float32(0.5)) == pytest.approx(0.75, rel=1e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_as_scikit_learn_finds_them(rng, monkeypatch, k):
    monkeypatch.setattr(samples, "ENTRIES", 200)  # several pieces, the last one shorter
    a, b = rng.standard_normal((33, 7)) + 5, rng.standard_normal((60, 7)) + 5
    expected = NearestNeighbors(n_neighbors=k).fit(b).kneighbors(a)[0][:, -1]
    np.testing.assert_allclose(samples.nearest_distances(a, b, k), expected, rtol=1e-10)
    np.testing.assert_allclose(samples.nearest_distances(a, a), 0, atol=1e-6)


def test_a_set_against_itself(rng):
    x = rng.standard_normal((200, 5))
    assert samples.precision_recall(x, x[::-1]) == (1, 1)
    assert samples.density_coverage(x, x[::-1]) == (1, 1)


def test_two_sets_of_one_law(rng):
    """A neighborhood has k of N other rows; so has one of M new rows k M / N, on average."""
    real, sampled = rng.standard_normal((2, 2000, 4))
    density, coverage = samples.density_coverage(real, sampled, k=5)
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.02)  # 1 - 2^-k, section 3.3 of the paper
    assert min(samples.precision_recall(real, sampled)) > 0.85


def test_sets_that_are_far_apart(rng):
    real, sampled = rng.standard_normal((2, 100, 5)) + np.array([[[0]], [[100]]])
    assert samples.precision_recall(real, sampled) == (0, 0)
    assert samples.density_coverage(real, sampled) == (0, 0)


def test_one_image_drawn_again_and_again(rng):
    """Collapse is precise, and recalls and covers next to nothing."""
    real = rng.standard_normal((100, 5))
    sampled = np.repeat(real[:1], 100, 0)
    precision, recall = samples.precision_recall(real, sampled)
    density, coverage = samples.density_coverage(real, sampled)
    assert precision == 1 and recall == 0
    assert density > 0 and coverage < 0.2


def test_balls_as_counted_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # to the second neighbor: 3, 2, 3, 9
    sampled = np.array([[-1.5], [4.5], [30.0]])
    # -1.5 is within 3 of 0; 4.5 within 3 of 3 and 9 of 10; 30 within none
    assert samples.density_coverage(real, sampled, k=2) == (pytest.approx(3 / 3 / 2), 3 / 4)
    assert samples.precision_recall(real, sampled, k=2)[0] == pytest.approx(2 / 3)


def test_shares_and_spreads_of_classes():
    classes = np.array([0, 0, 2, 2, 2, 3])
    x = np.array([[0.0, 0], [2, 0], [0, 0], [3, 0], [0, 3], [9, 9]])
    shares = samples.class_shares(classes, 5)
    np.testing.assert_allclose(shares, np.array([2, 0, 3, 1, 0]) / 6)
    spreads = samples.class_spreads(x, classes, 5)
    np.testing.assert_allclose(spreads, [1, np.nan, 2, np.nan, np.nan])
