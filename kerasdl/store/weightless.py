"""Models without their weights: how large one would be is known before anything is allocated."""

import contextlib
import functools
import inspect
import threading

import keras
from keras.src.backend.common import global_state  # pinned: Keras lists unmade weights here alone

from kerasdl.errors import UserError

LAYERS, LAYERS_PER_ARRAY = 1000, 20  # at most so many layers, and so many more per stored array
SEEDS = "seed_generator_state"  # is no weight


@contextlib.contextmanager
def no_weights():
    """Within it, weights have shapes and no values, and never get any."""
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    before = list(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:  # else the next scope of anyone would make them
        global_state.set_global_attribute("uninitialized_variables", before)


def shapes(make, arrays: int) -> list[tuple]:
    """`(path, shape)` of each of the weights that a model would have, which is not made.

    Args:
        make: Makes the model; is called where weights get no values.
        arrays: Number of those that are stored for it.

    Raises:
        UserError: It would have layers without end.
    """
    with no_weights(), _at_most(LAYERS + LAYERS_PER_ARRAY * arrays):
        weights = make().variables
        return [(w.path, tuple(w.shape)) for w in weights if not w.path.endswith(SEEDS)]


@contextlib.contextmanager
def _at_most(maximum):
    """Within it, this thread makes so many layers and no more."""
    init, here, made = keras.layers.Layer.__init__, threading.get_ident(), 0

    @functools.wraps(init)
    def counted(self, *args, **kwargs):
        nonlocal made
        made += threading.get_ident() == here
        if made > maximum:
            raise UserError(f"its model would have more than {maximum:,} layers")
        init(self, *args, **kwargs)

    counted.__signature__ = inspect.signature(init)  # Keras keeps arguments by their names
    keras.layers.Layer.__init__ = counted
    try:
        yield
    finally:
        keras.layers.Layer.__init__ = init
