"""Samplers on the grids of published schedulers, against states that diffusers gave."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.ops import schedules
from kerasdl.ops.diffusion import Diffusion, Sampler
from kerasdl.recipe import Recipe
from kerasdl.tasks.denoise import Denoise
from kerasdl.weights.schedulers import CLASSES, from_scheduler_config

FILES = sorted((Path(__file__).parent / "goldens").glob("scheduler_*.npz"))
# What is given with a call, not in a scheduler's file.
CALLS = {"ddim_eta1": {"eta": 1.0}, "flow_euler_even": {"spacing": "trailing"}}
INFO = DataInfo.of_images((8, 8, 1), "ab")


def task_of(settings):
    return Denoise(INFO, Recipe(model="ddpm_unet_small", task_kwargs=settings))


def close(result, expected, relative=1e-4):
    error = np.abs(np.asarray(result) - expected).max()
    assert error <= relative * np.abs(expected).max(), error


def golden(path):
    """The file, the task of its scheduler's settings, and its steps."""
    file, name = np.load(path), path.stem.removeprefix("scheduler_")
    config = json.loads(str(file["config"]))
    settings = from_scheduler_config({"_class_name": config["class"], **config["init"]})
    calls = len(file["outputs/timesteps"])
    steps = (calls + 1) // 2 if settings["sampler"] == "heun" else calls
    return file, task_of({**settings, "steps": steps, **CALLS.get(name, {})})


def network(process):
    """The network of the golden files, which is told the time as a number of steps."""

    def predict(x, t):
        return 0.3 * x + 0.1 * ops.sin(1000.0 * process.network_time(t))[:, None, None, None]

    return predict


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_states_of_published_schedulers(path):
    file, task = golden(path)
    sampler, process = task.sampler, task.diffusion
    predict = network(process)

    times = sampler.times()[:-1]
    twice = np.repeat(np.arange(len(times)), 2)[1:] if sampler.name == "heun" else slice(None)
    close(1000 * process.network_time(times)[twice], file["outputs/timesteps"])
    if process.discrete:
        close(process.table()[1:, 0] ** 2, file["outputs/alphas_cumprod"])
    if "outputs/sigmas" in file:
        close(sampler.sigmas()[:-1][twice], file["outputs/sigmas"][:-1])
        assert sampler.sigmas()[-1] == 0
    first = sampler.first(ops.convert_to_tensor(file["inputs/noise"]))
    close(first, file["inputs/first_state"])
    noises = file.get("inputs/step_noises")
    states = sampler.states(predict, first, noises=noises)
    assert states.shape == file["outputs/states"].shape
    for state, expected in zip(np.asarray(states), file["outputs/states"], strict=True):
        close(state, expected)
    close(sampler.run(predict, first, noises=noises), file["outputs/states"][-1])


def test_there_are_thirteen():
    assert len(FILES) == 13


# -- other settings, against the rules of the papers taken one at a time -------------------------

OTHERS = {
    "ddim leading": {"spacing": "leading", "steps_offset": 1, "ends_clean": False, "eta": 0.5},
    "ddim linspace": {"spacing": "linspace", "prediction": "v"},
    "ddim trailing": {"spacing": "trailing", "clip": True, "clip_noise": False, "clip_range": 0.5},
    "ddim few": {"spacing": "leading", "train_steps": 300, "clip": True},
    "ddim scaled": {"spacing": "trailing", "schedule": "scaled_linear", "prediction": "x"},
    "ddpm large": {"spacing": "trailing", "sampler": "ddpm", "variance": "fixed_large"},
    "ddpm leading": {"spacing": "leading", "sampler": "ddpm", "variance": "fixed_large"},
    "ddpm linspace": {"spacing": "linspace", "sampler": "ddpm", "clip": True, "clip_range": 2.0},
    "euler leading": {"spacing": "leading", "sampler": "euler", "prediction": "v"},
    "euler trailing": {"spacing": "trailing", "sampler": "euler", "ends_clean": False},
    "euler karras": {"spacing": "leading", "sampler": "euler", "karras": True, "steps_offset": 3},
    "heun trailing": {"spacing": "trailing", "sampler": "heun", "prediction": "x", "clip": True},
    "heun karras": {"spacing": "linspace", "sampler": "heun", "karras": True, "prediction": "v"},
    "heun cosine": {"spacing": "trailing", "sampler": "heun", "schedule": "cosine"},
}
STEPS = 7


