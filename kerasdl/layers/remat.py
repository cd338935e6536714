"""Blocks whose inner values are computed again for the gradient instead of being kept.

Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost,
        https://arxiv.org/abs/1604.06174, section 4.
"""

import contextvars

import keras
from keras import ops
from keras.src.backend import AutocastScope  # pinned: a weight's own value is read through it alone

from kerasdl.layers.core import having
from kerasdl.ops.gradient import recomputed

_recomputes = contextvars.ContextVar("recomputes", default=False)


def remat(on=True):
    """Within it, blocks that are called with `training=True` keep what they are given, no more."""
    return having(_recomputes, on)


class Block(keras.layers.Layer):
    """Base of the units that a model repeats: a layer that `remat` makes compute twice.

    The second time it sees the same weights, statistics and seeds as the first: dropout uses the
    same masks, and what the first time changed is changed once. Of blocks within blocks the
    outermost counts. `call` takes tensors, nests of them, and what is none, and returns such; a
    mask is an argument, not one that Keras hangs on a tensor.
    """

    def __call__(self, *args, **kwargs):
        call = super().__call__
        if not (_recomputes.get() and self.built and kwargs.get("training") is True):
            return call(*args, **kwargs)
        arguments, variables = (args, kwargs), self.variables
        leaves = keras.tree.flatten(arguments)
        result = {}  # of `pure`, what is no tensor

        def pure(tensors):
            tensors = iter(tensors)
            given = [next(tensors) if ops.is_tensor(x) else x for x in leaves]
            again, named = keras.tree.pack_sequence_as(arguments, given)
            state = list(zip(variables, tensors, strict=True))
            with AutocastScope(None), keras.StatelessScope(state) as scope:
                result["answer"] = call(*again, **named)
            after = [(v, scope.get_current_value(v), before) for v, before in state]
            after = [(v, value) for v, value, before in after if value is not before]
            result["changed"] = [v for v, _ in after]
            made = [x for x in keras.tree.flatten(result["answer"]) if ops.is_tensor(x)]
            return made + [ops.stop_gradient(value) for _, value in after]

        context = contextvars.copy_context()  # the gradient may be taken after this one is left
        context.run(_recomputes.set, False)
        with AutocastScope(None):
            weights = [v.value for v in variables]
        given = [x for x in leaves if ops.is_tensor(x)]
        made = iter(recomputed(lambda tensors: context.run(pure, tensors), given + weights))
        answer = keras.tree.map_structure(
            lambda x: next(made) if ops.is_tensor(x) else x, result["answer"]
        )
        for variable, value in zip(result["changed"], made, strict=True):
            variable.assign(value)
        return answer


def blocks(model) -> list:
    """The blocks of a model, at any depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, Block)]
