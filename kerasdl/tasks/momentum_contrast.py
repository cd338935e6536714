"""Momentum contrast: a view is told from keys of other images, without labels."""

from kerasdl.ops.losses import contrast_with_queue
from kerasdl.tasks.task import Number
from kerasdl.tasks.taught import Taught


class MomentumContrast(Taught):
    """The query of one view is pulled to the key of the other, and apart from those of a queue.

    `contrast_top1` is how often the query is nearest to its own key. After an update the keys of
    all replicas, in the order of the batch, enter the queue, which is the same on all of them. In
    evaluation the queue stays; the views are augmented too, from each example's own key. Models
    have `features(x)`, `project(features)`, `keys(x)`, `queue` and `enqueue(keys)`.
    """

    settings = {"temperature": 0.07, **Taught.settings, "momentum": 0.999}
    allowed = {"temperature": Number(0.01, 10), **Taught.allowed}
    views = {"query": {}, "key": {}}  # each augmented apart, by the run's `--augment`
    carried = ("keys",)
    metrics = ("loss", "contrast_top1")

    def losses(self, model, batch, player="model", training=False):
        query = model(batch["image_query"], training=training)
        key = model.keys(batch["image_key"], training=training)
        loss, top1 = contrast_with_queue(query, key, model.queue, self.settings["temperature"])
        return loss, {"contrast_top1": top1, "keys": key}

    def after_update(self, model, carry):
        super().after_update(model, carry)
        model.enqueue(carry["keys"])


TASK = MomentumContrast
