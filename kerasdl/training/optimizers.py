"""Optimizers by name, and what decays and how fast each weight learns."""

import re

import keras

DECOUPLED = ("adamw", "lion")  # their weight decay bypasses the gradient


def make(recipe, schedule):
    """The Keras optimizer that a recipe names.

    Weight decay, clipping, accumulation and averaging are left out on purpose: `step.Trainer` does
    them, after the gradients of all replicas are summed.
    """
    name, momentum, beta1 = recipe.opt, recipe.momentum, recipe.beta1
    o = keras.optimizers
    makers = {
        "sgd": lambda: o.SGD(schedule, momentum=momentum),
        "nesterov": lambda: o.SGD(schedule, momentum=momentum, nesterov=True),
        "adagrad": lambda: o.Adagrad(schedule),
        "adadelta": lambda: o.Adadelta(schedule),
        "rmsprop": lambda: o.RMSprop(schedule, momentum=momentum),
        "adam": lambda: o.Adam(schedule, beta_1=beta1),
        "adamw": lambda: o.Adam(schedule, beta_1=beta1),  # decoupled decay is the trainer's
        "lion": lambda: o.Lion(schedule, beta_1=beta1),
    }
    return makers[name]()


def decays(variable) -> bool:
    """Whether weight decay applies: to kernels and embeddings, not to biases and norms."""
    name = variable.path.rsplit("/", 1)[-1]
    return len(variable.shape) > 1 and not re.search(r"bias|gamma|beta|scale|position|cls", name)


def layer_scales(variables, decay: float) -> list[float]:
    """The factor of each weight's rate: `decay` once for each block between it and the head.

    A block is what stands behind the backbone's name in a weight's path, in the order of first use;
    what is outside the backbone learns at the full rate.

    Source: Clark et al. 2020, https://arxiv.org/abs/2003.10555, section 3.
    """
    blocks = []
    for v in variables:
        block = _block(v)
        if block and block not in blocks:
            blocks.append(block)
    depth = {block: len(blocks) - i for i, block in enumerate(blocks)}
    return [decay ** depth.get(_block(v), 0) for v in variables]


def _block(variable) -> str | None:
    parts = variable.path.split("/")
    return parts[parts.index("backbone") + 1] if "backbone" in parts[:-1] else None
