"""Models with a teacher: copies of some of their parts, whose weights follow theirs.

MoCo calls it the key encoder, BYOL the target network.
"""

from keras import ops

from kerasdl.layers.core import Model


class Taught(Model):
    """A model with a teacher, which is not trained: it is a running average of the model itself.

    Subclasses call `set_teacher` in their constructors, and `build_teacher` in `build`.

    Attributes:
        step: int32 weight, updates so far.
    """

    def set_teacher(self, prefix, *parts):
        """Copy the parts of these names as `<prefix>_<part>`, not built yet."""
        self.copies = tuple((part, f"{prefix}_{part}") for part in parts)
        for part, name in self.copies:
            layer = getattr(self, part)
            setattr(self, name, type(layer).from_config({**layer.get_config(), "name": name}))

    def build_teacher(self, *shapes):
        """Build the copies, each of the shape of its input; they start as what they are copies of.

        It is weights that are not trained, not layers: batch norm of a layer that is not trained
        would not take the statistics of batches.
        """
        averaged = []
        for (_, name), shape in zip(self.copies, shapes, strict=True):
            copy = getattr(self, name)
            copy.build(shape)
            averaged += [w.trainable for w in copy.weights]  # without batch norm's statistics
            for weight in copy.weights:
                weight.trainable = False
        self.averaged = tuple(averaged)
        self.step = self.add_weight((), "zeros", dtype="int32", trainable=False, name="step")
        self.begin()

    def begin(self):
        """Let the teacher be what the model is, and forget the updates: a training begins."""
        for teacher, student in self._pairs():
            teacher.assign(student.value)
        self.step.assign(0)

    def follow(self, momentum):
        """Count an update, and move the teacher: `t <- m t + (1 - m) s`.

        Batch norm's statistics are not averaged: the teacher has its own, of what it is given.

        Args:
            momentum: float scalar, `m`.
        """
        self.step.assign_add(1)
        for (teacher, student), moves in zip(self._pairs(), self.averaged, strict=True):
            if moves:
                m = ops.cast(momentum, teacher.dtype)
                teacher.assign(m * teacher + (1 - m) * student)

    def _pairs(self):
        """Of the weights `(the teacher's, the model's)`."""
        for part, name in self.copies:
            yield from zip(getattr(self, name).weights, getattr(self, part).weights, strict=True)
