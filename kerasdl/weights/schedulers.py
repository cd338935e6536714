"""Settings of the task denoise from the `scheduler_config.json` of diffusers.

Source: https://github.com/huggingface/diffusers, `src/diffusers/schedulers`, whose defaults hold
        for options that a file leaves out.
"""

from kerasdl.errors import UserError
from kerasdl.ops.schedules import SPACINGS, T
from kerasdl.system.names import nearest

PREDICTIONS = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",  # the root of the same variance, by its logarithm
    "fixed_large": "fixed_large",
}
# Options of a class and their defaults; a tuple holds the only values that are known here, the
# default first.
_STEPS = {"num_train_timesteps": T}
_DISCRETE = {
    **_STEPS,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": (None,),
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
}
_CLIPPED = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD = {"thresholding": (False,), "rescale_betas_zero_snr": (False,)}
_SIGMAS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "sigma_min": (None,),
    "sigma_max": (None,),
}
CLASSES = {
    "DDPMScheduler": {
        **_DISCRETE,
        **_CLIPPED,
        **_THRESHOLD,
        "variance_type": "fixed_small",
    },
    "DDIMScheduler": {**_DISCRETE, **_CLIPPED, **_THRESHOLD, "set_alpha_to_one": True},
    "EulerDiscreteScheduler": {
        **_DISCRETE,
        **_SIGMAS,
        "timestep_spacing": "linspace",
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete",),
        "rescale_betas_zero_snr": (False,),
        "final_sigmas_type": "zero",
    },
    "HeunDiscreteScheduler": {
        **_DISCRETE,
        **_SIGMAS,
        **_CLIPPED,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "linspace",
        "clip_sample": False,
    },
    "FlowMatchEulerDiscreteScheduler": {
        **_STEPS,
        **_SIGMAS,
        "shift": 1.0,
        "use_dynamic_shifting": (False,),
        "shift_terminal": (None,),
        "invert_sigmas": (False,),
        "stochastic_sampling": (False,),
    },
}
SAMPLERS = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "FlowMatchEulerDiscreteScheduler": "euler",
}
# What counts only with an option that is refused, or is an option of other classes alone.
_IDLE = {
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "time_shift_type",
    "skip_prk_steps",
}
_OPTIONS = {name for options in CLASSES.values() for name in options} | _IDLE


def from_scheduler_config(config: dict) -> dict:
    """Settings of the task denoise that sample as a scheduler of diffusers does.

    Args:
        config: Of a `scheduler_config.json`, with `_class_name`. What the class does not have, but
            others do, counts for nothing, as in diffusers.

    Returns:
        `--task-kwargs`, without `steps`, which no such file has, and `eta`, which is 0 there.

    Raises:
        UserError: A class, or an option that changes the mathematics, that is not known here.
    """
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in CLASSES:
        raise UserError(
            f"scheduler _class_name={name!r}: not one of {', '.join(CLASSES)}"
            f"{nearest(str(name), CLASSES)}"
        )
    given = _checked(name, config)
    settings = {"sampler": SAMPLERS[name], "train_steps": given["num_train_timesteps"]}
    if "shift" in given:
        settings |= {"schedule": "flow", "prediction": "v", "spacing": "linspace"}
        settings |= {"shift": given["shift"]}
    else:
        settings |= _discrete(given)
    settings["clip"] = given.get("clip_sample", False)
    if settings["clip"]:
        settings["clip_range"] = given["clip_sample_range"]
        if settings["sampler"] == "ddim":
            settings["clip_noise"] = False
    if "use_karras_sigmas" in given:
        settings["karras"] = given["use_karras_sigmas"]
    if "variance_type" in given:
        settings["variance"] = _known("variance_type", given["variance_type"], VARIANCES)
    if "set_alpha_to_one" in given:
        settings["ends_clean"] = given["set_alpha_to_one"]
    if "final_sigmas_type" in given:
        ends = {"zero": True, "sigma_min": False}
        settings["ends_clean"] = _known("final_sigmas_type", given["final_sigmas_type"], ends)
    return settings


def _discrete(given):
    """The schedule of a class that has one of betas, and which of its times are visited."""
    settings = {
        "schedule": _known("beta_schedule", given["beta_schedule"], BETAS),
        "first_time": 0,
        "prediction": _known("prediction_type", given["prediction_type"], PREDICTIONS),
        "spacing": _known(
            "timestep_spacing", given["timestep_spacing"], {s: s for s in SPACINGS if s != "even"}
        ),
    }
    if settings["schedule"] != "cosine":
        settings |= {name: given[name] for name in ("beta_start", "beta_end")}
    if settings["spacing"] == "leading":
        settings["steps_offset"] = given["steps_offset"]
    return settings


def _checked(name, config):
    """The options of a class, those that are left out as the class has them."""
    options, given = CLASSES[name], {}
    for key, default in options.items():
        value = config.get(key, default[0] if isinstance(default, tuple) else default)
        if isinstance(default, tuple):
            if value not in default:
                raise UserError(f"{name} {key}={value!r:.80}: not known here, only {default[0]!r}")
            continue
        if value is None and default is False:
            value = False
        number = isinstance(default, int | float) and not isinstance(default, bool)
        kinds = (int, float) if number and not key.endswith(("steps", "offset")) else type(default)
        if not isinstance(value, kinds) or (number and isinstance(value, bool)):
            raise UserError(f"{name} {key}={value!r:.80}: must be of the kind of {default!r}")
        given[key] = value
    for key, value in config.items():
        if key not in _OPTIONS and not str(key).startswith("_") and value not in (None, False):
            raise UserError(f"{name} {key}={value!r:.80}: no such option is known here")
    return given


def _known(option, value, known):
    """What a word of an option is called here."""
    if value not in known:
        raise UserError(f"scheduler {option}={value:.80}: not one of {', '.join(known)}")
    return known[value]
