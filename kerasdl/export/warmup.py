"""Requests that a server replays before it answers, so that the first user does not wait.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

FILE = "tf_serving_warmup_requests"


def write(path, name: str, requests) -> None:
    """Write warm-up requests as a TFRecord of `PredictionLog`.

    Args:
        path: The file, `assets.extra/tf_serving_warmup_requests`.
        name: Name of the model.
        requests: `[(signature, {input: array})]`.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
