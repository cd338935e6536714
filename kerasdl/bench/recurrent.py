"""Our LSTM and GRU against those of Keras, one training step.

On a GPU Keras' may use cuDNN, with which ours are not compared.
"""

import keras

from kerasdl.bench.steps import noise, paired_steps
from kerasdl.layers.recurrent import GRU, LSTM

SIZE = {"batch": 64, "time": 100, "dim": 128, "units": 256}


def cases(size=None):
    """Yield `(name, steps)` for `paired.compare`.

    Args:
        size: `{"batch", "time", "dim", "units"}`; `SIZE` if None.
    """
    batch, time, dim, units = (size or SIZE).values()
    for ours, peer in ((LSTM, keras.layers.LSTM), (GRU, keras.layers.GRU)):
        steps = paired_steps(
            lambda ours=ours: ours(units),
            lambda peer=peer: peer(units, return_sequences=True),
            noise((batch, time, dim)),
        )
        yield f"{title(ours, size)} / keras.layers.{peer.__name__}", steps


def title(layer, size=None) -> str:
    """The name of a case of a layer's class, without its peer."""
    batch, time, dim, units = (size or SIZE).values()
    return f"{layer.__name__} (batch {batch}, time {time}, input {dim}, units {units})"
