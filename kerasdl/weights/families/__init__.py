"""The families of published weights, one small file for each architecture."""

import functools
import importlib

from kerasdl.errors import UserError
from kerasdl.system.names import few, nearest
from kerasdl.weights import rename

FILES = (
    "bert",
    "clip",
    "ddpm",
    "densenet",
    "gpt2",
    "llama",
    "marian",
    "mixtral",
    "resnet",
    "resnet_v2",
    "torch_recurrent",
    "vgg",
    "vit",
    "keras_hub",
)
ENOUGH = 0.5  # of their names that a family takes, or the file is another architecture's
# Of transformers, diffusers, timm and KerasHub
KEYS = ("model_type", "_class_name", "architecture", "class_name")


@functools.cache
def families() -> tuple:
    """All of them."""
    return tuple(
        family
        for name in FILES
        for family in importlib.import_module(f"{__name__}.{name}").FAMILIES
    )


def of_model(model) -> list:
    """The families whose library has such a network as `model`."""
    return [f for f in _of_module(model) if f.accepts(model)]


def _of_module(model) -> list:
    module = type(model).__module__
    return [
        f for f in families() if module in (f"kerasdl.models.{f.module}", f"kerasdl.{f.module}")
    ]


def of_config(config) -> tuple:
    """The family that a `config.json` belongs to, and the function that reads it.

    Args:
        config: A `Config`.

    Raises:
        UserError: None of them.
    """
    key = next((k for k in KEYS if isinstance(config.values.get(k), str)), None)
    if key is None:
        raise UserError(f"{config.name}: its config has none of {', '.join(KEYS)}")
    value = config.values[key]
    known = {p: (f, read) for f in families() for p, read in f.configs.items()}
    starts = [p for p in known if p[-1] == "*" and value.startswith(p[:-1])]
    for pattern in (value, *starts):  # one that says all of it counts first
        if pattern in known:
            return known[pattern]
    raise UserError(
        f"{config.name}: {key} {value!r} is none of those that can be read"
        f"{nearest(value, known)}: {few(sorted(set(known)), 40)}"
    )


def choose(model, weights, name: str):
    """The family that a file of weights for `model` is of.

    Args:
        model: Ours, built.
        weights: `{name: array}`.
        name: Of the file, for messages.

    Raises:
        UserError: None; names those that the file looks like.
    """
    fitting = {f: rename.fraction(f, model, weights) for f in _of_module(model)}
    candidates = [f for f in fitting if f.accepts(model)]
    closest = max(fitting, key=fitting.get, default=None)
    if closest and closest not in candidates and fitting[closest] >= ENOUGH:
        raise UserError(
            f"{name}: holds weights of a {closest.name}, which {model.name} is only with "
            f"{closest.needs}"
        )
    if not candidates:
        others = few(looks_like(weights)) or "nothing that is known"
        raise UserError(
            f"{name}: {model.name} takes no published weights; these look like {others}"
        )
    best = max(candidates, key=fitting.get)
    if fitting[best] < ENOUGH:
        others = looks_like(weights)
        raise UserError(
            f"{name}: is of another architecture than {model.name}, which takes "
            f"{few(f.name for f in candidates)}: it has {few(weights, 3)}"
            + (f"; it looks like {few(others)}" if others else "")
        )
    return best


def looks_like(weights) -> list:
    """Names of the families whose rules take most of the names of a file, best first."""
    scores = {family.name: rename.fraction(family, None, weights) for family in families()}
    best = max(scores.values(), default=0)
    return [n for n, s in scores.items() if s >= max(ENOUGH, best - 0.05)]
