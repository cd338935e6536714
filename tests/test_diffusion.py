"""The diffusion process against its closed forms, in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl.ops import diffusion, noise, schedules
from kerasdl.ops.diffusion import Diffusion, Sampler, T, posterior

PAIRS = [
    (schedule, prediction)
    for schedule in diffusion.SCHEDULES
    for prediction in diffusion.PREDICTIONS
    if (schedule, prediction) not in (("ve", "v"), ("flow", "eps"))
]
every_pair = pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
discrete = pytest.mark.parametrize("schedule", schedules.DISCRETE)


@pytest.fixture(autouse=True)
def float64():
    keras.config.set_floatx("float64")


def made_up(count=5, seed=0):
    """Images in [-1, 1] and noise."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, 4, 4, 1)), rng.standard_normal((count, 4, 4, 1))


def times(schedule, count=5):
    return (np.linspace(0.05, 0.95, count) * T).round() / T


def oracle(process, x0, eps):
    """What a network would predict that knows image and noise."""
    return lambda x, t: process.target(ops.convert_to_tensor(x0), ops.convert_to_tensor(eps), t)


def test_the_linear_law_is_the_papers():
    alpha, _ = Diffusion("linear", "eps").table()[-1]
    assert alpha**2 == pytest.approx(4.035829765375e-05, abs=1e-9)
    beta = diffusion.betas("linear")
    assert (beta[0], beta[-1], len(beta)) == (1e-4, 0.02, 1000)


@discrete
def test_variance_is_preserved(schedule):
    np.testing.assert_allclose((Diffusion(schedule).table() ** 2).sum(-1), 1.0, atol=1e-12)


@discrete
def test_levels_in_a_graph_are_the_tables(schedule):
    process = Diffusion(schedule)
    result = process.levels(ops.convert_to_tensor(np.arange(T + 1) / T))
    np.testing.assert_array_equal(np.stack(result, -1), process.table())


@discrete
def test_the_posterior_agrees_with_the_marginals(schedule):
    """Of x_{t-1}: the mean and the variance that q(x_{t-1} | x_0) has."""
    t = np.arange(1, T + 1) / T
    s = np.arange(T) / T
    process = Diffusion(schedule)
    (alpha, sigma), (alpha_s, sigma_s) = process.levels(t), process.levels(s)
    of_x, of_clean, variance, step = posterior(process, t, s)
    np.testing.assert_allclose(of_clean + of_x * alpha, alpha_s, atol=1e-12)
    np.testing.assert_allclose(of_x**2 * sigma**2 + variance, sigma_s**2, atol=1e-12)
    np.testing.assert_allclose(step, diffusion.betas(schedule), atol=1e-12)
    assert abs(variance[0]) < 1e-15


@discrete
def test_posterior_coefficients_are_equation_7(schedule):
    beta = diffusion.betas(schedule)
    bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], bar[:-1]])
    of_x, of_clean, variance, _ = posterior(
        Diffusion(schedule), np.arange(1, T + 1) / T, np.arange(T) / T
    )
    np.testing.assert_allclose(of_clean, np.sqrt(before) * beta / (1 - bar), rtol=1e-9)
    right = np.sqrt(1 - beta) * (1 - before) / (1 - bar)
    np.testing.assert_allclose(of_x, right, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, (1 - before) / (1 - bar) * beta, rtol=1e-9, atol=1e-12)


def test_velocity():
    x0, eps = made_up()
    process = Diffusion("cosine", "v")
    t = ops.convert_to_tensor(times("cosine"))
    alpha, sigma = (np.asarray(v)[:, None, None, None] for v in process.levels(t))
    v = np.asarray(process.target(x0, eps, t))
    np.testing.assert_allclose(v, alpha * eps - sigma * x0, atol=1e-12)
    x = np.asarray(process.noised(x0, eps, t))
    np.testing.assert_allclose(alpha * x - sigma * v, x0, atol=1e-12)


@every_pair
def test_a_right_prediction_gives_the_image_back(schedule, prediction):
    x0, eps = made_up()
    process = Diffusion(schedule, prediction)
    t = ops.convert_to_tensor(times(schedule))
    x = process.noised(x0, eps, t)
    np.testing.assert_allclose(process.clean(x, process.target(x0, eps, t), t), x0, atol=1e-9)


@every_pair
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_ddim_with_the_true_noise_returns_the_image(schedule, prediction, steps):
    x0, eps = made_up()
    process = Diffusion(schedule, prediction)
    sampler = Sampler(process, "ddim", steps)
    x = process.noised(x0, eps, ops.ones(len(x0)))
    predict = oracle(process, x0, eps)
    np.testing.assert_allclose(sampler.run(predict, x), x0, atol=1e-9)
    # and on the way it lands on the marginals
    half = steps // 2
    t = ops.convert_to_tensor(np.full(len(x0), sampler.times()[half]))
    middle = sampler.run(predict, x, stop=half)
    np.testing.assert_allclose(middle, process.noised(x0, eps, t), atol=1e-9)


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_a_straight_flow_is_followed_exactly(name, steps):
    x0, eps = made_up()
    process = Diffusion("flow", "v")
    result = Sampler(process, name, steps).run(lambda x, t: eps - x0, ops.convert_to_tensor(eps))
    np.testing.assert_allclose(result, x0, atol=1e-12)


