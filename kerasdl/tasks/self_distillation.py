"""Self-distillation: of small crops the student says what the teacher says of large ones."""

import math

from keras import ops

from kerasdl.tasks.task import Number
from kerasdl.tasks.taught import Taught

SHOWN = 8  # images of the pictures


class SelfDistillation(Taught):
    """The teacher's distribution over prototypes is the target, without labels.

    The teacher sees two global crops, the student all crops; of each pair of different ones the
    cross entropy counts. Global crops have the area that `--crop-scale` says, local ones less than
    the least of it, and `local_size` pixels a side. The teacher's logits are centered by the mean
    of those before, and sharpened by a low temperature, which rises from `warmup_temperature` to
    `teacher_temperature` in the first `warmup_epochs`: each prevents the collapse that the other
    allows, where `teacher_entropy` is 0 or `ln K`. In the first `freeze_last_layer` epochs the last
    layer stays as it is.

    Models have `features(x)`, `head`, `project(features)`, `teach(x)`, `center`, `move_center`, and
    a ViT as their `backbone`.
    """

    settings = {
        **Taught.settings,
        "momentum": 0.996,
        "final_momentum": 1.0,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "warmup_temperature": 0.04,
        "warmup_epochs": 30,
        "centering": True,
        "center_momentum": 0.9,
        "freeze_last_layer": 1,
        "local_crops": 6,
        "local_size": None,
        "local_scale": 0.05,
    }
    allowed = {
        **Taught.allowed,
        "student_temperature": Number(0.01, 10),
        "teacher_temperature": Number(0.01, 10),
        "warmup_temperature": Number(0.01, 10),
        "warmup_epochs": Number(0),
        "centering": (True, False),
        "center_momentum": Number(0, 1),
        "freeze_last_layer": Number(0),
        "local_crops": Number(0, 16, whole=True),
        "local_size": Number(1, 4096, whole=True),
        "local_scale": Number(0.001, 1),
    }
    views = {"global1": {}, "global2": {}}  # by the run's `--augment`
    carried = ("outputs",)
    metrics = ("loss", "teacher_entropy")

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.views = self.views_of(recipe)

    @classmethod
    def views_of(cls, recipe):
        own, largest = cls.checked(recipe), recipe.crop_scale[0]
        local = {"crop_scale": (min(own["local_scale"], largest), largest)}
        if own["local_size"]:
            local["image_size"] = (own["local_size"],) * 2
        return cls.views | {f"local{i + 1}": local for i in range(own["local_crops"])}

    def losses(self, model, batch, player="model", training=False):
        crops = [batch[f"image_{name}"] for name in self.views]
        frozen = training and self._epoch(model) < self.settings["freeze_last_layer"]
        groups = [_in_a_row(seen) for seen in (crops[:2], crops[2:]) if seen]  # of one size each
        h = ops.concatenate([model.features(group, training) for group in groups])
        logits = model.head(h, training=training, frozen=frozen)
        large = ops.shape(groups[0])[0]
        answers = [_of_each(logits[:large], 2)]  # (B, 2, K)
        if crops[2:]:
            answers.append(_of_each(logits[large:], len(crops) - 2))
        outputs = _of_each(model.teach(groups[0], training), 2)
        center = model.center if self.settings["centering"] else 0.0
        target = ops.log_softmax((outputs - center) / self._temperature(model), axis=-1)
        answer = ops.concatenate(answers, axis=1) / self.settings["student_temperature"]
        log_p = ops.log_softmax(answer, axis=-1)  # (B, crops, K)
        # Each large crop's target against the sum of all others' answers
        others = ops.sum(log_p, axis=1, keepdims=True) - log_p[:, :2]
        loss = -ops.sum(ops.exp(target) * others, axis=(1, 2)) / (2 * (len(crops) - 1))
        entropy = -ops.mean(ops.sum(ops.exp(target) * target, axis=-1), axis=1)
        return loss, {"teacher_entropy": entropy, "outputs": ops.mean(outputs, axis=1)}

    def after_update(self, model, carry):
        super().after_update(model, carry)
        model.move_center(carry["outputs"], self.settings["center_momentum"])

    def _epoch(self, model):
        """float scalar: epochs so far, or infinitely many where there is no training."""
        if not self.steps_per_epoch:
            return math.inf
        return ops.cast(model.step, "float32") / self.steps_per_epoch

    def _temperature(self, model):
        """The teacher's temperature, a float scalar."""
        last, epochs = self.settings["teacher_temperature"], self.settings["warmup_epochs"]
        if not epochs:
            return last
        first = self.settings["warmup_temperature"]
        done = ops.minimum(self._epoch(model) / epochs, 1.0)
        return ops.cast(first + (last - first) * done, model.center.dtype)

    def pictures(self, model, batch):
        """From above: images, and where each head of the last block's class token looks."""
        image = batch["image"][:SHOWN]
        weights = model.backbone.attention_maps(image)[:, -1, :, 0, 1:]  # (B, h, N)
        weights = ops.cast(weights / ops.max(weights, axis=-1, keepdims=True), image.dtype)
        grid, size = model.backbone.grid, image.shape[1:3]
        rows = [image]
        for head in range(weights.shape[1]):
            one = ops.reshape(weights[:, head], (-1, *grid, 1))
            for axis in (1, 2):
                one = ops.repeat(one, size[axis - 1] // grid[axis - 1], axis=axis)
            rows.append(ops.repeat(one, image.shape[-1], axis=-1))
        return {"attention": ops.stack(rows)}


def _in_a_row(crops):
    """Crops `(B, ...)` of each example next to each other, `(crops B, ...)`."""
    return ops.reshape(ops.stack(crops, axis=1), (-1, *crops[0].shape[1:]))


def _of_each(values, number):
    """`(B, number, D)` of values `(number B, D)` of crops in that order."""
    return ops.reshape(values, (-1, number, values.shape[-1]))


TASK = SelfDistillation
