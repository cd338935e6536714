"""What an export writes, and that nothing of a failed one is seen."""

import dataclasses
import json
import os
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.errors import ExportError, UserError
from kerasdl.export import card, convert, exporter, serving, tflite
from kerasdl.inference import runtimes
from kerasdl.inference.signatures import functions
from kerasdl.models.sequence import char_rnn, gpt
from tests.export.examples import make_parts, quiet

OUTPUTS = {
    "class_name": {"shape": [None], "dtype": "string"},
    "label": {"shape": [None], "dtype": "int64"},
    "logits": {"shape": [None, 10], "dtype": "float32"},
    "probabilities": {"shape": [None, 10], "dtype": "float32"},
}
KINDS = ("float32", "float16", "dynamic", "int8", "mediapipe")
FILES = ["savedmodel", *(f"tflite/{kind}" for kind in KINDS)]


def test_layout(exported):
    folder = Path(exported["folder"])
    assert (folder.name, folder.parent.name) == ("1", "digits-net")
    assert {p.name for p in folder.parent.iterdir()} == {"1"}
    assert {p.name for p in (folder / "tflite").iterdir()} == {
        "metadata.json",
        *(f"{kind}.tflite" for kind in KINDS),
    }
    assert {p.name for p in (folder / "assets.extra").iterdir()} == {
        "card.json",
        "card.md",
        "model.keras",
        "requests",
        "tf_serving_warmup_requests",
    }


def test_names_are_exact(exported):
    assert exported["signatures"] == {
        "serving_default": {
            "inputs": {"image": {"shape": [None, 8, 8, 1], "dtype": "float32"}},
            "outputs": OUTPUTS,
        },
        "serve_bytes": {
            "inputs": {"image_bytes": {"shape": [None], "dtype": "string"}},
            "outputs": OUTPUTS,
        },
    }


def test_tflite_names_and_any_number_of_examples(exported, parts):
    from kerasdl.inference.runtimes import TFLite

    lite = TFLite(Path(exported["folder"]) / "tflite" / "float32.tflite")
    assert lite.signatures == {
        "serving_default": {"inputs": ["image"], "outputs": ["label", "logits", "probabilities"]}
    }
    for count in (1, 5, 2):
        image = parts.test["image"][:count]
        outputs = lite.answer("serving_default", {"image": image})
        logits = parts.model(image, training=False)
        np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
        assert outputs["label"].dtype == np.int32
    with pytest.raises(
        ValueError, match=r"image has the shape \(7, 8, 1\); this file takes \(8, 8, 1"
    ):
        lite.answer("serving_default", {"image": parts.test["image"][:1, 1:]})


def test_every_file_answers_as_the_model(exported):
    artifacts = exported["artifacts"]
    assert list(artifacts) == FILES
    assert artifacts["savedmodel"]["max_difference"] <= 1e-5
    assert artifacts["tflite/float32"]["max_difference"] <= 1e-4
    assert set(artifacts["savedmodel"]["difference"]) == {
        f"{s}.{o}" for s in ("serving_default", "serve_bytes") for o in ("logits", "probabilities")
    }
    assert exported["warmup_requests"] == 2
    assert exported["omitted"] == {}


def test_figures_are_the_models(exported, parts):
    batch = {k: keras.ops.convert_to_tensor(v) for k, v in parts.test.items()}
    loss, metrics = parts.task.losses(parts.model, batch)
    test = exported["artifacts"]["savedmodel"]["test"]
    assert test["examples"] == 360
    assert test["loss"] == pytest.approx(float(keras.ops.mean(loss)), rel=1e-4)
    for name in ("top1", "top5"):
        assert test[name] == pytest.approx(float(keras.ops.mean(metrics[name])), abs=1e-6)
    for name in FILES[1:-1]:
        assert abs(exported["artifacts"][name]["test"]["top1"] - test["top1"]) <= 0.02


