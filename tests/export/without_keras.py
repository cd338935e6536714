"""Asks exported files in a process that has neither Keras nor this package.

Arguments: a SavedModel's folder, a TFLite file or -, a signature of each, an npz of inputs, and
where an npz of the answers goes, `saved_model/NAME` and `tflite/NAME`.
"""

import sys

for name in ("keras", "tf_keras", "kerasdl"):
    sys.modules[name] = None  # importing it fails

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

folder, file, signature, lite_signature, inputs, outputs = sys.argv[1:]
inputs = dict(np.load(inputs))
model = tf.saved_model.load(folder).signatures[signature]
wanted = model.structured_input_signature[1]
given = {name: tf.constant(value) for name, value in inputs.items() if name in wanted}
answers = {f"saved_model/{k}": v.numpy() for k, v in model(**given).items() if v.dtype != tf.string}
if file != "-":
    runner = Interpreter(file).get_signature_runner(lite_signature)
    rows = []
    for i in range(len(next(iter(inputs.values())))):
        one = {}
        for name, detail in runner.get_input_details().items():
            value = inputs[name][i : i + 1]  # a file has one length of texts
            wide = [(0, n - m) for n, m in zip(detail["shape"], value.shape, strict=True)]
            one[name] = np.pad(value, wide)
        rows.append(runner(**one))
    answers |= {f"tflite/{k}": np.concatenate([row[k] for row in rows]) for k in rows[0]}
np.savez(outputs, **answers)
