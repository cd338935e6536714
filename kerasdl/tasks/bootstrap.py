"""Bootstrapping: one view predicts a slow network's projection of another, without labels."""

from keras import ops

from kerasdl.ops.losses import cosine_distance
from kerasdl.tasks.taught import Taught


class Bootstrap(Taught):
    """Each of two views predicts the target network's projection of the other; nothing else.

    The loss is the sum of both `2 - 2 cos`. With `stop_gradient` off the target is the online
    network's own projection, through which gradients flow: then all images get one projection. In
    evaluation the views are augmented too, from each example's own key. Models have `features(x)`,
    `project(features)`, `predictions(projections)` and `targets(x)`.
    """

    settings = {
        **Taught.settings,
        "momentum": 0.996,
        "final_momentum": 1.0,
        "stop_gradient": True,
    }
    allowed = {**Taught.allowed, "stop_gradient": (True, False)}
    views = {"view1": {}, "view2": {}}  # each augmented apart, by the run's `--augment`

    def losses(self, model, batch, player="model", training=False):
        views = ops.concatenate([batch[f"image_{name}"] for name in self.views])
        projected = model.project(model.features(views, training), training)  # (2 B, D)
        predicted = model.predictions(projected, training)
        targets = model.targets(views, training) if self.settings["stop_gradient"] else projected
        first, second = ops.split(targets, 2)
        loss = cosine_distance(predicted, ops.concatenate([second, first]))
        return sum(ops.split(loss, 2)), {}


TASK = Bootstrap
