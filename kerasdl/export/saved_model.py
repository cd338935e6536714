"""Write signatures as a SavedModel.

Not by Keras' `ExportArchive`, which traces each signature twice more as it writes, and then writes
a network once for each signature that runs it.
"""

import tensorflow as tf


def traced(signatures: dict) -> dict:
    """Trace signatures, each once.

    Args:
        signatures: `{name: (function of positional tensors, [TensorSpec])}`, as of `functions`.

    Returns:
        `{name: concrete function}`; two names of one signature have the same one.
    """
    made = {}
    for function, specs in signatures.values():
        if function not in made:
            made[function] = tf.function(function, autograph=False).get_concrete_function(*specs)
    return {name: made[function] for name, (function, _) in signatures.items()}


def write(endpoints: dict, folder, tokenizer=None) -> None:
    """Write a SavedModel, with the weights that its signatures use.

    Args:
        endpoints: Of `traced`.
        folder: Where to; may exist.
        tokenizer: The `Tokenizer` that they use, or None.
    """
    module = tf.Module()
    module.tokenizer = tokenizer  # it has tables, models have none
    used = {id(v): v for endpoint in endpoints.values() for v in endpoint.variables}
    module.weights = list(used.values())
    for name, endpoint in endpoints.items():
        setattr(module, name, endpoint)
    tf.saved_model.save(module, str(folder), signatures=endpoints)
