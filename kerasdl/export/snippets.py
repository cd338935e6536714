"""Programs that run an exported TFLite file: Python, JavaScript, Kotlin and Swift.

Each has a function per signature, with the names, types and shapes of the file; a file whose
inputs or outputs are 8-bit numbers is given and gives floats, by its scales.

Source: LiteRT 2.3, https://ai.google.dev/edge/litert/next/android_kotlin and the sources of its
Kotlin interface; `@litertjs/core` 2.5; TensorFlowLiteSwift 2.17.
"""

import json
import keyword
import re

FILES = ("float32", "int8_full")  # the file of most answers, and the one of whole numbers
LANGUAGES = ("Python", "JavaScript", "Kotlin", "Swift")
WORDS = frozenset(  # of the other languages, and of the programs; no names of inputs
    (
        "answer close data inputs interpreter model np open outputs path quantized real "
        "result runner tensor values case catch const default delete do enum export false "
        "fun func function init inout interface internal let new null object private public "
        "static super switch this throw throws true typeof val var void when"
    ).split()
)
# Of each type of numbers: the array; in Kotlin also what writes and reads it.
PYTHON = {"float32": "float32", "int32": "int32", "int8": "int8", "uint8": "uint8", "bool": "bool"}
JAVASCRIPT = {"float32": "Float32Array", "int32": "Int32Array", "uint8": "Uint8Array"}
KOTLIN = {
    "float32": ("FloatArray", "Float"),
    "int32": ("IntArray", "Int"),
    "int8": ("ByteArray", "Int8"),
    "uint8": ("ByteArray", "Int8"),
    "bool": ("BooleanArray", "Boolean"),
}
SWIFT = {
    "float32": "Float32",
    "int32": "Int32",
    "int8": "Int8",
    "uint8": "UInt8",
    "bool": "Bool",
}
QUANTIZED_PYTHON = """

def quantized(values, scale, zero):
    return np.clip(np.rint(np.asarray(values) / scale) + zero, -128, 127)


def real(values, scale, zero):
    return scale * (values.astype(np.float32) - zero)
"""
QUANTIZED_KOTLIN = """
  private fun quantized(values: FloatArray, scale: Float, zero: Int) =
    ByteArray(values.size) { (Math.round(values[it] / scale) + zero).coerceIn(-128, 127).toByte() }

  private fun real(values: ByteArray, scale: Float, zero: Int) =
    FloatArray(values.size) { scale * (values[it] - zero) }
"""
QUANTIZED_SWIFT = """
  private func quantized(_ values: [Float32], _ scale: Float32, _ zero: Float32) -> [Int8] {
    values.map { Int8(min(max(($0 / scale).rounded() + zero, -128), 127)) }
  }

  private func real(_ values: [Int8], _ scale: Float32, _ zero: Float32) -> [Float32] {
    values.map { scale * (Float32($0) - zero) }
  }
"""


def snippet(language: str, path, signatures: dict) -> str:
    """A program that answers by each signature of a TFLite file.

    Args:
        language: Of `LANGUAGES`.
        path: The file; all but Python know its name alone.
        signatures: `{signature: {"inputs" | "outputs": {name: {"shape", "dtype",
            "quantization"}}}}`, as the card has them of the file; a "kind" besides.

    Returns:
        The text; a comment where what runs files in that language cannot run this one.
    """
    types = {"Python": PYTHON, "JavaScript": JAVASCRIPT, "Kotlin": KOTLIN, "Swift": SWIFT}[language]
    specs = [s for sides in signatures.values() for side in sides.values() for s in side.values()]
    mark = "#" if language == "Python" else "//"
    if other := sorted({spec["dtype"] for spec in specs} - set(types)):
        known = ", ".join(types)
        return f"{mark} {language} takes {known}; {path.name} has {', '.join(other)}"
    if language in ("JavaScript", "Kotlin") and any(None in spec["shape"] for spec in specs):
        return f"{mark} {language} runs files of fixed sizes: export with --tflite-batch 1"
    write = {"Python": _python, "JavaScript": _javascript, "Kotlin": _kotlin, "Swift": _swift}
    return write[language](path, signatures, any(spec.get("quantization") for spec in specs))


