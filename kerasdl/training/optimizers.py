"""Optimizers by name, and what decays and how fast each weight learns."""

import re

import keras
import tensorflow as tf

DECOUPLED = ("adamw", "lion")  # their weight decay bypasses the gradient
OWN_DECAY = ("lars",)  # theirs is part of how they scale the gradient


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


class LARS(keras.optimizers.SGD):
    """Momentum with a rate for each weight in proportion to its norm.

    A kernel `w` of gradient `g` moves by `v <- m v + lr trust (g + decay w)`, `w <- w - v`, where
    `trust = eta |w| / (|g| + decay |w|)`, or 1 where a norm is 0. Biases and norms, which do not
    decay, have `trust` 1 (Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix B.6).

    Args:
        rate: The learning rate or its schedule, `lr`.
        momentum: `m`.
        decay: Weight decay.
        eta: The trust coefficient.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888, algorithm 1.
    """

    def __init__(self, rate, momentum=0.9, decay=0.0, eta=0.001):
        super().__init__(rate, momentum=momentum)
        self.decay = decay
        self.eta = eta

    def build(self, variables):
        """Make the momenta; keep which weights are kernels."""
        super().build(variables)
        self.adapts = [decays(v) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Move one weight."""
        gradient = tf.cast(gradient, variable.dtype)
        if self.adapts[self._get_variable_index(variable)]:
            weight = tf.convert_to_tensor(variable)
            norm = tf.norm(weight)
            length = tf.norm(gradient) + self.decay * norm
            counts = (norm > 0) & (length > 0)
            trust = tf.where(counts, self.eta * tf.math.divide_no_nan(norm, length), 1.0)
            gradient = trust * (gradient + self.decay * weight)
        super().update_step(gradient, variable, learning_rate)


def factors(optimizer, rate, dtype):
    """What `optimizer.update_step` takes as the rate of all weights of one rate and dtype."""
    return optimizer.factors(rate, dtype) if isinstance(optimizer, Adam) else rate


def make(recipe, schedule):
    """The Keras optimizer that a recipe names.

    Weight decay, clipping, accumulation and averaging are left out on purpose: `step.Trainer` does
    them, after the gradients of all replicas are summed; but for the weight decay of `OWN_DECAY`.
    """
    name, momentum, beta1 = recipe.opt, recipe.momentum, recipe.beta1
    o = keras.optimizers
    makers = {
        "sgd": lambda: o.SGD(schedule, momentum=momentum),
        "nesterov": lambda: o.SGD(schedule, momentum=momentum, nesterov=True),
        "lars": lambda: LARS(schedule, momentum, recipe.weight_decay),
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