def test_card(exported):
    extra = Path(exported["folder"]) / "assets.extra"
    card = json.loads((extra / "card.json").read_text())
    assert card["data"]["columns"]["label"]["class_names"][3] == "3"
    assert (card["model"], card["version"], card["seed"]) == ("resnet20", 1, 0)
    assert card["versions"]["keras"] == keras.__version__
    lite = Path(exported["folder"]) / "tflite" / "int8.tflite"
    assert card["artifacts"]["tflite/int8"]["bytes"] == lite.stat().st_size
    assert card["artifacts"]["tflite/int8"]["latency_ms"]["1"] > 0
    float32 = card["artifacts"]["tflite/float32"]
    assert float32["compiled_model"]["latency_ms"]["1"] > 0
    assert 0.5 < float32["operations"]["accelerated"] <= 1 and float32["operations"]["float"] > 0.5
    assert card["artifacts"]["tflite/int8"]["operations"]["float"] < 0.2
    page = (extra / "card.md").read_text()
    for text in (card["paper"], "tflite/int8", "serve_bytes", "image_bytes", "| test top1 | 0.5 |"):
        assert text in page


def test_models_config_is_what_a_server_reads(exported):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    root = Path(exported["folder"]).parents[1]
    (root / "empty").mkdir(exist_ok=True)
    text = serving.write_configs(root).read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("digits-net", "/models/digits-net")
    assert model.model_platform == "tensorflow"


def test_versions_count_up(tmp_path):
    for version in (1, 2):
        with serving.making(tmp_path, "net") as folder:
            assert serving.next_version(folder.parent) == version
            serving.publish(folder, version)
    (tmp_path / "net" / "10").mkdir()
    assert serving.next_version(tmp_path / "net") == 11


def test_a_number_taken_meanwhile_is_not_overwritten(tmp_path):
    with serving.making(tmp_path, "net") as folder:
        (tmp_path / "net" / "1").mkdir()
        with pytest.raises(FileExistsError):
            serving.publish(folder, 1)


@pytest.mark.parametrize(
    ("module", "function", "formats"),
    [(tflite, "write", ("tflite",)), (exporter, "prove", ("savedmodel",))],
)
def test_nothing_is_left_of_a_failure(parts, tmp_path, monkeypatch, module, function, formats):
    seen = []

    def fail(*args, **kwargs):
        seen.extend(p.name for p in (tmp_path / "new" / "net").iterdir())
        raise ExportError("an operation is no builtin")

    monkeypatch.setattr(module, function, fail)
    with pytest.raises(ExportError, match="builtin"):
        exporter.export(parts, formats, tmp_path / "new", "net", quiet)
    assert len(seen) == 1 and not seen[0].isdecimal()  # no server takes it for a version
    assert list(tmp_path.iterdir()) == []


def test_a_killed_exports_folder_is_removed_by_the_next(tmp_path):
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    abandoned = tmp_path / "net" / serving.temporary_name(pid)
    abandoned.mkdir(parents=True)
    alive = tmp_path / "net" / serving.temporary_name(os.getppid())
    alive.mkdir()
    with serving.making(tmp_path, "net") as mine:
        assert {p.name for p in (tmp_path / "net").iterdir()} == {alive.name, mine.name}


