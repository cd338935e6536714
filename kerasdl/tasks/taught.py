"""What self-supervised tasks share whose models have a teacher, a running average of themselves."""

import math

from keras import ops

from kerasdl.tasks.representation import Projected
from kerasdl.tasks.task import Number

OF_TEACHER = {"momentum": Number(0, 1), "final_momentum": Number(0, 1)}


class Taught(Projected):
    """Images whose features are learned from a teacher, which follows the model.

    Models are `kerasdl.models.selfsupervised.teacher.Taught`: they have `step`, `follow(momentum)`
    and `begin()`. The momentum is `momentum`, or where there is a `final_momentum` rises to it as
    half a cosine until the end of training. Of no epoch the loss says that it is best: the teacher
    that it is compared with has changed.
    """

    settings = {"momentum": 0.996, "final_momentum": None, **Projected.settings}
    allowed = {**OF_TEACHER, **Projected.allowed}
    recipe = {**Projected.recipe, "weights": "last"}

    def begin(self, model):
        model.begin()

    def after_update(self, model, carry):
        model.follow(self.momentum(model.step))

    def momentum(self, step):
        """The momentum of the update number `step`, an int scalar from 0 on."""
        first, last = self.settings["momentum"], self.settings["final_momentum"]
        if last is None or not self.total_steps:
            return first
        done = ops.minimum(ops.cast(step, "float32") / self.total_steps, 1.0)
        return last - (last - first) * (ops.cos(math.pi * done) + 1.0) / 2.0
