"""The runtimes that exported files are for, each with its signatures on numpy arrays.

Without Keras: `kerasdl.inference.proof` runs this file by its path.
"""

import ctypes.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SCALES = ("QUANTIZE", "DEQUANTIZE")  # operations between floats and 8-bit numbers
SECONDS = 0.5  # maximum time of one latency measurement


class SavedModel:
    """A SavedModel's signatures on numpy arrays.

    Args:
        folder: The version folder.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self.loaded = tf.saved_model.load(str(folder))
        self.signatures = dict(self.loaded.signatures)

    def inputs(self, signature: str) -> list:
        """Names of a signature's inputs; none where there is no such signature."""
        function = self.signatures.get(signature)
        return list(function.structured_input_signature[1]) if function else []

    def answer(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of a batch."""
        import tensorflow as tf

        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {k: v.numpy() for k, v in self.signatures[signature](**tensors).items()}

    def interface(self) -> dict:
        """`{signature: {"inputs" | "outputs": {name: {"shape", "dtype"}}}}`."""
        return {
            name: {
                "inputs": _specs(function.structured_input_signature[1]),
                "outputs": _specs(function.structured_outputs),
            }
            for name, function in sorted(self.signatures.items())
        }


class TFLite:
    """A TFLite file's signatures on numpy arrays, by the interpreter.

    Args:
        path: The file.
        threads: Of the interpreter.

    Attributes:
        batch: How many examples it answers at once; None is any number.
    """

    def __init__(self, path, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        self.path = str(path)
        self.interpreter = Interpreter(self.path, num_threads=threads)
        self.signatures = self.interpreter.get_signature_list()
        self.runners = {n: self.interpreter.get_signature_runner(n) for n in self.signatures}
        self.details = {
            n: (r.get_input_details(), r.get_output_details()) for n, r in self.runners.items()
        }
        sizes = [int(d["shape_signature"][0]) for _, g in self.details.values() for d in g.values()]
        self.batch = min(sizes) if min(sizes) > 0 else None

    def inputs(self, signature: str) -> list:
        """Names of a signature's inputs; none where there is no such signature."""
        return self.signatures.get(signature, {}).get("inputs", [])

    def interface(self) -> dict:
        """`{signature: {"inputs" | "outputs": {name: {"shape", "dtype", "quantization"}}}}`.

        A free axis is None; `quantization` is `[scale, zero point]` where the number `q` stands
        for `scale * (q - zero point)`, else None.
        """
        return {
            name: dict(zip(("inputs", "outputs"), map(_lite_specs, sides), strict=True))
            for name, sides in self.details.items()
        }

    def answer(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of any number of examples; floats also where the file itself has 8-bit
        numbers."""
        accepted, given = self.details[signature]
        inputs = {n: _quantized(n, value, accepted[n]) for n, value in inputs.items()}
        found = in_file_batches(lambda part: self.run(signature, part), inputs, self.batch)
        return {name: _real(value, given[name]) for name, value in found.items()}

    def run(self, signature: str, inputs: dict) -> dict:
        """`{output: array}` of inputs as the file has them."""
        return self.runners[signature](**inputs)

    def operations(self) -> dict:
        """Of its first signature `count`, and which fractions of them are `accelerated`, by XNNPACK
        on the CPU, and on `float` numbers."""
        from ai_edge_litert.interpreter import Interpreter

        another = Interpreter(self.path)  # the own one's tensors may be in use
        another.allocate_tensors()
        nodes, delegates = [], []
        for node in another._get_ops_details():
            (delegates if node["op_name"] == "DELEGATE" else nodes).append(node)
        made_by = {int(tensor): node for node in nodes for tensor in node["outputs"]}
        taken = set()
        for delegate in delegates:
            given, left = set(map(int, delegate["inputs"])), list(map(int, delegate["outputs"]))
            while left:  # back to where it begins
                node = made_by.get(left.pop())
                if node and node["index"] not in taken:
                    taken.add(node["index"])
                    left += [int(t) for t in node["inputs"] if int(t) not in given]
        floats = [n for n in nodes if n["op_name"] not in SCALES and np.float32 in _types(n)]
        count = max(1, len(nodes))
        return {
            "count": len(nodes),
            "accelerated": len(taken) / count,
            "float": len(floats) / count,
        }


def _types(node):
    """Of the numbers that an operation is given, or makes."""
    return [*node["operand_types"], *node["result_types"]]


class Compiled(TFLite):
    """A TFLite file's signatures by LiteRT's compiled model on the CPU: the interface of today's
    applications, on phones and in browsers.

    Args:
        path: The file; no axis of its inputs is free.
        threads: Of the CPU.
    """

    def __init__(self, path, threads: int = 1):
        from ai_edge_litert import compiled_model as litert

        super().__init__(path, threads)
        accelerator, cpu = litert.HardwareAccelerator.CPU, litert.CpuOptions(num_threads=threads)
        options = litert.Options(hardware_accelerators=accelerator, cpu_options=cpu)
        self.model = litert.CompiledModel.from_file(str(path), options=options)
        self.buffers = {
            name: (
                {n: self.model.create_input_buffer_by_name(name, n) for n in sides["inputs"]},
                {n: self.model.create_output_buffer_by_name(name, n) for n in sides["outputs"]},
            )
            for name, sides in self.signatures.items()
        }

    def run(self, signature: str, inputs: dict) -> dict:
        taken, given = self.buffers[signature]
        for name, buffer in taken.items():
            buffer.write(np.ascontiguousarray(inputs[name]))
        self.model.run_by_name(signature, taken, given)
        result = {}
        for name, buffer in given.items():
            details = self.details[signature][1][name]
            shape = tuple(int(n) for n in details["shape_signature"])
            flat = buffer.read(int(np.prod(shape)), details["dtype"])
            result[name] = np.array(flat).reshape(shape)
        return result


def in_file_batches(run, inputs: dict, batch: int | None) -> dict:
    """The answers to any number of examples by a file that takes `batch` at once, or any.

    What is not there for each example, as a weight, goes with all of them.
    """
    count = max(len(value) for value in inputs.values())
    if batch in (None, count):
        return run(inputs)
    parts = []
    for start in range(0, count, batch):
        at = np.minimum(np.arange(start, start + batch), count - 1)  # the last one again and again
        parts.append(run({n: v[at] if len(v) == count else v for n, v in inputs.items()}))
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _lite_specs(details):
    return {
        name: {
            "shape": [None if n < 0 else int(n) for n in result["shape_signature"]],
            "dtype": np.dtype(result["dtype"]).name,
            "quantization": _scale(result),
        }
        for name, result in sorted(details.items())
    }


def _scale(details):
    """`[scale, zero point]` of an input or output of 8-bit numbers, else None."""
    scale, zero = details["quantization"]
    return [float(scale), int(zero)] if scale and details["dtype"] != np.float32 else None


def _quantized(name, value, details):
    """An array as an input of a TFLite file takes it: with an axis, and token ids of its length.

    Raises:
        ValueError: It has another shape than the file takes.
    """
    value = np.asarray(value)
    value = value if value.ndim else value[None]
    wanted = [int(n) for n in details["shape_signature"]]
    if value.dtype.kind == "i" and value.ndim > 1:
        more = [max(0, n - m) for n, m in zip(wanted, value.shape, strict=False)]
        value = np.pad(value, [(0, 0), *((0, n) for n in more[1:])])
    axes = list(zip(wanted[1:], value.shape[1:], strict=False))
    if value.ndim != len(wanted) or any(n not in (-1, m) for n, m in axes):
        shapes = [
            "(" + ", ".join("any" if n < 0 else str(n) for n in shape[1:]) + ")"
            for shape in (value.shape, wanted)
        ]
        raise ValueError(f"{name} has the shape {shapes[0]}; this file takes {shapes[1]}")
    if not (result := _scale(details)):
        return value
    scale, zero = result
    limits = np.iinfo(details["dtype"])
    exact = np.rint(value / scale) + zero
    return np.clip(exact, limits.min, limits.max).astype(details["dtype"])


def _real(value, details):
    """The numbers that an output of a TFLite file stands for."""
    if not (result := _scale(details)):
        return value
    scale, zero = result
    return ((value.astype("float32") - zero) * scale).astype("float32")


def _specs(specs):
    return {  # no shape: a number, or one per example
        name: {"shape": s.shape.dims and s.shape.as_list(), "dtype": s.dtype.name}
        for name, s in sorted(specs.items())
    }


def text_libraries() -> list[Path]:
    """The shared libraries that hold tensorflow-text's operations."""
    from importlib.util import find_spec

    folder = Path(find_spec("tensorflow_text").origin).parent / "python" / "ops"
    return sorted(folder.glob("*.so"))


def load_text_ops() -> None:
    """Register tensorflow-text's operations, without its Python part, which imports Keras."""
    import tensorflow as tf

    for library in text_libraries():
        tf.load_op_library(str(library))


def latency(answer, seconds: float = SECONDS) -> float:
    """Median milliseconds of a call: of 3 to 200 in `seconds`, after five that do not count."""
    for _ in range(5):
        answer()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < 200 and time.perf_counter() < end):
        start = time.perf_counter()
        answer()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def on_gpu(path) -> bool | None:
    """Whether LiteRT's accelerator of GPUs takes all of a file, in a process of its own, since
    drivers may die; None where there is no such device."""
    if sys.platform == "linux" and not ctypes.util.find_library("vulkan"):
        return None
    code = (
        "import sys; from ai_edge_litert import compiled_model as l; a = l.HardwareAccelerator; "
        "o = l.Options(hardware_accelerators=a.GPU | a.CPU); "
        "m = l.CompiledModel.from_file(sys.argv[1], options=o); "
        "print('all' if m.is_fully_accelerated() else 'some')"
    )
    command = [sys.executable, "-P", "-c", code, str(path)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said[-1:] == ["all"] if said[-1:] in (["all"], ["some"]) else None