def test_export_dir_that_cannot_be_written(parts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--export-dir .*file.*cannot be written"):
        exporter.export(parts, ("savedmodel",), tmp_path / "file", "net", quiet)


@pytest.mark.parametrize("name", ["../net", "a/b", ".net", ""])
def test_bad_names(tmp_path, name):
    with pytest.raises(ValueError, match="--export-name"):
        serving.check_writable(tmp_path, name)


def test_unknown_format(parts, tmp_path):
    with pytest.raises(ValueError, match="did you mean tflite"):
        exporter.export(parts, ("tflit",), tmp_path, "net", quiet)
    assert list(tmp_path.iterdir()) == []


def test_mixed_precision_is_refused(parts, tmp_path):
    mixed = dataclasses.replace(parts, model=SimpleNamespace(compute_dtype="bfloat16"))
    with pytest.raises(ValueError, match="bfloat16"):
        exporter.export(mixed, ("savedmodel",), tmp_path, "net", quiet)


def test_another_answer_is_not_exported(exported, parts):
    examples, meta = exporter.examples_of(parts, parts.model)
    examples["out/serve_bytes/logits"] = examples["out/serve_bytes/logits"] + 0.01
    line = "savedmodel: serve_bytes.logits differs by"
    with exporter.Helpers(lite=False) as helpers, pytest.raises(ExportError, match=line):
        exporter.prove(exported["folder"], examples, meta, helpers.proof)


def test_an_operation_that_is_no_builtin_is_named(parts, tmp_path):
    """keras.ops.argmax of floats handles -0.0 with an operation that TFLite has not."""
    signature = parts.task.signatures(parts.model)[0]

    class Task:
        info = parts.info

        sizes = dict

        def signatures(self, model):
            def serve(image):
                return {"label": keras.ops.argmax(model(image), axis=-1)}

            return [dataclasses.replace(signature, function=serve)]

    with pytest.raises(ExportError, match="TFLite float32: .*BitwiseAnd"):
        tflite.write(Task(), parts.model, parts.train, tmp_path / "tflite", quiet)
    assert "serve_bytes" in functions(Task(), parts.model, "savedmodel")


@pytest.mark.slow
def test_a_quantized_file_that_no_interpreter_runs_is_left_out_and_said(tmp_path):
    """A layer that is always 0 has an int8 scale that XNNPACK refuses."""
    parts, lines = make_parts(depths=(1, 1, 1)), []
    norm = parts.model.backbone.blocks[0].conv1.norm
    norm.beta.assign(keras.ops.full_like(norm.beta, -100.0))  # before its relu
    card = exporter.export(parts, ("tflite",), tmp_path, None, lines.append)
    assert list(card["artifacts"]) == [name for name in FILES if name != "tflite/int8"]
    assert "XNNPACK" in card["omitted"]["tflite/int8"]
    assert [line for line in lines if line.startswith("without tflite/int8: ")]
    assert not (Path(card["folder"]) / "tflite" / "int8.tflite").exists()
    assert (
        "Without `tflite/int8`" in (Path(card["folder"]) / "assets.extra" / "card.md").read_text()
    )


def test_a_file_that_is_right_less_often_is_said():
    def of(**metrics):
        return {"test": metrics or None}

    files = {"savedmodel": of(top1=0.97, loss=0.1), "tflite/float32": of(top1=0.97, loss=9.0)}
    assert card.losses({**files, "tflite/int8": of(top1=0.951)}) == []
    worse = {**files, "tflite/int8": of(top1=0.9), "tflite/dynamic": of()}
    assert card.losses(worse) == ["tflite/int8 has top1 0.9000, the SavedModel 0.9700"]
    assert card.losses({"savedmodel": of(), "tflite/int8": of()}) == []


def test_a_calibrated_file_that_is_right_much_less_often_is_left_out(monkeypatch, tmp_path):
    def files(examples, **worse):
        whole = {"top1": 0.97, "ap": 0.7, "examples": examples}
        result = {"savedmodel": {"test": whole}, "tflite/dynamic": {"test": whole | worse}}
        return result | {"tflite/int8": {"test": whole | worse}}

    assert card.inaccurate(files(1000, ap=0.671)) == {}
    reason = "its ap would be 0.6600, the SavedModel's is 0.7000"
    assert card.inaccurate(files(1000, ap=0.66)) == {"tflite/int8": reason}
    assert card.inaccurate(files(40, top1=0.93)) == {}  # two of few
    assert card.inaccurate({"savedmodel": {"test": None}, "tflite/int8": {"test": None}}) == {}
    proven, lines = exporter.prove, []

    def worse(*args):
        report = proven(*args)
        report["artifacts"]["tflite/int8"]["test"]["top1"] -= 0.1
        return report

    monkeypatch.setattr(exporter, "prove", worse)
    made = exporter.export(make_parts(depths=(1, 1, 1)), ("tflite",), tmp_path, None, lines.append)
    assert "tflite/int8" in made["omitted"] and "tflite/int8" not in made["artifacts"]
    assert any(line.startswith("without tflite/int8: its top1 would be") for line in lines)
    assert not (Path(made["folder"]) / "tflite" / "int8.tflite").exists()


@pytest.fixture(scope="module")
def chosen(parts, tmp_path_factory):
    """Cards of versions with other files and signatures than usual."""
    folder = tmp_path_factory.mktemp("chosen")
    kinds = ("int8_full",)
    full = exporter.export(parts, ("tflite",), folder, "net", quiet, quantized=kinds, version=7)
    some = exporter.export(parts, ("tflite",), folder, "net", quiet, signatures=("serve_bytes",))
    return full, some


def test_full_int8_takes_and_gives_eight_bits(chosen, parts):
    card = chosen[0]
    assert [*card["artifacts"]] == [*FILES[:2], "tflite/int8_full", FILES[-1]]
    assert card["artifacts"]["tflite/int8_full"]["operations"]["float"] == 0
    page = (Path(card["folder"]) / "assets.extra" / "card.md").read_text()
    assert re.search(
        r"- `tflite/int8_full`: \d+ operations, .* 0.00 on floats; calibrated with 200", page
    )
    lite = runtimes.TFLite(Path(card["folder"]) / "tflite" / "int8_full.tflite")
    result = json.loads((Path(card["folder"]) / "tflite" / "metadata.json").read_text())
    assert result["labels"] == [str(i) for i in range(10)]
    assert result["files"]["float32.tflite"]["serving_default"]["inputs"] == {
        "image": {"shape": [1, 8, 8, 1], "dtype": "float32", "quantization": None}
    }
    spec = result["files"]["int8_full.tflite"]["serving_default"]["inputs"]["image"]
    scale, zero = spec["quantization"]
    assert spec["dtype"] == "int8" and result["input"] == "(8, 8, 1), floats in [0, 1]"
    image = parts.test["image"][:1]
    exact = np.clip(np.rint(image / scale) + zero, -128, 127).astype("int8")
    raw = lite.runners["serving_default"](image=exact)["logits"]
    assert raw.dtype == np.int8
    scale, zero = result["files"]["int8_full.tflite"]["serving_default"]["outputs"]["logits"][
        "quantization"
    ]
    expected = lite.answer("serving_default", {"image": image})["logits"]
    np.testing.assert_allclose((raw.astype("float32") - zero) * scale, expected, rtol=1e-6)
    metrics = [card["artifacts"][k]["test"]["top1"] for k in ("tflite/int8_full", "savedmodel")]
    assert abs(metrics[0] - metrics[1]) <= 0.02


@pytest.mark.parametrize("batch", [4, None])
def test_a_file_of_several_examples_or_of_any_number(parts, tmp_path, batch):
    tflite.write(parts.task, parts.model, parts.train, tmp_path / "files", quiet, batch, ())
    lite = runtimes.TFLite(tmp_path / "files" / "float32.tflite")
    assert lite.batch == batch
    image = parts.test["image"][:6]
    expected = np.asarray(parts.model(image, training=False))
    for count in (1, 4, 6):
        result = lite.answer("serving_default", {"image": image[:count]})["logits"]
        np.testing.assert_allclose(result, expected[:count], atol=1e-4)


def test_a_loop_over_time_is_not_exported_at_another_batch(tmp_path):
    parts = make_parts("char_rnn", **char_rnn.TINY["char_rnn"])
    with pytest.raises(UserError, match="--tflite-batch: that of char_rnn must be 1, as its loop"):
        exporter.export(parts, ("tflite",), tmp_path, None, quiet, batch=2)
    assert not list(tmp_path.iterdir())


def test_chosen_signatures_and_versions(chosen, parts, tmp_path):
    full, some = chosen
    assert (full["version"], some["version"]) == (7, 8)
    assert set(some["signatures"]) == {"serve_bytes", "serving_default"}
    assert some["signatures"]["serving_default"] == some["signatures"]["serve_bytes"]
    assert some["omitted"] == {"tflite": "serve_bytes: not in TFLite files"}
    assert some["warmup_requests"] == 2
    folder = Path(full["folder"]).parents[1]
    for line, options in [
        ("--version 7: .* has it already; the next is 9", {"version": 7}),
        ("--version 0: must be next, or a number of at least 1", {"version": 0}),
        ("did you mean serve_bytes", {"signatures": ("serve_byte",)}),
    ]:
        with pytest.raises(ValueError, match=line):
            exporter.export(parts, (), folder, "net", quiet, **options)
    assert {p.name for p in (folder / "net").iterdir()} == {"7", "8"}


def test_a_converter_that_dies_is_said_and_costs_its_file_alone(parts, tmp_path, monkeypatch):
    convert, lines = tflite.Converter.convert, []

    def killed(self, folder, kind):
        if kind == "int8":
            threading.Timer(0.1, self.kill).start()
        return convert(self, folder, kind)

    monkeypatch.setattr(tflite.Converter, "convert", killed)
    kinds = ("int8", "dynamic")
    card = exporter.export(parts, ("tflite",), tmp_path, None, lines.append, quantized=kinds)
    assert [*card["artifacts"]] == [*FILES[:2], "tflite/dynamic", FILES[-1]]
    assert card["omitted"]["tflite/int8"].endswith("the converter died: ended by SIGKILL")
    said = [line for line in lines if line.startswith("TFLite")]
    assert said == ["TFLite float32", "TFLite int8", "TFLite dynamic"]


class Tied(tf.Module):
    """Words and scores of words by one table, as language models have."""

    def __init__(self, rng):
        super().__init__()
        self.table = tf.Variable(rng.standard_normal((6000, 64), "float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.int32, name="ids")])
    def score(self, ids):
        """Of what follows the words."""
        mean = tf.nn.relu(tf.reduce_mean(tf.gather(self.table, ids), 1))
        return {"scores": tf.matmul(mean, self.table, transpose_b=True)}


def test_a_table_that_is_looked_up_and_multiplied_with_is_written_once(tmp_path, rng):
    model = Tied(rng)
    tf.saved_model.save(model, str(tmp_path / "source"), signatures={"score": model.score})
    kinds = ("float32", "float16", "dynamic", "int8")
    (tmp_path / "signatures.json").write_text(json.dumps({k: {"score": ["ids"]} for k in kinds}))
    np.savez(tmp_path / "examples.npz", ids=rng.integers(0, 6000, (8, 3)).astype("int32"))
    for kind in kinds:
        convert.write(tmp_path, kind)
    size = {p.stem: p.stat().st_size for p in tmp_path.glob("*.tflite")}
    assert size["float32"] > 2**20 and size["float16"] <= 0.55 * size["float32"]
    assert size["dynamic"] <= 0.3 * size["float32"]
    assert "int8" not in size  # where it is there twice nevertheless
    assert "would take 0.50 of the float32 file" in (tmp_path / "int8.txt").read_text()


def test_masked_attention_keeps_its_scores_in_eight_bits(tmp_path, rng):
    """One scale for scores and for what hides others, -3e4 in floats, would leave none of them."""
    parts = make_parts("gpt2_small", **gpt.TINY["gpt2_small"])
    for weight in parts.model.trainable_variables:
        weight.assign_add(0.3 * rng.standard_normal(weight.shape))
    tflite.write(parts.task, parts.model, parts.train, tmp_path / "files", quiet, 1, ("int8",))
    lite = runtimes.TFLite(tmp_path / "files" / "int8.tflite")
    token_ids = parts.test["token_ids"][:8]
    expected = np.asarray(parts.model(token_ids))[:, -1]
    length = np.full(len(token_ids), token_ids.shape[1], "int32")
    inputs = {"token_ids": token_ids, "token_ids_length": length}
    result = lite.answer("next_token", inputs)["logits"]
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.99
