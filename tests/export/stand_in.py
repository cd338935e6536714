"""A small stand-in for TensorFlow Serving: the same requests by REST and gRPC, on 127.0.0.1."""

import base64
import contextlib
import json
import re
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from kerasdl.store import load


def signatures(export_dir) -> dict:
    """`{model: {signature: function}}` of what `models.config` names."""
    text = (Path(export_dir) / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    folders = {
        m.name: Path(export_dir) / m.base_path.removeprefix("/models/")
        for m in config.model_config_list.config
    }
    return {n: tf.saved_model.load(str(load.find(f)[1])) for n, f in folders.items()}


@contextlib.contextmanager
def serving(export_dir):
    """Serve every model below a folder; yields the ports of REST and gRPC."""
    models = signatures(export_dir)

    class Rest(BaseHTTPRequestHandler):
        """`POST /v1/models/<name>:predict`."""

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                answer, status = _answer(models, self.path, body), 200
            except (tf.errors.OpError, KeyError) as error:
                answer, status = {"error": str(error)}, 400
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
        """`Predict`."""

        def Predict(self, request, context):
            function = models[request.model_spec.name].signatures[request.model_spec.signature_name]
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            for name, value in function(**inputs).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    rest = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    rpc = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Grpc(), rpc)
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    try:
        yield rest.server_port, port
    finally:
        rest.shutdown()
        rest.server_close()
        rpc.stop(None)


def _answer(models, path, body):
    name = re.fullmatch(r"/v1/models/(\w+):predict", path)[1]
    function = models[name].signatures[body.get("signature_name", "serving_default")]
    specs = function.structured_input_signature[1]
    if rows := body.get("instances"):
        columns = {k: [row[k] for row in rows] for k in specs}
    else:
        columns = body["inputs"]
    inputs = {k: tf.constant(_bytes(columns[k]), specs[k].dtype) for k in specs}
    outputs = {k: _json(v.numpy()) for k, v in function(**inputs).items()}
    if rows:
        each = range(len(rows))
        return {"predictions": [{k: v[i] for k, v in outputs.items()} for i in each]}
    return {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs}


def _bytes(value):
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [_bytes(v) for v in value] if isinstance(value, list) else value


def _json(value):
    if value.dtype == object:
        value = np.char.decode(value.astype("S"), "utf-8")
    return value.tolist()
