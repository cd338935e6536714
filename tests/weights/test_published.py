"""Published weights by the public doors: `from_pretrained` and `load_weights`."""

import json
import re

import numpy as np
import pytest

import kerasdl
from kerasdl.errors import UserError
from kerasdl.inference.texts import predict_texts
from kerasdl.store import load
from kerasdl.store.initial import open_initial
from kerasdl.weights.files import save_safetensors
from tests import goldens

PREPROCESSOR = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_resize": False}


def folder_of(name, path, config=(), checkpoint=False, **files):
    """A golden as a folder of its library: `config.json` and `model.safetensors`."""
    golden = goldens.read(name)
    path.mkdir(parents=True)
    values = golden.config["resolved_config"] | dict(config)
    (path / "config.json").write_text(json.dumps(values))
    save_safetensors(
        path / "model.safetensors", golden.checkpoint if checkpoint else golden.weights
    )
    for file, content in files.items():
        (path / f"{file}.json").write_text(json.dumps(content))
    return path, golden


def of_nchw(x):
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_folder_of_transformers(tmp_path, checkpoint):
    path, golden = folder_of("hf_vit", tmp_path / "vit", checkpoint=checkpoint)
    logits = kerasdl.from_pretrained(path)(of_nchw(golden.inputs["pixel_values"]))
    assert goldens.deviation(logits, golden.outputs["logits"]) < 1e-4


def test_what_a_folder_says_of_its_images(tmp_path):
    names = {str(i): f"kind {i}" for i in range(7)}
    path, _ = folder_of(
        "hf_vit", tmp_path / "v", {"id2label": names}, preprocessor_config=PREPROCESSOR
    )
    info = load.load_info(path).info
    assert info.class_names == tuple(names.values())
    assert info.input_mean == (0.5, 0.4, 0.3) and info.input_std == (0.2, 0.3, 0.4)
    assert kerasdl.from_pretrained(path).backbone.normalize.mean == pytest.approx([0.5, 0.4, 0.3])
    initial = open_initial(str(path))
    assert initial.input_stats == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_a_unet_is_sampled_as_its_scheduler_says(tmp_path):
    config = {"_class_name": "UNet2DModel"}
    path, golden = folder_of("unet_ddpm", tmp_path / "u", config)
    x = of_nchw(golden.inputs["sample"])
    time = (golden.inputs["timestep"] + 1).astype("float32") / 1000
    result = kerasdl.from_pretrained(path)({"image": x, "time": time})
    assert goldens.deviation(np.moveaxis(result, -1, 1), golden.outputs["sample"]) < 1e-4
    settings = load.load_info(path).recipe.task_kwargs
    expected = {"schedule": "linear", "prediction": "eps", "sampler": "ddpm", "first_time": 0}
    assert expected.items() <= settings.items()
    (path / "scheduler").mkdir()
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    settings = load.load_info(path).recipe.task_kwargs
    assert {"sampler": "ddim", "prediction": "v"}.items() <= settings.items()


def test_a_head_for_other_classes_starts_anew(tmp_path):
    path, _ = folder_of("hf_vit", tmp_path / "vit")
    model = kerasdl.from_pretrained(path, num_classes=3)
    assert model.head.kernel.shape[-1] == 3
    report = kerasdl.load_weights(model, path)
    assert report.anew == ("head/kernel", "head/bias") and not report.left_over
    assert "the head starts anew" in str(report) and "backbone/norm/gamma" in report.taken


def test_classes_are_taken_by_name(tmp_path):
    names = {str(i): f"kind {i}" for i in range(7)}
    path, golden = folder_of("hf_vit", tmp_path / "vit", {"id2label": names})
    model = kerasdl.from_pretrained(path, num_classes=2)
    line = open_initial(str(path)).copy_to(model, ("kind 5", "new"))
    assert "took 1 of 2 classes of the head by name (new: new)" in line
    head = golden.weights["classifier.weight"]
    np.testing.assert_array_equal(model.head.kernel[:, 0], head[5])


