"""What `show --serving` prints works as it stands, for a classifier, texts and a sampler."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.export import serving_page, snippets
from kerasdl.export.exporter import export
from kerasdl.inference import proof, runtimes
from kerasdl.models.generative import ddpm
from kerasdl.models.sequence import gpt, transformer
from kerasdl.store import load
from tests.export.examples import make_parts, quiet
from tests.export.stand_in import serving

MODELS = {
    "char_gpt": gpt.TINY["char_gpt"],
    "transformer_small": transformer.TINY["transformer_small"],
    "ddpm_unet_small": ddpm.TINY["ddpm_unet_small"],
}


@pytest.fixture(scope="module")
def served(parts, tmp_path_factory):
    """A folder of four models, and the ports that they are served at."""
    folder = tmp_path_factory.mktemp("served")
    export(parts, ("tflite",), folder, None, quiet, quantized=())
    for name, arguments in MODELS.items():
        export(make_parts(name, **arguments), (), folder, None, quiet)
    with serving(folder) as ports:
        yield folder, ports


def run(command, ports):
    """The output of a command of the page, sent to the stand-in."""
    command = re.sub(r"(localhost|127\.0\.0\.1):8501", f"127.0.0.1:{ports[0]}", command)
    command = command.replace("localhost:8500", f"127.0.0.1:{ports[1]}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", *MODELS])
def test_every_command_is_answered_as_by_the_saved_model(name, served):
    folder, ports = served
    page = serving_page.page(folder / name)
    version = load.find(folder / name)[1]
    signatures = tf.saved_model.load(str(version)).signatures
    commands = [line for line in page.splitlines() if line.startswith("curl")]
    assert len(commands) == len(signatures)
    for command in commands:
        signature = Path(re.search(r"@(\S+)\.json", command)[1]).name
        function = signatures[signature]
        result = json.loads(run(command, ports))["outputs"]
        expected = _warm_up(version, signature, function)
        result = result if len(expected) > 1 else {next(iter(expected)): result}
        assert result.keys() == expected.keys()
        for output, value in expected.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(result[output], value, atol=1e-5)
            else:
                plain = value.astype("S").astype("U") if value.dtype.kind == "O" else value
                assert np.array_equal(result[output], plain)
    command = page[page.index("python - <<'END'") :].partition("\nEND")[0]
    printed = run(f"{command}\nEND", ports)
    first = next(iter(load_card(version)["signatures"].values()))
    assert all(re.search(rf"^{output} ", printed, re.MULTILINE) for output in first["outputs"])


@pytest.mark.slow
def test_the_program_for_devices_answers_as_the_file(served, parts):
    folder, _ = served
    page = serving_page.page(folder / "resnet20")
    titles = [line for line in page.splitlines() if "run tflite/" in line]
    assert titles == [f"# {name}: run tflite/float32.tflite" for name in snippets.LANGUAGES]
    text = page.partition(titles[0])[2].partition(titles[1])[0]
    program = {}
    exec(text, program)
    image = parts.test["image"][:1]
    path = load.find(folder / "resnet20")[1] / "tflite" / "float32.tflite"
    expected = runtimes.TFLite(path).answer("serving_default", {"image": image})
    result = program["serving_default"](image)
    assert {"label", "probabilities"} <= result.keys() == expected.keys()
    assert all(np.array_equal(result[name], expected[name]) for name in expected)
    assert "takes image: float32 (1, 8, 8, 1) in [0, 1]" in text


def load_card(version):
    return json.loads((version / "assets.extra" / "card.json").read_text())


def _warm_up(version, signature, function):
    """A signature's answer to its warm-up request."""
    inputs = dict(proof.warm_ups(version / proof.WARMUP))[signature]
    outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.slow
def test_requests_of_several_clients_are_joined_only_on_request(served):
    folder, _ = served
    assert not list(folder.glob("*/*/batching_params.pbtxt"))
    page = serving_page.page(folder / "resnet20")
    (command,) = (line for line in page.splitlines() if "batching_params.pbtxt" in line)
    subprocess.run(command.removeprefix("#"), shell=True, check=True)
    copied = folder / "resnet20" / "1" / "batching_params.pbtxt"
    assert copied.read_text() == (folder / "batching.config").read_text()
    copied.unlink()


@pytest.mark.slow
def test_the_page_and_the_card_say_what_a_request_may_cost(served):
    folder, _ = served
    said = {
        "resnet20": "at most 8,192 examples; 33,554,432 pixels per encoded image",
        "char_gpt": " examples; 1,048,576 bytes of text, each text as long as",
        "ddpm_unet_small": "time from 0 to 1",
    }
    for name, words in said.items():
        card = (load.find(folder / name)[1] / "assets.extra" / "card.md").read_text()
        assert words in card and words in serving_page.page(folder / name)


def test_no_exported_model(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="exported model"):
            serving_page.page(path)
