"""Published weights become files that answer as the original does, without a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasdl.bench import native
from kerasdl.export import worker
from kerasdl.inference.artifact import open_artifact
from tests import goldens
from tests.export.examples import quiet
from tests.weights.test_pretrained import same_file
from tests.weights.test_published import folder_of, of_nchw

SCRIPT = Path(__file__).with_name("without_keras.py")
ALL = ["savedmodel", "tflite", "safetensors"]


def without_keras(work, folder, file, signatures, **inputs):
    """What a SavedModel and a TFLite file answer in a process of its own: two dicts."""
    np.savez(work / "in.npz", **inputs)
    command = [sys.executable, "-P", SCRIPT, folder, file, *signatures]
    subprocess.run([*command, work / "in.npz", work / "out.npz"], check=True, timeout=300)
    answers = dict(np.load(work / "out.npz"))
    return (
        {k.partition("/")[2]: v for k, v in answers.items() if k.startswith(kind)}
        for kind in ("saved_model", "tflite")
    )


@pytest.mark.slow
def test_an_image_classifier(tmp_path, replay):
    path, golden = folder_of("hf_vit", tmp_path / "vit")
    image = of_nchw(golden.inputs["pixel_values"])
    card = worker.export_run(path, ALL, tmp_path / "out", say=quiet, is_run=False)
    assert "calibration needs data" in card["omitted"]["tflite/int8"]
    assert all(one["test"] is None for one in card["artifacts"].values())
    folder = Path(card["folder"])
    assert f"with the weights of `{path}`." in (folder / "assets.extra" / "card.md").read_text()
    file, names = folder / "tflite" / "float32.tflite", ["serving_default"] * 2
    served, lite = without_keras(tmp_path, folder, file, names, image=image)
    expected = golden.outputs["logits"]
    assert goldens.deviation(served["logits"], expected) < 1e-5
    assert goldens.deviation(lite["logits"], expected) < 1e-4
    requests = [("serving_default", {"image": image})]
    (answer,) = native.replay(replay, folder, requests, tmp_path / "work")
    assert goldens.deviation(answer["logits"], expected) < 1e-5
    assert card["safetensors"] == {
        "family": "transformers ViT",
        "files": ["model.safetensors", "config.json"],
    }
    same_file(folder / "safetensors" / "model.safetensors", golden.weights)


@pytest.mark.slow
def test_images_and_texts_without_a_tokenizer(tmp_path):
    statistics = {"image_mean": [0.45] * 3, "image_std": [0.27] * 3, "do_resize": False}
    path, golden = folder_of("clip", tmp_path / "clip", preprocessor_config=statistics)
    card = worker.export_run(path, ALL, tmp_path / "out", say=quiet, is_run=False)
    folder, image = Path(card["folder"]), of_nchw(golden.inputs["pixel_values"])
    image = np.clip(image * 0.27 + 0.45, 0, 1).astype("float32")
    ids = golden.inputs["input_ids"].astype("int32")
    file, names = folder / "tflite" / "float32.tflite", ["encode_text"] * 2
    for answer in without_keras(tmp_path, folder, file, names, caption_ids=ids):
        assert goldens.deviation(answer["text_embeds"], golden.outputs["text_embeds"]) < 1e-4
    artifact = open_artifact(folder)
    embeds = artifact.answer("encode_image", {"image": image})["image_embeds"]
    assert goldens.deviation(embeds, golden.outputs["image_embeds"]) < 1e-5
    request = {"image": image, "candidate_ids": np.repeat(ids[None], len(image), axis=0)}
    scores = np.exp(golden.outputs["logits_per_image"])
    found = artifact.answer("classify", request)["probabilities"]
    np.testing.assert_allclose(found, scores / scores.sum(1, keepdims=True), rtol=1e-4)
    same_file(folder / "safetensors" / "model.safetensors", golden.weights)


@pytest.mark.slow
def test_a_language_model_without_a_tokenizer_is_served_by_ids(tmp_path, replay):
    path, golden = folder_of("gpt2", tmp_path / "g")
    card = worker.export_run(path, ALL, tmp_path / "out", say=quiet, is_run=False)
    folder, ids = Path(card["folder"]), golden.inputs["input_ids"].astype("int32")
    lengths = np.full(len(ids), ids.shape[1], "int32")
    file, names = folder / "tflite" / "float32.tflite", ["next_token"] * 2
    inputs = {"token_ids": ids, "token_ids_length": lengths}
    served, lite = without_keras(tmp_path, folder, file, names, **inputs)
    expected = golden.outputs["logits"][:, -1]
    assert goldens.deviation(served["logits"], expected) < 1e-5
    assert goldens.deviation(lite["logits"], expected) < 1e-4
    requests = [("next_token", {"token_ids": ids})]
    (answer,) = native.replay(replay, folder, requests, tmp_path / "work")
    assert goldens.deviation(answer["logits"], expected) < 1e-5
    n = len(ids)
    request = {"token_ids": ids[:, :4], "token_ids_length": np.full(n, 4, "int32")}
    request |= {"max_new_tokens": np.full(n, 2, "int32"), "top_k": np.zeros(n, "int32")}
    request |= {"temperature": np.zeros(n, "float32"), "seed": np.arange(n, dtype="int32")}
    artifact = open_artifact(folder)
    assert artifact.answer("serving_default", request)["token_ids"].shape == (n, 6)
