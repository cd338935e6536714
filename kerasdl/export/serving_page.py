"""Commands that serve an exported model and send it requests."""

import base64
import json
import shlex
from urllib.parse import quote

import numpy as np

from kerasdl.errors import UserError
from kerasdl.export import snippets
from kerasdl.export.serving import BATCHING, CONFIG, MODEL_BATCHING
from kerasdl.inference import interface
from kerasdl.store import load
from kerasdl.system.names import check_name
from kerasdl.system.terminal import LINE, printable
from kerasdl.tasks import bounds

REQUESTS = "requests"  # below assets.extra; one JSON file per signature


def write_requests(folder, requests) -> None:
    """Write a body for TensorFlow Serving's REST interface per signature.

    Args:
        folder: `assets.extra/requests`; is made.
        requests: `[(signature, {input: array})]`.
    """
    folder.mkdir()
    for signature, inputs in requests:
        body = {"signature_name": signature}
        body["inputs"] = {name: _plain(name, np.asarray(value)) for name, value in inputs.items()}
        (folder / f"{signature}.json").write_text(json.dumps(body))


def _plain(name, value):
    """An array as JSON; float32 with no more digits than it has."""
    if value.dtype.kind == "f":
        digits = [float(f"{number:.9g}") for number in value.ravel()]
        return np.array(digits).reshape(value.shape).tolist()
    if value.dtype.kind not in "OS":
        return value.tolist()
    if name.endswith("_bytes"):
        result = [{"b64": base64.b64encode(one).decode()} for one in value.ravel()]
    else:
        result = [one.decode() for one in value.ravel()]
    return result if value.ndim else result[0]


def page(path) -> str:
    """Commands that serve an exported model and run each of its signatures, by REST and by gRPC;
    and programs that run its TFLite files on devices.

    Args:
        path: The model's folder, or that of a version.

    Raises:
        ValueError: No exported model is there, or one without its requests.
    """
    kind, folder = load.find(path)
    extra = folder / "assets.extra"
    if kind != "saved_model" or not (extra / REQUESTS).is_dir():
        raise UserError(f"{path}: there is no exported model with {REQUESTS}; export it again")
    card = load.card_of(kind, folder)
    signatures = _signatures(folder, card)
    described = interface.of_card(folder, "savedmodel").signatures
    root, name = folder.parents[1], folder.parent.name
    lines = [
        "# Serve; new versions are loaded. A request may have many examples; those of several",
        "# clients are not joined, since what is refused of one would fail for all. Where clients",
        "# are trusted, and every input has a batch, this lets the server join them:",
        f"#   cp {shlex.quote(str(root / BATCHING))} {shlex.quote(str(folder / MODEL_BATCHING))}",
        "docker run --rm -p 8500:8500 -p 8501:8501 -v "
        f"{shlex.quote(f'{root.resolve()}:/models')} tensorflow/serving \\",
        f"  --model_config_file=/models/{CONFIG} --model_config_file_poll_wait_seconds=60 \\",
        f"  --enable_batching --batching_parameters_file=/models/{BATCHING} \\",
        "  --enable_per_model_batching_parameters",
        "",
        "# Send a request by REST",
    ]
    address = f"http://localhost:8501/v1/models/{quote(name)}:predict"
    for signature, sides in signatures.items():
        lines += [
            f"# {signature}: {_names(sides['inputs'])} -> {_names(sides['outputs'])}",
            *_refused(described.get(signature)),
            f"curl -d @{shlex.quote(str(extra / REQUESTS / signature))}.json {address}",
        ]
    lines += ["", "# Send a request by gRPC", *_grpc(name, signatures, extra)]
    return "\n".join(lines + snippets.lines(folder, card))


def _signatures(folder, card) -> dict:
    """The signatures of a card, whose names stand in commands as they are."""
    try:
        signatures = card["signatures"]
        names = [
            *signatures,
            *(name for sides in signatures.values() for name in sides["inputs"] | sides["outputs"]),
        ]
        for name in names:
            check_name("signatures", name)
        for sides in signatures.values():
            _names(sides["inputs"] | sides["outputs"])
        if not signatures:
            raise ValueError("it has no signatures")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: its card.json cannot be used: {error}") from None
    return signatures


def _refused(described):
    """A line on what a signature refuses, by its interface."""
    line = bounds.sentence(described) if described else ""
    return [f"#   {printable(line, LINE)}"] * bool(line)


def _names(specs):
    shown = ", ".join(f"{n} {s['dtype']} {_shape(s['shape'])}" for n, s in specs.items())
    return printable(shown, LINE)


def _shape(shape):
    if shape is None:
        return "(one, or one per example)"
    return f"({', '.join('batch' if n is None else str(n) for n in shape)})"


def _grpc(name, signatures, extra) -> list[str]:
    signature, sides = next(iter(signatures.items()))
    types = {n: spec["dtype"] for n, spec in sides["inputs"].items()}
    return [
        "python - <<'END'  # after: pip install tensorflow-serving-api",
        "import base64, json",
        "import grpc",
        "import tensorflow as tf",
        "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc",
        "",
        f"body = json.load(open({str(extra / REQUESTS / signature) + '.json'!r}))",
        "request = predict_pb2.PredictRequest()",
        f"request.model_spec.name = {name!r}",
        'request.model_spec.signature_name = body["signature_name"]',
        f"for name, dtype in {types!r}.items():",
        '    value = body["inputs"][name]',
        '    if name.endswith("_bytes"):',
        '        value = [base64.b64decode(one["b64"]) for one in value]',
        "    request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))",
        'with grpc.insecure_channel("localhost:8500") as channel:',
        "    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)",
        "    answer = service.Predict(request, timeout=60)",
        "for name, value in answer.outputs.items():",
        "    print(name, tf.make_ndarray(value))",
        "END",
    ]
