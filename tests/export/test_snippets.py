"""Programs for devices: Python and JavaScript answer as the file, the others name it all."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.bench import browser
from kerasdl.export import convert, litert_js, snippets
from kerasdl.inference.runtimes import TFLite

PAGE = """<!doctype html><title>A snippet</title>
<script type="importmap">{"imports": %s}</script>
<script type="module">
import * as snippet from "/files/snippet.js";
await snippet.open("/runtime/%s", "/files/float32.tflite");
window.snippet = snippet;
</script>
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`float32.tflite` and `int8_full.tflite` of two signatures, one with a word of the languages
    among its inputs."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.kernel = tf.Variable(rng.normal(size=(3, 3, 1, 5)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 6, 4, 1), tf.float32, name="image")])
    def serve(image):
        maps = tf.nn.conv2d(image, module.kernel, 2, "VALID")
        return {"logits": tf.reduce_mean(maps, axis=(1, 2)), "maps": maps}

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, 5), tf.float32, name="new"),
            tf.TensorSpec((1, 5), tf.float32, name="values"),
        ]
    )
    def mix(x, values):
        return {"mixed": 0.5 * x + values}

    source, signatures = (
        str(folder / "source"),
        {"serving_default": ["image"], "mix": ["new", "values"]},
    )
    tf.saved_model.save(module, source, {"serving_default": serve, "mix": mix})
    shapes = {"image": (8, 6, 4, 1), "new": (8, 5), "values": (8, 5)}
    examples = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    for kind in snippets.FILES:
        content = convert.convert(source, signatures, kind, examples)
        (folder / f"{kind}.tflite").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def requests():
    rng = np.random.default_rng(1)
    shapes = {"image": (1, 6, 4, 1), "new": (1, 5), "values": (1, 5)}
    values = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    return {"serving_default": [values["image"]], "mix": [values["new"], values["values"]]}


@pytest.mark.parametrize("kind", snippets.FILES)
def test_python_answers_as_the_file(files, requests, kind):
    lite = TFLite(files / f"{kind}.tflite")
    program = {}
    exec(snippets.snippet("Python", files / f"{kind}.tflite", lite.interface()), program)
    for signature, values in requests.items():
        names = {"serving_default": ["image"], "mix": ["new", "values"]}[signature]
        expected = lite.answer(signature, dict(zip(names, values, strict=True)))
        result = program[signature](*values)
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            assert result[name].dtype == np.float32 and result[name].shape == value.shape
            np.testing.assert_allclose(result[name], value, rtol=1e-6)
            assert np.ptp(value) > 0


@pytest.mark.slow
def test_javascript_answers_as_the_file(files, requests, chromium):
    """In a browser, by LiteRT.js."""
    lite = TFLite(files / "float32.tflite")
    text = snippets.snippet("JavaScript", files / "float32.tflite", lite.interface())
    (files / "snippet.js").write_text(text)
    named = {name: f"/runtime/{file}" for name, file in litert_js.MODULES.items()}
    page = PAGE % (json.dumps(named), litert_js.WASM)
    with browser.serving(page, runtime=litert_js.folder(), files=files) as address:
        tab = chromium.new_page()
        tab.goto(address)
        tab.wait_for_function("window.snippet")
        for signature, values in requests.items():
            names = {"serving_default": ["image"], "mix": ["new", "values"]}[signature]
            expected = lite.answer(signature, dict(zip(names, values, strict=True)))
            given = [value.ravel().tolist() for value in values]
            call = "([name, given]) => snippet[name](...given)"
            for _ in range(2):  # nothing is used up
                result = tab.evaluate(call, [signature, given])
                assert result.keys() == expected.keys()
                for name, value in expected.items():
                    np.testing.assert_allclose(result[name], value.ravel(), atol=1e-5)
        tab.close()


@pytest.mark.parametrize("language", ["Kotlin", "Swift"])
@pytest.mark.parametrize("kind", snippets.FILES)
def test_programs_that_nothing_compiles_here(files, kind, language):
    """Every name and every scale of the file; brackets in pairs; no word as a parameter."""
    signatures = TFLite(files / f"{kind}.tflite").interface()
    text = snippets.snippet(language, files / f"{kind}.tflite", signatures)
    open_ones = []
    for bracket in re.findall(r"[][(){}]", re.sub(r"//.*|/\*[\s\S]*?\*/", "", text)):
        if bracket in "([{":
            open_ones.append(bracket)
        else:
            assert open_ones.pop() + bracket in ("()", "[]", "{}")
    assert not open_ones
    for signature, sides in signatures.items():
        assert re.search(rf"func? {signature}\(", text) and f'"{signature}"' in text
        for side in sides.values():
            for name, spec in side.items():
                assert f'"{name}"' in text
                assert f": float32 ({', '.join(map(str, spec['shape']))})" in text
                if kind == "int8_full":
                    scale, zero = spec["quantization"]
                    assert re.search(rf"{scale!r}f?, {zero}\)", text)
    assert re.search(r"mix\(new_: \S+, values_: \S+\)", text)
    assert ("quantized" in text) == (kind == "int8_full")


@pytest.mark.parametrize(
    "language, dtype, shape, sentence",
    [
        ("JavaScript", "int8", [1], "JavaScript takes float32, int32, uint8; net.tflite has int8"),
        ("Swift", "int64", [1], "net.tflite has int64"),
        ("Kotlin", "float32", [None, 3], "--tflite-batch 1"),
        ("JavaScript", "int32", [1, None], "--tflite-batch 1"),
    ],
)
def test_a_file_that_a_language_cannot_run(tmp_path, language, dtype, shape, sentence):
    sides = {"inputs": {"x": {"shape": shape, "dtype": dtype}}, "outputs": {}}
    text = snippets.snippet(language, tmp_path / "net.tflite", {"serving_default": sides})
    assert text.startswith("//") and sentence in text and "\n" not in text


def test_all_files_of_an_export(tmp_path):
    sides = {"inputs": {"image": {"shape": [1, 2], "dtype": "float32"}}, "outputs": {}}
    artifact = {"signatures": {"serving_default": sides}}
    kinds = {"serving_default": {"inputs": {"image": {"kind": "image", "shape": [2]}}}}
    card = {
        "interface": {"tflite": kinds},
        "artifacts": {"savedmodel": {}, "tflite/float32": artifact, "tflite/int8": artifact},
    }
    lines = snippets.lines(tmp_path, card)
    titles = [line for line in lines if line.startswith("# ")]
    assert titles == [f"# {name}: run tflite/float32.tflite" for name in snippets.LANGUAGES]
    assert sum("takes image: float32 (1, 2) in [0, 1]" in line for line in lines) == 4