def visited(s, count):
    """Steps from 0 up to the schedule's last, the last first, as a published scheduler has them."""
    if s["spacing"] == "linspace":
        steps = np.linspace(0, count - 1, STEPS)[::-1]
        return steps if s["sampler"] in ("euler", "heun") else steps.round()
    if s["spacing"] == "leading":
        return np.arange(STEPS)[::-1] * (count // STEPS) + s.get("steps_offset", 0)
    return np.round(np.arange(count, 0, -count / STEPS)) - 1


def both_of(s, alpha, sigma, x, predicted):
    """Image and noise that a prediction at `x = alpha image + sigma noise` stands for."""
    if s["prediction"] == "v":
        return alpha * x - sigma * predicted, alpha * predicted + sigma * x
    if s["prediction"] == "x":
        return predicted, (x - alpha * predicted) / sigma
    return (x - sigma * predicted) / alpha, predicted


def preserved(s, bar, x, predict, noises):
    """States of DDIM and of ancestral steps, whose variance is preserved."""
    steps = visited(s, len(bar)).astype(int)
    edge, states = s.get("clip_range", 1.0), [x]
    last = 1.0 if s.get("ends_clean", True) else bar[0]
    for k, i in enumerate(steps):
        if s["sampler"] == "ddpm":
            j = steps[k + 1] if k + 1 < STEPS else -1
        else:
            j = i - len(bar) // STEPS
        now, then = bar[i], bar[j] if j >= 0 else last
        image, eps = both_of(s, now**0.5, (1 - now) ** 0.5, x, predict(x, i))
        if s.get("clip"):
            image = np.clip(image, -edge, edge)
            if s.get("clip_noise", True):
                eps = (x - now**0.5 * image) / (1 - now) ** 0.5
        beta = 1 - now / then
        small = (1 - then) / (1 - now) * beta
        if s["sampler"] == "ddpm":
            x = then**0.5 * beta * image + (now / then) ** 0.5 * (1 - then) * x
            spread = beta if s.get("variance") else small
            x = x / (1 - now) + (i > 0) * spread**0.5 * noises[k]
        else:
            spread = s.get("eta", 0.0) ** 2 * small
            x = then**0.5 * image + (1 - then - spread) ** 0.5 * eps + spread**0.5 * noises[k]
        states.append(x)
    return states


def exploding(s, bar, eps, predict):
    """States of Euler's and Heun's method along `image + sigma eps`."""
    sizes, steps = (1 / bar - 1) ** 0.5, visited(s, len(bar))
    sigma = np.interp(steps, np.arange(len(bar)), sizes)
    if s.get("karras"):
        ends = sigma[0] ** (1 / 7), sigma[-1] ** (1 / 7)
        sigma = (ends[0] + np.linspace(0, 1, STEPS) * (ends[1] - ends[0])) ** 7
        steps = np.interp(np.log(sigma), np.log(sizes), np.arange(len(bar)))
    x = eps * (np.hypot(sigma[0], 1) if s["spacing"] == "leading" else sigma[0])
    states, sigma = [x], np.append(sigma, 0.0 if s.get("ends_clean", True) else sizes[0])

    def slope(x, k):
        alpha = 1 / np.hypot(1, sigma[k])
        image, _ = both_of(s, alpha, alpha * sigma[k], alpha * x, predict(alpha * x, steps[k]))
        return (x - (np.clip(image, -1, 1) if s.get("clip") else image)) / sigma[k]

    for k in range(STEPS):
        first, size = slope(x, k), sigma[k + 1] - sigma[k]
        states.append(x + size * first)
        if s["sampler"] == "heun" and k < STEPS - 1:
            states.append(x + size * (first + slope(states[-1], k + 1)) / 2)
        x = states[-1]
    return states


@pytest.mark.parametrize("case", OTHERS)
def test_states_of_other_settings(case):
    keras.config.set_floatx("float64")
    linear = {"schedule": "linear", "beta_start": 0.001, "beta_end": 0.02}
    s = {**linear, "sampler": "ddim", "prediction": "eps", "first_time": 0, **OTHERS[case]}
    if s["schedule"] == "cosine":
        del s["beta_start"], s["beta_end"]
    task = task_of({"clip": False, "steps": STEPS, **s})
    rng = np.random.default_rng(0)
    eps, noises = rng.standard_normal((2, 3, 3, 1)), rng.standard_normal((STEPS, 2, 3, 3, 1))

    def predict(x, i):
        return 0.3 * x + 0.1 * np.sin(i)

    bar = task.diffusion.table()[1:, 0] ** 2
    if task.sampler.explodes:
        expected = exploding(s, bar, eps, predict)
    else:
        expected = preserved(s, bar, eps, predict, noises)
    x = task.sampler.first(ops.convert_to_tensor(eps))
    states = task.sampler.states(network(task.diffusion), x, noises=noises)
    assert len(states) == len(expected)
    for state, other in zip(np.asarray(states), expected, strict=True):
        close(state, other, 1e-9)


def test_scaled_betas_are_even_in_their_roots():
    roots = schedules.betas("scaled_linear", 0.00085, 0.012, 500) ** 0.5
    np.testing.assert_allclose(np.diff(roots), (0.012**0.5 - 0.00085**0.5) / 499, rtol=1e-9)


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_shifted_flow_moves_the_odds(shift):
    """Of noise to image: those of each time times `shift`; the ends stay."""
    plain = Sampler(Diffusion("flow"), "euler", 6).times()
    times = Sampler(Diffusion("flow"), "euler", 6, shift=shift).times()
    assert (times[0], times[-1]) == (1, 0)
    odds = [t[1:-1] / (1 - t[1:-1]) for t in (times, plain)]
    np.testing.assert_allclose(odds[0] / odds[1], shift)


@pytest.mark.parametrize("schedule", ["ve", "flow"])
def test_karras_without_steps(schedule):
    """The sizes of the noise there are what the network is told the times of."""
    process = Diffusion(schedule, "x")
    sampler = Sampler(process, "heun", 9, karras=True, spacing="linspace")
    times, sigmas = sampler.times(), sampler.sigmas()
    np.testing.assert_allclose(process.levels(times)[1][:-1], sigmas[:-1], rtol=1e-9)
    np.testing.assert_allclose(np.diff(sigmas[:-1] ** (1 / 7), 2), 0, atol=1e-9)
    assert sigmas[-1] == 0 and (np.diff(times[:-1]) < 0).all()


@pytest.mark.parametrize("schedule", ["linear", "ve", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_paths_of_the_true_image_lead_to_it(schedule, name):
    image = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3, 1))
    sampler = Sampler(Diffusion(schedule, "x"), name, 5, spacing="trailing")
    x = sampler.first(ops.ones_like(ops.convert_to_tensor(image)))
    result = sampler.run(lambda x, t: ops.convert_to_tensor(image), x)
    np.testing.assert_allclose(result, image, atol=1e-6)


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_heun_of_thousands_of_sigmas_is_exact_enough_in_float32(prediction):
    """The cosine schedule's noise starts at 20,000 times the image."""
    sampler = Sampler(Diffusion("cosine", prediction), "heun", 7, spacing="linspace")
    results, eps = [], np.random.default_rng(0).standard_normal((2, 3, 3, 1))
    for dtype in ("float32", "float64"):
        keras.config.set_floatx(dtype)
        x = sampler.first(ops.convert_to_tensor(eps.astype(dtype)))
        results.append(sampler.run(lambda x, t: 0.3 * x + 0.1 * t[:, None, None, None], x))
    close(results[0], np.asarray(results[1]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"spacing": "leeding"}, "spacing=leeding: .*did you mean leading"),
        ({"spacing": "leading", "schedule": "flow"}, "spacing=leading applies to .*linear, cosine"),
        ({"steps_offset": 1}, "steps_offset=1 applies to spacing=leading only"),
        (
            {"spacing": "leading", "steps": 10, "steps_offset": 100},
            "steps_offset=100: must be at most 99",
        ),
        ({"steps": 500, "train_steps": 400}, "steps=500: must be at most 400"),
        ({"shift": 3.0}, "shift=3.0 applies to the schedule flow only"),
        ({"shift": 0, "schedule": "flow"}, "shift=0: must be a number from 0.01"),
        ({"karras": True}, "karras=true applies to the samplers euler and heun only"),
        ({"variance": "fixed_large"}, "variance=fixed_large applies to ddpm"),
        (
            {"variance": "fixed_large", "sampler": "ddpm", "schedule": "flow"},
            "variance=fixed_large applies to ddpm on the schedules scaled_linear, linear, cosine",
        ),
        ({"clip": False, "clip_range": 2}, "clip_range=2.0 applies to clip=true only"),
        ({"clip_noise": False, "sampler": "ddpm"}, "clip_noise=false applies to ddim"),
        ({"ends_clean": False, "sampler": "heun"}, "ends_clean=false applies to ddim and euler"),
        ({"beta_end": 0.03}, "beta_end=0.03 applies to the schedules linear and scaled_linear"),
        ({"beta_start": 0, "schedule": "linear"}, "beta_start=0: must be a number from 1e-06"),
        ({"first_time": 0, "schedule": "flow"}, "first_time=0 applies to .*cosine only"),
        ({"train_steps": 9, "schedule": "ve", "prediction": "x"}, "train_steps=9 applies to"),
    ],
)
def test_settings_that_do_not_apply(settings, words):
    with pytest.raises(UserError, match=f"^--task-kwargs {words}"):
        task_of(settings)


