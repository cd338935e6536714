"""Schedules of the learning rate."""

import math

import keras
from keras import ops

from kerasdl.layers.core import register


@register
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a function of the step.

    Args:
        kind: "constant", "step", "cosine", "linear", "invsqrt" or "plateau" (constant here; the
            loop lowers it).
        lr: Rate at the end of warm-up.
        total: Steps of the whole training.
        warmup: Steps over which the rate rises linearly, from `lr / warmup` at the first.
        min_lr: Where cosine and linear end, and the least of step and invsqrt.
        decay_steps: Steps between the drops of "step".
        decay_rate: Factor of a drop.

    Source: cosine: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983; inverse square
        root: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 3.
    """

    def __init__(self, kind, lr, total, warmup=0, min_lr=0.0, decay_steps=1, decay_rate=0.1):
        self.kind = kind
        self.lr = lr
        self.total = total
        self.warmup = warmup
        self.min_lr = min_lr
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = step - self.warmup
        shard = ops.clip(done / max(1, self.total - self.warmup), 0.0, 1.0)
        if self.kind == "cosine":
            lr = self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + ops.cos(math.pi * shard))
        elif self.kind == "linear":
            lr = self.lr + (self.min_lr - self.lr) * shard
        elif self.kind == "step":
            drops = ops.floor(ops.maximum(done, 0.0) / self.decay_steps)
            lr = ops.maximum(self.lr * self.decay_rate**drops, self.min_lr)
        elif self.kind == "invsqrt":
            start = float(max(1, self.warmup))
            lr = ops.maximum(self.lr * ops.sqrt(start / ops.maximum(step, start)), self.min_lr)
        else:
            lr = self.lr * ops.ones_like(step)
        if not self.warmup:
            return lr
        return ops.where(step < self.warmup, self.lr * (step + 1.0) / self.warmup, lr)

    def get_config(self):
        return dict(vars(self))


def stretched(schedule, n: int):
    """The schedule of a player that makes `n` updates per step."""
    if n == 1:
        return schedule
    config = schedule.get_config()
    return Schedule(**config | {k: config[k] * n for k in ("total", "warmup", "decay_steps")})


def from_recipe(recipe, steps_per_epoch: int, total: int) -> Schedule:
    """The schedule that a recipe asks for."""
    scale = recipe.batch_size / recipe.lr_base_batch if recipe.lr_base_batch else 1.0
    return Schedule(
        recipe.sched,
        recipe.lr * scale,
        total,
        round(recipe.warmup_epochs * steps_per_epoch),
        recipe.min_lr,
        max(1, round(recipe.decay_epochs * steps_per_epoch)),
        recipe.decay_rate,
    )