def lines(folder, card: dict) -> list[str]:
    """The programs of the files of an export, each under a title.

    Args:
        folder: The version's.
        card: Its card.
    """
    result, kinds = [], card["interface"]["tflite"]
    for kind in FILES:
        if not (artifact := card["artifacts"].get(f"tflite/{kind}")):
            continue
        path = folder / "tflite" / f"{kind}.tflite"
        signatures = {
            signature: {
                side: {
                    name: kinds.get(signature, {}).get(side, {}).get(name, {}) | spec
                    for name, spec in specs.items()
                }
                for side, specs in sides.items()
            }
            for signature, sides in artifact["signatures"].items()
        }
        for language in LANGUAGES:
            text = snippet(language, path, signatures).rstrip()
            result += ["", f"# {language}: run tflite/{path.name}", *text.split("\n")]
    return result


def _python(path, signatures, quantized):
    text = f"""\
import numpy as np
from ai_edge_litert.interpreter import Interpreter  # pip install ai-edge-litert

model = Interpreter({str(path)!r})
{QUANTIZED_PYTHON if quantized else ""}"""
    for signature, sides in signatures.items():
        given = []
        for name, spec in sides["inputs"].items():
            value = _scaled("quantized", _word(name), spec)
            given.append(f"        {json.dumps(name)}: np.asarray({value}, np.{spec['dtype']}),")
        real = []
        for name, spec in sides["outputs"].items():
            one = f"outputs[{json.dumps(name)}]"
            if spec.get("quantization"):
                real.append(f"\n    {one} = {_scaled('real', one, spec)}")
        text += f"""

def {_word(signature)}({", ".join(map(_word, sides["inputs"]))}):
    \"\"\"{_described(sides, "    ")}\"\"\"
    inputs = {{
{_rows(given)}
    }}
    outputs = model.get_signature_runner({json.dumps(signature)})(**inputs){"".join(real)}
    return outputs
"""
    return text


def _javascript(path, signatures, quantized):
    text = f"""\
import {{loadLiteRt, loadAndCompile, Tensor}} from "@litertjs/core";  // npm install @litertjs/core

let model = null;

/** Before the first answer; `wasm` is the address of the folder @litertjs/core/wasm/. */
export async function open(wasm, url = {json.dumps(path.name)}, accelerator = "wasm") {{
  await loadLiteRt(wasm);
  model = await loadAndCompile(url, {{accelerator}});  // or "webgpu"
}}

async function answer(signature, inputs) {{
  const outputs = await model.run(signature, inputs);
  const result = {{}};
  for (const [name, tensor] of Object.entries(outputs)) {{
    result[name] = Array.from(await tensor.data());
    tensor.delete();
  }}
  for (const tensor of Object.values(inputs)) tensor.delete();
  return result;
}}
"""
    for signature, sides in signatures.items():
        given = "\n".join(
            f"    {json.dumps(name)}: new Tensor({JAVASCRIPT[spec['dtype']]}.from({_word(name)}), "
            f"{json.dumps(spec['shape'])}),"
            for name, spec in sides["inputs"].items()
        )
        text += f"""
/** {_described(sides, " * ")} */
export function {_word(signature)}({", ".join(map(_word, sides["inputs"]))}) {{
  return answer({json.dumps(signature)}, {{
{given}
  }});
}}
"""
    return text


def _kotlin(path, signatures, quantized):
    text = f"""\
// build.gradle.kts: implementation("com.google.ai.edge.litert:litert:2.3.0")
import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/** {path.name}, of the application's assets. */
class Model(context: Context) : AutoCloseable {{
  private val model = CompiledModel.create(
    context.assets,
    {_kotlin_text(path.name)},
    CompiledModel.Options(Accelerator.CPU),
  )
{QUANTIZED_KOTLIN if quantized else ""}"""
    for signature, sides in signatures.items():
        key = _kotlin_text(signature)
        parameters, made, written, read = [], {"inputs": [], "outputs": []}, [], []
        for side, what in (("inputs", "Input"), ("outputs", "Output")):
            for name in sides[side]:
                one = _kotlin_text(name)
                made[side].append(f"      {one} to model.create{what}Buffer({one}, {key}),")
        for name, spec in sides["inputs"].items():
            array, how = KOTLIN["float32" if spec.get("quantization") else spec["dtype"]]
            parameters.append(f"{_word(name)}: {array}")
            value = _scaled("quantized", _word(name), spec, "f")
            write = f"write{KOTLIN[spec['dtype']][1]}({value})"
            written.append(f"    inputs.getValue({_kotlin_text(name)}).{write}")
        for name, spec in sides["outputs"].items():
            one = _kotlin_text(name)
            value = f"outputs.getValue({one}).read{KOTLIN[spec['dtype']][1]}()"
            read.append(f"      {one} to {_scaled('real', value, spec, 'f')},")
        text += f"""
  /** {_described(sides, "   * ")} */
  fun {_word(signature)}({", ".join(parameters)}): Map<String, Any> {{
    val inputs = mapOf(
{_rows(made["inputs"])}
    )
    val outputs = mapOf(
{_rows(made["outputs"])}
    )
{_rows(written)}
    model.run(inputs, outputs, {key})
    val result = mapOf<String, Any>(
{_rows(read)}
    )
    (inputs.values + outputs.values).forEach {{ it.close() }}
    return result
  }}
"""
    return text + "\n  override fun close() = model.close()\n}\n"


