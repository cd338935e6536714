"""Contrastive learning: two views of one example are told from all others, without labels."""

from keras import ops

from kerasdl.ops.gather import gather, offset
from kerasdl.ops.losses import nt_xent
from kerasdl.tasks.representation import Projected
from kerasdl.tasks.task import Number


class Contrast(Projected):
    """Projections of two views of an image are pulled together, and apart from all others.

    The others are those of the whole batch, of all replicas. The loss is the normalized
    temperature-scaled cross entropy (SimCLR); `contrast_top1` is how often a view is nearest to its
    other one. In evaluation the views are augmented too, from each example's own key. Models have
    `features(x)`, the representation, and `project(features)`; called, they do both.
    """

    settings = {"temperature": 0.5, **Projected.settings}
    allowed = {"temperature": Number(0.01, 10), **Projected.allowed}
    views = {"view1": {}, "view2": {}}  # each augmented apart, by the run's `--augment`
    coupled = True
    metrics = ("loss", "contrast_top1")

    def losses(self, model, batch, player="model", training=False):
        views = [batch[f"image_{name}"] for name in self.views]
        # In one call, so that batch norm sees both views.
        z = model(ops.concatenate(views), training=training)  # (2 B, D)
        z = ops.stack(ops.split(z, len(views)), axis=1)  # (B, 2, D)
        weight = None if training else gather(batch["weight"])  # what fills the last batch up
        loss, top1 = nt_xent(z, gather(z), offset(z), self.settings["temperature"], weight)
        return loss, {"contrast_top1": top1}


TASK = Contrast
