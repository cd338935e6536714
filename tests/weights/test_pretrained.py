"""Weights that go back to their library, and training that begins with published ones."""

import json

import numpy as np
import pytest

import kerasdl
from kerasdl import cli
from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.store import checkpoint, pretrained, published, runs
from kerasdl.store.initial import open_initial
from kerasdl.weights import files
from tests import goldens
from tests.weights.test_published import PREPROCESSOR, folder_of, of_nchw


def timm_folder(path, name="vit", architecture="vit_base_patch16_224"):
    """A golden of timm as the Hub has it."""
    golden = goldens.read(name)
    path.mkdir(parents=True)
    options = {k: v for k, v in golden.config["init"].items() if k != "num_classes"}
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config = {"architecture": architecture, "num_classes": 7, "model_args": options}
    (path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": statistics}))
    files.save_safetensors(path / "model.safetensors", golden.weights)
    return path, golden


def same_file(path, expected):
    with files.open_weights(path) as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found.raw(name).dtype == value.dtype
            np.testing.assert_array_equal(found.raw(name), value)


def test_weights_are_written_as_they_came(tmp_path):
    path, golden = timm_folder(tmp_path / "vit")
    model = kerasdl.from_pretrained(path)
    file = tmp_path / "back.safetensors"
    assert kerasdl.save_weights(model, file, "timm ViT") == "timm ViT"
    same_file(file, golden.weights)
    other = kerasdl.from_pretrained(path)
    other.set_weights([np.zeros(w.shape) for w in other.weights])
    kerasdl.load_weights(other, file)
    x = of_nchw(golden.inputs["x"])
    np.testing.assert_array_equal(model(x), other(x))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_names_are_those_of_the_file(tmp_path, checkpoint):
    """transformers 5 names the layers of a ViT otherwise than the files that are published."""
    path, golden = folder_of("hf_vit", tmp_path / "v", checkpoint=checkpoint)
    model = kerasdl.from_pretrained(path)
    source = published.open_published(path).source(model)
    pretrained.save_pretrained(model, tmp_path / "back", source)
    same_file(
        tmp_path / "back" / "model.safetensors", golden.checkpoint if checkpoint else golden.weights
    )


def test_what_no_model_here_has_goes_back_as_it_came(tmp_path):
    path, golden = folder_of("dinov2", tmp_path / "d")
    model = kerasdl.from_pretrained(path)
    source = json.loads(json.dumps(published.open_published(path).source(model)))
    assert list(source["kept"]) == ["embeddings.mask_token"]
    assert golden.weights["embeddings.mask_token"].any()
    pretrained.save_pretrained(model, tmp_path / "back", source)
    same_file(tmp_path / "back" / "model.safetensors", golden.weights)


def test_tied_weights_are_written_as_often_as_they_were(tmp_path):
    path, golden = folder_of("gpt2", tmp_path / "g")
    model = kerasdl.from_pretrained(path)
    tied, prefix = {"lm_head.weight", "transformer.wte.weight"}, "transformer."
    without = [n for n in golden.weights if n not in tied]
    short = [n.removeprefix(prefix) for n in (*without, "transformer.wte.weight")]
    for names in (golden.weights, [*without, "lm_head.weight"], short):
        kerasdl.save_weights(model, tmp_path / "w.safetensors", names=names)
        with files.open_weights(tmp_path / "w.safetensors") as found:
            assert set(found) == set(names)


def test_weights_that_no_library_has(tmp_path):
    file = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no library whose names are known has a lenet5"):
        kerasdl.save_weights(kerasdl.create_model("lenet5"), file)
    vit = kerasdl.create_model("vit_digits")
    with pytest.raises(UserError, match="no weights of a timm Vit .did you mean timm ViT"):
        kerasdl.save_weights(vit, file, "timm Vit")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        kerasdl.save_weights(vit, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_described_as_it_came(tmp_path):
    names = {str(i): f"kind {i}" for i in range(7)}
    path, golden = folder_of(
        "hf_vit", tmp_path / "v", {"id2label": names}, preprocessor_config=PREPROCESSOR
    )
    statistics = {"input_mean": (0.1,) * 3, "input_std": (0.2,) * 3}
    model = kerasdl.from_pretrained(path, num_classes=2, **statistics)
    source = json.loads(json.dumps(published.open_published(path).source(model)))
    info = DataInfo.of_images(model.backbone.image_shape, ("cat", "dog"), *statistics.values())
    done = pretrained.save_pretrained(model, tmp_path / "back", source, info)
    assert done["family"] == "transformers ViT"
    assert done["files"] == ["model.safetensors", "config.json", "preprocessor_config.json"]
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog"} and config["label2id"]["dog"] == 1
    assert config["model_type"] == "vit" and config["image_size"] == golden_size(golden)
    again = published.open_published(tmp_path / "back")
    assert again.facts["input_mean"] == (0.1,) * 3
    assert again.info().class_names == ("cat", "dog")
    x = of_nchw(golden.inputs["pixel_values"])
    np.testing.assert_array_equal(model(x), kerasdl.from_pretrained(tmp_path / "back")(x))


def golden_size(golden):
    return list(golden.inputs["pixel_values"].shape[2:])


def test_a_description_that_would_be_false_is_left_out(tmp_path):
    path, _ = folder_of("hf_vit", tmp_path / "v")
    source = published.open_published(path).source(kerasdl.from_pretrained(path))
    other = kerasdl.create_model("vit_digits")
    done = pretrained.save_pretrained(other, tmp_path / "back", source)
    assert done["files"] == ["model.safetensors"] == [p.name for p in (tmp_path / "back").iterdir()]


def test_gray_images_are_read_as_gray_ones_of_three_channels(tmp_path):
    path, golden = timm_folder(tmp_path / "vit")
    settings = {"input_mean": (0.5,) * 3, "input_std": (0.25,) * 3}
    model = kerasdl.from_pretrained(path, **settings)
    gray = kerasdl.create_model(
        "vit_b16",
        **published.open_published(path).arguments
        | {"image_shape": (24, 32, 1), "input_mean": (0.5,), "input_std": (0.25,)},
    )
    assert "patch" in open_initial(str(path)).copy_to(gray)
    x = of_nchw(golden.inputs["x"])[..., :1]
    whole = np.repeat(x, 3, axis=-1)
    assert goldens.deviation(gray(x), np.asarray(model(whole))) < 1e-5


TRAINED = "--dataset digits --freeze-backbone --limit-batches 4 --batch-size 16 --export none"


def fine_tune(place, output, epochs):
    argv = [*TRAINED.split(), "--initial-checkpoint", str(place), "--epochs", str(epochs)]
    assert cli.main([*argv, "--sched", "constant", "--output", str(output)]) == 0
    (folder,) = output.iterdir()
    return runs.open_run(folder)


def test_fine_tuning_of_published_weights_goes_on_exactly(tmp_path, capsys):
    path, golden = timm_folder(tmp_path / "vit")
    whole = fine_tune(path, tmp_path / "whole", 2)
    assert "the head starts anew" in capsys.readouterr().out
    fine_tune(path, tmp_path / "parts", 1)
    parts = fine_tune(path, tmp_path / "parts", 2)
    assert whole.model_arguments == parts.model_arguments
    assert whole.model_arguments["dim"] == 24 and whole.recipe.image_size == (24, 32)
    assert parts.data["source"]["family"] == "timm ViT"
    one, other = (checkpoint.latest(run.checkpoints)[1] for run in (whole, parts))
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
    model, _ = whole.restore("last")
    np.testing.assert_array_equal(model.backbone.norm.gamma, golden.weights["norm.weight"])
    assert not np.array_equal(model.head.bias, np.zeros(10))
