"""SavedModels as a server sees them: loaded and run by `replay.cc`, without any Python."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from kerasdl.errors import UserError
from kerasdl.export import exporter
from kerasdl.inference import proof, runtimes
from kerasdl.system import processes

SOURCE = Path(__file__).with_name("replay.cc")


def compile_replay(folder) -> Path:
    """Compile the program against the installed TensorFlow, which takes `g++`."""
    program, libraries = Path(folder) / "replay", Path(tf.sysconfig.get_lib())
    flags = [f.replace("-I", "-isystem") for f in tf.sysconfig.get_compile_flags()]
    names = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
    linked = [f"-L{libraries}", "-Wl,--no-as-needed", *(f"-l:{n}" for n in names)]
    command = ["g++", "-O0", *flags, SOURCE, "-o", program, *linked, f"-Wl,-rpath,{libraries}"]
    subprocess.run(command, check=True, timeout=300)
    return program


def prove(program, parts, folder) -> float:
    """The largest difference of a SavedModel's answers in C++ from its model's.

    Args:
        program: Of `compile_replay`.
        parts: What was exported.
        folder: Where to.

    Raises:
        ValueError: It does not load, refuses a request, or a difference exceeds its limit.
    """
    examples, meta = exporter.examples_of(parts, parts.model)
    with tempfile.TemporaryDirectory() as work:
        served = Native(program, folder, examples, meta, work)
        result = proof.check(served, examples, meta["savedmodel"]["signatures"])
    if lines := proof.failures({"artifacts": {"savedmodel": result}}):
        raise UserError(f"in C++: {'; '.join(lines)}")
    return max(result["difference"].values(), default=0.0)


class Native:
    """A SavedModel's answers to requests that are given in advance, as `proof.check` runs it.

    Args:
        program: Of `compile_replay`.
        saved_model: Its folder.
        examples, meta: Of `exporter.examples_of`.
        work: An empty folder.
    """

    def __init__(self, program, saved_model, examples, meta, work):
        self.signatures = meta["savedmodel"]["signatures"]
        requested = [
            (name, inputs)
            for name, names in self.signatures.items()
            for inputs, _ in proof.requests(examples, name, names)
        ]
        self.answers = iter(replay(program, saved_model, requested, work, meta["text_ops"]))

    def answer(self, signature, inputs):
        """`{output: array}`, of the requests in their order."""
        result = next(self.answers)
        if isinstance(result, str):
            raise UserError(f"{signature}: {result}")
        return result


def replay(program, saved_model, requests, work, text_ops=False) -> list:
    """Send requests to a SavedModel.

    Args:
        program: Of `compile_replay`.
        saved_model: Its folder.
        requests: `[(signature, {input: array})]`.
        work: An empty folder.
        text_ops: Whether it needs the operations of tensorflow-text.

    Returns:
        Per request `{output: array}`, or the error's message.
    """
    folders = [Path(work) / f"{i:04}" for i in range(len(requests))]
    for folder, (signature, inputs) in zip(folders, requests, strict=True):
        (folder / "in").mkdir(parents=True)
        (folder / "signature").write_text(signature)
        for name, value in inputs.items():
            content = tf.make_tensor_proto(value).SerializeToString()
            (folder / "in" / name).write_bytes(content)
    command = [program, saved_model, work, *(runtimes.text_libraries() if text_ops else ())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise UserError(f"{saved_model}: {processes.why(done.returncode, done.stderr)}")
    return [_answer(folder) for folder in folders]


def _answer(folder):
    if (folder / "error").exists():
        return (folder / "error").read_text()
    return {
        path.name: np.asarray(tf.make_ndarray(tensor_pb2.TensorProto.FromString(path.read_bytes())))
        for path in (folder / "out").iterdir()
    }
