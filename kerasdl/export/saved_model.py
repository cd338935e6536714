"""Write signatures as a SavedModel.

Not by Keras' `ExportArchive`, which traces each signature twice more as it writes, and then writes
a network once for each signature that runs it.
"""

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

FINGERPRINT = "fingerprint.pb"


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
    """Write a SavedModel, with the weights that its signatures use; the same bytes every time.

    Args:
        endpoints: Of `traced`.
        folder: Where to; may exist.
        tokenizer: The `Tokenizer` that they use, or None.
    """
    module = tf.Module()
    module.tokenizer = tokenizer  # it has tables, models have none
    made = {id(v.handle): v for endpoint in endpoints.values() for v in endpoint.variables}
    inputs = [id(x) for endpoint in endpoints.values() for x in endpoint.captured_inputs]
    # In the order of their use: that of `variables` is another one in each process.
    module.weights = [made[x] for x in dict.fromkeys(inputs) if x in made]
    for name, endpoint in endpoints.items():
        setattr(module, name, endpoint)
    tf.saved_model.save(module, str(folder), signatures=endpoints)
    file = Path(folder) / FINGERPRINT
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(file.read_bytes())
    fingerprint.ClearField("uuid")  # it is random
    file.write_bytes(fingerprint.SerializeToString(deterministic=True))
