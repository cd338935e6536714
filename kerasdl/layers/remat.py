"""Blocks whose inner values are computed again for the gradient instead of being kept.

Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost,
        https://arxiv.org/abs/1604.06174, section 4.
"""

import contextlib
import contextvars

import keras
from keras import ops
from keras.src.backend import AutocastScope  # pinned: a weight's own value is read through it alone

from kerasdl.ops.gradient import recomputed

_recomputes = contextvars.ContextVar("recomputes", default=False)


@contextlib.contextmanager
def remat(on=True):
    """Within it, blocks that are called with `training=True` keep what they are given, no more."""
    token = _recomputes.set(on)
    try:
        yield
    finally:
        _recomputes.reset(token)


class Block(keras.layers.Layer):
    """Base of the units that a model repeats: a layer that `remat` makes compute twice.

    The second time it sees the same weights, statistics and seeds as the first: dropout draws the
    same masks, and what the first time changed is changed once. Of blocks within blocks the
    outermost counts. `call` takes tensors, nests of them, and what is none, and returns such; a
    mask is an argument, not one that Keras hangs on a tensor.
    """

    def __call__(self, *args, **kwargs):
        call = super().__call__
        if not (_recomputes.get() and self.built and kwargs.get("training") is True):
            return call(*args, **kwargs)
        leaves, variables = keras.tree.flatten((args, kwargs)), self.variables
        places = [i for i, leaf in enumerate(leaves) if ops.is_tensor(leaf)]
        context = contextvars.copy_context()  # the gradient is taken when this one is left
        context.run(_recomputes.set, False)
        found = {}

        def pure(tensors):
            given, values = list(leaves), tensors[len(places) :]
            for i, tensor in zip(places, tensors, strict=False):
                given[i] = tensor
            args, kwargs = keras.tree.pack_sequence_as(found["arguments"], given)
            state = list(zip(variables, values, strict=True))
            with AutocastScope(None), keras.StatelessScope(state) as scope:
                answer = call(*args, **kwargs)
            after = [(v, scope.get_current_value(v), value) for v, value in state]
            found["answer"] = answer
            found["changed"] = [v for v, new, old in after if new is not old]
            tensors = [x for x in keras.tree.flatten(answer) if ops.is_tensor(x)]
            return tensors + [ops.stop_gradient(new) for _, new, old in after if new is not old]

        found["arguments"] = (args, kwargs)
        with AutocastScope(None):
            weights = [v.value for v in variables]
        given = [leaves[i] for i in places]
        made = recomputed(lambda tensors: context.run(pure, tensors), given + weights)
        tensors = iter(made)
        answer = keras.tree.map_structure(
            lambda x: next(tensors) if ops.is_tensor(x) else x, found["answer"]
        )
        for variable, value in zip(found["changed"], tensors, strict=True):
            variable.assign(value)
        return answer


def blocks(model) -> list:
    """The blocks of a model, at any depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, Block)]