def test_sampling_can_be_changed_at_export_and_the_process_cannot():
    sampling = {"spacing", "steps_offset", "shift", "karras", "variance", "clip_range"}
    assert sampling <= set(Denoise.changeable)
    process = {"schedule", "prediction", "beta_start", "train_steps", "first_time"}
    assert not process & set(Denoise.changeable)


# -- schedulers' files ---------------------------------------------------------------------------

STABLE = {  # as published with a latent model, of which DDIM's file has an option of another class
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_without_options_has_those_of_its_class(name):
    task = task_of(from_scheduler_config({"_class_name": name}))
    defaults = {k: v[0] if isinstance(v, tuple) else v for k, v in CLASSES[name].items()}
    whole = task_of(from_scheduler_config({"_class_name": name, **defaults}))
    assert whole.settings == task.settings


def test_a_published_file():
    settings = from_scheduler_config(STABLE)
    assert settings == {
        "sampler": "ddim",
        "schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "train_steps": 1000,
        "first_time": 0,
        "prediction": "eps",
        "spacing": "leading",
        "steps_offset": 1,
        "clip": False,
        "ends_clean": False,
    }
    euler = from_scheduler_config(STABLE | {"_class_name": "EulerDiscreteScheduler"})
    assert euler["sampler"] == "euler" and euler["spacing"] == "linspace"
    assert euler["ends_clean"] and "steps_offset" not in euler


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "DDIMSheduler"}, "did you mean DDIMScheduler"),
        ({"_class_name": ["DDIMScheduler"]}, "_class_name"),
        ({"thresholding": True}, "DDIMScheduler thresholding=True: not known here, only False"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule=sigmoid: not one of linear"),
        ({"prediction_type": "flow_prediction"}, "prediction_type=flow_prediction"),
        ({"timestep_spacing": "even"}, "timestep_spacing=even: not one of leading"),
        ({"beta_start": "0.1"}, "beta_start='0.1': must be of the kind of 0.0001"),
        ({"num_train_timesteps": 10.5}, "num_train_timesteps=10.5"),
        ({"clip_sample": 3}, "clip_sample=3"),
        ({"use_lu_lambdas": True}, "use_lu_lambdas=True: no such option is known"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "learned_range"),
        ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpol"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "continuous"),
        ({"_class_name": "HeunDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_max": 80.0}, "sigma_max=80.0"),
    ],
)
def test_files_that_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        from_scheduler_config(STABLE | changes)


@pytest.mark.parametrize("option", ["use_dynamic_shifting", "invert_sigmas", "stochastic_sampling"])
def test_flows_that_are_refused(option):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    assert from_scheduler_config(config)["shift"] == 3.0
    with pytest.raises(UserError, match=f"{option}=True: not known here"):
        from_scheduler_config(config | {option: True})