def test_weights_that_are_left_over_are_named(tmp_path):
    path, golden = folder_of("gpt2", tmp_path / "g")
    model = kerasdl.from_pretrained(path)
    report = kerasdl.load_weights(model, golden.weights | {"transformer.extra": np.zeros(3)})
    assert report.left_over == ("transformer.extra",)
    assert str(report).endswith("left over: transformer.extra")


def refusal(function, *args, **kwargs):
    with pytest.raises(UserError) as refused:
        function(*args, **kwargs)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_of_another_model_are_refused(tmp_path):
    path, golden = folder_of("gpt2", tmp_path / "g")
    line = refusal(kerasdl.load_weights, kerasdl.create_model("resnet20"), golden.weights)
    assert "resnet20 takes no published weights; these look like transformers GPT-2" in line
    sizes = {"image_shape": (32, 32, 3), "depths": (1, 1), "filters": (4, 8)}
    resnet = kerasdl.create_model("resnet18", **sizes)
    line = refusal(kerasdl.load_weights, resnet, golden.weights)
    assert "is of another architecture than resnet18" in line
    assert "looks like transformers GPT-2" in line
    smaller = kerasdl.from_pretrained(path)
    before = [np.asarray(v) for v in smaller.weights]
    other = {**golden.weights, "transformer.wpe.weight": np.zeros((18, 24), "float32")}
    line = refusal(kerasdl.load_weights, smaller, other)
    assert "has other sizes: positions/table is (18, 24) there and (19, 24) here" in line
    short = {k: v for k, v in golden.weights.items() if "h.1.ln_2" not in k}
    assert "has nothing for block2/norm2/gamma" in refusal(kerasdl.load_weights, smaller, short)
    untied = {**golden.weights, "lm_head.weight": golden.weights["transformer.wte.weight"] + 1}
    assert "lm_head.weight differ" in refusal(kerasdl.load_weights, smaller, untied)
    for old, new in zip(before, smaller.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "gtp2"}, "'gtp2' is none of those that can be read .did you mean gpt2"),
        ({"n_embd": "many"}, "n_embd cannot be 'many'"),
        ({"activation_function": "relu6"}, "activation_function"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ],
)
def test_configs_that_are_refused(tmp_path, config, said):
    path, _ = folder_of("gpt2", tmp_path / "g", config)
    assert re.search(said, refusal(kerasdl.from_pretrained, path))


def test_a_config_of_more_than_its_file_allocates_nothing(tmp_path):
    path, _ = folder_of("gpt2", tmp_path / "wide", {"n_embd": 10**6})
    line = refusal(kerasdl.from_pretrained, path)
    assert re.search(r"its config stands for a model of [\d,]{15,} weights, and its file has", line)
    path, _ = folder_of("gpt2", tmp_path / "deep", {"n_layer": 10**9})
    assert "its model would have more than" in refusal(kerasdl.from_pretrained, path)


@pytest.mark.parametrize("name", ["gpt2", "marian"])
def test_texts_for_a_model_without_a_tokenizer(name, tmp_path):
    path, _ = folder_of(name, tmp_path / name)
    assert "has no tokenizer: it takes token ids" in refusal(predict_texts, path, ["a text"])


def test_places_that_say_too_little(tmp_path):
    assert "no such file or folder" in refusal(kerasdl.from_pretrained, tmp_path / "nothing.npz")
    file = tmp_path / "w.safetensors"
    save_safetensors(file, {"a": np.zeros(3, "float32")})
    assert "has no config.json" in refusal(kerasdl.from_pretrained, file)
    assert "no such weights (did you mean keras:ResNet50?)" in refusal(
        kerasdl.from_pretrained, "keras:ResNet5"
    )
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").write_text("{}")
    assert "model_type" in refusal(kerasdl.from_pretrained, tmp_path / "f")