def test_euler_is_a_step_along_the_velocity():
    process = Diffusion("flow", "v")
    sampler = Sampler(process, "euler", 4, clip=False)
    x, _ = made_up()
    result = sampler.run(lambda x, t: x * t[:, None, None, None], ops.convert_to_tensor(x), stop=2)
    expected = x
    for t in (1.0, 0.75):
        expected = expected - 0.25 * expected * t
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_heun_is_of_second_order():
    """On dx/dt = x, x(1) = e: twice the steps leave about a quarter of the error."""
    process = Diffusion("flow", "v")
    errors = []
    for steps in (16, 32, 64):
        sampler = Sampler(process, "heun", steps, clip=False)
        # all but the last step, which is Euler's
        result = sampler.run(lambda x, t: x, ops.ones((1, 1, 1, 1)) * np.e, stop=steps - 1)
        errors.append(abs(float(result[0, 0, 0, 0]) - np.exp(1 / steps)))
    assert 3.5 < errors[0] / errors[1] < 4.6
    assert 3.5 < errors[1] / errors[2] < 4.6


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ancestral_samples_of_a_gaussian_have_its_spread(eta):
    """Pixels of deviation 0.5: the best prediction is known, so how samples are spread is too."""
    process = Diffusion("linear", "eps")
    name = "ddpm" if eta else "ddim"
    sampler = Sampler(process, name, 200, clip=False)
    key = noise.sample_keys((0, 1), 4000)

    def predict(x, t):
        alpha, sigma = (v[:, None, None, None] for v in process.levels(t))
        return x * sigma / (alpha**2 * 0.25 + sigma**2)

    x = noise.normal(key, (1, 1, 1))
    result = np.asarray(sampler.run(predict, x, key, stream=8)).ravel()
    assert result.mean() == pytest.approx(0, abs=0.03)
    assert result.std() == pytest.approx(0.5, rel=0.05)


def test_ddim_with_eta_1_is_ancestral():
    process = Diffusion("cosine", "v")
    ddpm, ddim = Sampler(process, "ddpm", 30).table(), Sampler(process, "ddim", 30, 1.0).table()
    np.testing.assert_allclose(ddpm, ddim, atol=1e-9)


@every_pair
@pytest.mark.parametrize("sampling", diffusion.TIMES)
def test_times_are_in_range_and_differ(schedule, prediction, sampling):
    process = Diffusion(schedule, prediction)
    t = np.asarray(process.times(noise.sample_keys((3, 4), 2000), sampling))
    assert 0 <= t.min() and t.max() <= 1
    assert t.mean() == pytest.approx(0.5, abs=0.03)
    assert t.std() == pytest.approx({"uniform": 0.289, "logit_normal": 0.208}[sampling], abs=0.02)
    if process.discrete:
        assert t.min() >= 1 / T
        np.testing.assert_allclose(t * T, (t * T).round(), atol=1e-9)


@every_pair
def test_weights_do_not_depend_on_what_is_predicted(schedule, prediction):
    """The same error of x_0 costs the same, whichever way it is said."""
    if schedule == "flow":
        kinds = ["min_snr"]  # the bound of a flow has no finite weight at t = 1
    else:
        kinds = ["min_snr", "vlb"]
    t = ops.convert_to_tensor(times(schedule))
    alpha, sigma = (np.asarray(v) for v in Diffusion(schedule, "x").levels(t))
    of_error = {"x": 1.0, "eps": (alpha / sigma) ** 2, "v": 1 / sigma**2}[prediction]
    for kind in kinds:
        result = np.asarray(Diffusion(schedule, prediction).weight(t, kind)) * of_error
        np.testing.assert_allclose(result, Diffusion(schedule, "x").weight(t, kind), rtol=1e-6)
    np.testing.assert_array_equal(Diffusion(schedule, prediction).weight(t), 1.0)


def test_the_bounds_weight_is_equation_12():
    """beta^2 / (2 sigma^2 alpha (1 - abar)) with sigma^2 = beta, at t = 1 too."""
    beta = diffusion.betas("linear")
    bar = np.cumprod(1 - beta)
    t = ops.convert_to_tensor(np.arange(1, T + 1) / T)
    result = Diffusion("linear", "eps").weight(t, "vlb")
    np.testing.assert_allclose(result, beta / (2 * (1 - beta) * (1 - bar)), rtol=1e-6)


def test_guidance():
    c, u = made_up()
    np.testing.assert_array_equal(diffusion.guided(c, u, 0.0), u)
    np.testing.assert_allclose(diffusion.guided(c, u, 1.0), c, atol=1e-15)
    np.testing.assert_allclose(diffusion.guided(c, u, 3.0), c + 2 * (c - u), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Diffusion("ve", "v"),
            "linear, cosine and flow only; with ve use eps or x",
        ),
        (
            lambda: Diffusion("flow", "eps"),
            "linear, cosine and ve only; with flow use v or x",
        ),
        (lambda: Sampler(Diffusion("linear"), "ddim", 1001), "at most 1000"),
        (
            lambda: Sampler(Diffusion("linear"), "ddpm", 10, 0.5),
            "eta=0.5 applies to the sampler ddim only",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
