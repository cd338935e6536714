"""A model with a queue and an averaged teacher, both moved by the task's `after_update`."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.layers.classifier import dense_head
from kerasdl.layers.core import Model
from kerasdl.recipe import Recipe
from kerasdl.tasks.classify import Classify
from kerasdl.training import schedules, step

EXAMPLES, STEPS = 8, 3
INFO = DataInfo.of_images((4, 4, 1), "abcd")


class Net(Model):
    """A dense layer, beside it the last examples' sums and an average of its kernel."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = dense_head(4)

    def build(self, input_shape):
        self.head.build((None, 16))
        self.queue = self.add_weight((EXAMPLES,), "zeros", trainable=False, name="queue")
        self.teacher = self.add_weight((16, 4), "zeros", trainable=False, name="teacher")

    def call(self, x, training=False):
        return self.head(ops.reshape(x, (-1, 16)))


class Queueing(Classify):
    """What is carried are sums of images, `(B,)`."""

    carried = ("sums",)

    def losses(self, model, batch, player="model", training=False):
        loss, metrics = super().losses(model, batch, player, training)
        return loss, {**metrics, "sums": ops.sum(batch["image"], axis=(1, 2, 3))}

    def after_update(self, model, carry):
        model.queue.assign(0.5 * model.queue + carry["sums"])
        model.teacher.assign(0.9 * model.teacher + 0.1 * model.head.kernel)


def train(strategy) -> dict:
    """Every local replica's queue, teacher and kernel after some steps, `(replicas, ...)` each."""
    recipe = Recipe(model="linear", opt="sgd", lr=0.1, sched="constant", grad_accum_steps=2)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        net = Net()
        net.build((None, 4, 4, 1))
        schedule = schedules.from_recipe(recipe, 1, 10)
        trainer = step.Trainer(net, Queueing(INFO, recipe), recipe, schedule)
    rng = np.random.default_rng(0)
    columns = {"image": rng.random((EXAMPLES, 4, 4, 1)), "label": np.arange(EXAMPLES) % 4}

    def part(context):
        size = EXAMPLES // context.num_replicas_in_sync
        start = context.replica_id_in_sync_group * size
        return {name: tf.constant(v[start : start + size]) for name, v in columns.items()}

    @tf.function(autograph=False)
    def update(batch):
        return strategy.run(trainer.update, args=(batch,))

    for _ in range(STEPS):
        update(strategy.experimental_distribute_values_from_function(part))
    weights = {"queue": net.queue, "teacher": net.teacher, "head": net.head.kernel}
    return {
        name: np.stack([v.numpy() for v in strategy.experimental_local_results(weight.value)])
        for name, weight in weights.items()
    }