def _swift(path, signatures, quantized):
    name, _, extension = path.name.rpartition(".")
    free = any(
        None in s["shape"] for sides in signatures.values() for s in sides["inputs"].values()
    )
    text = f"""\
import Foundation
import TensorFlowLite  // pod "TensorFlowLiteSwift"

/// {path.name}, of the application's bundle.
final class Model {{
  private let interpreter: Interpreter

  init() throws {{
    let file = Bundle.main.path(forResource: {json.dumps(name)}, ofType: {json.dumps(extension)})!
    interpreter = try Interpreter(modelPath: file)
  }}

  private func data<T>(_ values: [T]) -> Data {{
    values.withUnsafeBufferPointer {{ Data(buffer: $0) }}
  }}

  private func values<T>(_ tensor: Tensor, _ type: T.Type) -> [T] {{
    tensor.data.withUnsafeBytes {{ Array($0.bindMemory(to: type)) }}
  }}
{QUANTIZED_SWIFT if quantized else ""}"""
    if free:
        text = f"// Free sizes are 1, unless `runner.resizeInput(named:toShape:)` is called\n{text}"
    for signature, sides in signatures.items():
        parameters, given, read = [], [], []
        for name, spec in sides["inputs"].items():
            array = SWIFT["float32" if spec.get("quantization") else spec["dtype"]]
            parameters.append(f"{_word(name)}: [{array}]")
            value = _scaled("quantized", _word(name), spec)
            given.append(f"      {json.dumps(name)}: data({value}),")
        for name, spec in sides["outputs"].items():
            tensor = f"runner.output(named: {json.dumps(name)})"
            value = f"values(try {tensor}, {SWIFT[spec['dtype']]}.self)"
            read.append(f"      {json.dumps(name)}: {_scaled('real', value, spec)},")
        text += f"""
  /// {_described(sides, "  /// ")}
  func {_word(signature)}({", ".join(parameters)}) throws -> [String: Any] {{
    let runner = try interpreter.signatureRunner(with: {json.dumps(signature)})
    try runner.invoke(with: [
{_rows(given)}
    ])
    return [
{_rows(read)}
    ]
  }}
"""
    return text + "}\n"


def _scaled(function, value, spec, suffix=""):
    """A value of 8-bit numbers as a call that scales it."""
    if not spec.get("quantization"):
        return value
    scale, zero = spec["quantization"]
    return f"{function}({value}, {scale!r}{suffix}, {zero})"


def _described(sides, indent):
    """Inputs and outputs, a line each."""
    rows = []
    for side in ("inputs", "outputs"):
        for name, spec in sides[side].items():
            dtype = "float32" if spec.get("quantization") else spec["dtype"]
            shape = ", ".join("any" if n is None else str(n) for n in spec["shape"])
            what = "takes" if side == "inputs" else "gives"
            range_ = " in [0, 1]" if spec.get("kind") == "image" else ""
            rows.append(f"{what} {name}: {dtype} ({shape}){range_}")
    return f"\n{indent}".join(rows)


def _word(name):
    """A name as the languages take it."""
    word = re.sub(r"\W", "_", name)
    return f"{word}_" if word in WORDS or keyword.iskeyword(word) else word


def _rows(rows):
    return "\n".join(rows)


def _kotlin_text(text):
    return json.dumps(text).replace("$", "\\$")
