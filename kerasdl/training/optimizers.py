"""Optimizers by name, and what decays and how fast each weight learns."""

import re

import keras
import tensorflow as tf

DECOUPLED = ("adamw", "lion")  # their weight decay bypasses the gradient


class Adam(keras.optimizers.Adam):
    """Keras' Adam to the bit, in half as many operations: what no weight owns is computed once."""

    def factors(self, rate, dtype) -> tuple:
        """What all weights of one learning rate and dtype are updated with, see `update_step`."""
        rate, step = tf.cast(rate, dtype), tf.cast(self.iterations.value + 1, dtype)
        powers = [tf.pow(tf.cast(b, dtype), step) for b in (self.beta_1, self.beta_2)]
        alpha = rate * tf.sqrt(1 - powers[1]) / (1 - powers[0])
        others = (1 - self.beta_1, 1 - self.beta_2, self.epsilon)
        return alpha, *(tf.constant(value, dtype) for value in others)

    def update_step(self, gradient, variable, learning_rate):
        """Move one weight; `learning_rate` is a rate, or the `factors` of one."""
        if not isinstance(learning_rate, tuple):
            learning_rate = self.factors(learning_rate, variable.dtype)
        alpha, rest_1, rest_2, epsilon = learning_rate
        gradient = tf.cast(gradient, variable.dtype)
        i = self._get_variable_index(variable)
        m, v = self._momentums[i].value, self._velocities[i].value
        m.assign_add((gradient - m) * rest_1, read_value=False)
        v.assign_add((tf.square(gradient) - v) * rest_2, read_value=False)
        variable.assign_sub(m * alpha / (tf.sqrt(v) + epsilon), read_value=False)


def factors(optimizer, rate, dtype):
    """What `optimizer.update_step` takes as the rate of all weights of one rate and dtype."""
    return optimizer.factors(rate, dtype) if isinstance(optimizer, Adam) else rate


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
        "adam": lambda: Adam(schedule, beta_1=beta1),
        "adamw": lambda: Adam(schedule, beta_1=beta1),  # decoupled decay is the trainer's
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
