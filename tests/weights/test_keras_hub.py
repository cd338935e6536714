"""Presets of KerasHub, as its `save_to_preset` writes them, against its own models."""

import json

import h5py
import keras
import numpy as np
import pytest

import kerasdl
from kerasdl.store import load, published
from kerasdl.weights import families, keras_hub, rename
from tests import goldens
from tests.weights.test_published import refusal

IMAGE = (16, 24, 3)


@pytest.fixture(scope="module")
def hub():
    """KerasHub's models."""
    from keras_hub import models

    return models


def names_of(file) -> list:
    """Those of all groups and arrays of an HDF5 file."""
    names = []
    file.visit(names.append)
    return names


def shaken(model):
    """A model whose weights are all random, those that start at 0 or 1 too."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + rng.normal(0, 0.2, weight.shape))
    return model


def make_gpt2(hub, path, **sizes):
    """A preset of a language model, and its backbone."""
    backbone = hub.GPT2Backbone(
        **{"vocabulary_size": 29, "num_layers": 3, "num_heads": 3, "hidden_dim": 24}
        | {"intermediate_dim": 40, "max_sequence_length": 19, "dropout": 0.2}
        | sizes
    )
    vocabulary = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}
    tokenizer = hub.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])
    preprocessor = hub.GPT2CausalLMPreprocessor(tokenizer, sequence_length=19)
    model = shaken(hub.GPT2CausalLM(backbone, preprocessor))
    model.save_to_preset(path)
    return model


def make_vit(hub, path, converter=None, head=None, **sizes):
    """A preset of an image classifier; of a backbone alone where `head` is False."""
    from keras_hub import layers

    backbone = hub.ViTBackbone(
        **{"image_shape": IMAGE, "patch_size": 4, "num_layers": 2, "num_heads": 2}
        | {"hidden_dim": 16, "mlp_dim": 20}
        | sizes
    )
    if head is False:
        shaken(backbone).save_to_preset(path)
        return backbone
    converter = layers.ViTImageConverter(image_size=IMAGE[:2], **converter or {})
    preprocessor = hub.ViTImageClassifierPreprocessor(converter)
    head = {"num_classes": 5, "preprocessor": preprocessor} | (head or {})
    model = shaken(hub.ViTImageClassifier(backbone, **head))
    model.save_to_preset(path)
    return model


def check_both_ways(path, model, name):
    """The weights of a preset are its files' bit by bit, there and back."""
    stored = {}
    for before, file in (("", "model.weights.h5"), ("task/", "task.weights.h5")):
        if (path / file).is_file():
            with h5py.File(path / file) as h5:
                arrays = {n: h5[n] for n in names_of(h5) if isinstance(h5[n], h5py.Dataset)}
                stored |= {before + n: one[()] for n, one in arrays.items()}
    report = kerasdl.load_weights(model, f"hub:{path}")
    assert not report.anew and not report.left_over and report.family == name
    (family,) = (f for f in families.families() if f.name == name)
    written = rename.to_theirs(family, model)
    assert set(written) == {n for n in stored if "optimizer/" not in n}
    for key, value in written.items():
        np.testing.assert_array_equal(value, stored[key])
    assert kerasdl.load_weights(model, written).family == name


def test_a_language_model_scores_as_theirs(hub, tmp_path, rng):
    theirs = make_gpt2(hub, tmp_path / "p")
    ids = rng.integers(0, 29, (2, 19)).astype("int32")
    expected = np.asarray(theirs({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    model = kerasdl.from_pretrained(f"hub:{tmp_path / 'p'}")
    assert goldens.deviation(model(ids), expected) < 1e-4
    check_both_ways(tmp_path / "p", model, "KerasHub GPT-2")
    with h5py.File(tmp_path / "p" / "model.weights.h5", "a") as file:  # as earlier versions wrote
        inner = [n for n in names_of(file) if n.endswith("_dense") and "_attention_layer/" in n]
        for name in inner:
            file.move(name, "/_".join(name.rsplit("/", 1)))
        file.move("layers", keras_hub.EARLIER.rstrip("/"))
    earlier = kerasdl.from_pretrained(tmp_path / "p")
    assert len(inner) == 3 * 4 and goldens.deviation(earlier(ids), expected) < 1e-4


def test_a_preset_of_kaggle_is_fetched_by_keras_hub(hub, tmp_path, rng, monkeypatch):
    from keras_hub.src.utils import preset_utils

    make_gpt2(hub, tmp_path / "p")
    asked, get_file = [], preset_utils.get_file

    def from_folder(preset, path):
        asked.append((preset, path))
        return get_file(str(tmp_path / "p"), path)

    monkeypatch.setattr(preset_utils, "get_file", from_folder)
    one = published.open_published("hub:gpt2_base_en")
    assert one.name == "hub:gpt2_base_en" and one.place.folder == tmp_path / "p"
    paths = {path for preset, path in asked if preset == "gpt2_base_en"}
    assert {"config.json", "assets/tokenizer/merges.txt"} < paths and keras_hub.WEIGHTS not in paths
    one.fill(kerasdl.from_pretrained("hub:gpt2_base_en"))
    assert ("gpt2_base_en", keras_hub.WEIGHTS) in asked


def test_a_file_of_weights_alone_is_read(hub, tmp_path, rng):
    theirs = make_gpt2(hub, tmp_path / "p")
    ids = rng.integers(0, 29, (2, 19)).astype("int32")
    expected = np.asarray(theirs({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    arguments = published.open_published(tmp_path / "p").arguments
    other = kerasdl.create_model("gpt2_small", **arguments)
    kerasdl.load_weights(other, tmp_path / "p" / "model.weights.h5")
    assert goldens.deviation(other(ids), expected) < 1e-4
    info = load.load_info(tmp_path / "p").info
    assert (info.vocab_size, info.max_length) == (29, 19)


def test_shards_and_narrow_floats_are_read(hub, tmp_path, rng):
    theirs = make_gpt2(hub, tmp_path / "p", dtype="bfloat16")
    (tmp_path / "p" / "model.weights.h5").unlink()
    theirs.backbone.save_to_preset(tmp_path / "p", max_shard_size=8e-6)
    assert len(list((tmp_path / "p").glob("model_*.weights.h5"))) > 2
    ids = rng.integers(0, 29, (2, 9)).astype("int32")
    wide = hub.CausalLM.from_preset(str(tmp_path / "p"), preprocessor=None)
    expected = wide({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    model = kerasdl.from_pretrained(f"hub:{tmp_path / 'p'}")
    assert goldens.deviation(model(ids), np.asarray(expected)) < 1e-4
    next((tmp_path / "p").glob("model_*.weights.h5")).unlink()
    assert "files of weights are missing" in refusal(
        kerasdl.from_pretrained, f"hub:{tmp_path / 'p'}"
    )


@pytest.mark.parametrize(
    ("sizes", "head", "converter"),
    [
        ({"layer_norm_epsilon": 1e-3}, {}, {"scale": 1 / 127.5, "offset": -1.0}),
        (
            {"use_mha_bias": False, "num_heads": 4, "num_layers": 3},
            {"pooling": "gap", "activation": "softmax"},
            {"scale": [0.02, 0.01, 0.015], "offset": [-1.0, -1.5, 0.5]},
        ),
        ({"use_mlp_bias": False, "use_class_token": False}, {"pooling": "gap"}, {}),
        ({"use_patch_bias": False}, False, None),
    ],
)
def test_images_are_classified_as_by_theirs(hub, tmp_path, rng, sizes, head, converter):
    theirs = make_vit(hub, tmp_path / "p", converter, head, **sizes)
    x = rng.random((3, *IMAGE), np.float32)
    model = kerasdl.from_pretrained(f"hub:{tmp_path / 'p'}")
    if head is False:
        assert goldens.deviation(model.encode(x), np.asarray(theirs(x))) < 1e-4
    else:
        converted = theirs.preprocessor.image_converter(x * 255)
        expected, logits = theirs(converted), model(x)
        if "activation" in head:
            logits = keras.ops.softmax(logits)
        assert goldens.deviation(logits, np.asarray(expected)) < 1e-4
    check_both_ways(tmp_path / "p", model, "KerasHub ViT")


def test_what_a_preset_says_of_its_images(hub, tmp_path):
    converter = {"scale": 1 / 127.5, "offset": -1.0, "crop_to_aspect_ratio": False}
    make_vit(hub, tmp_path / "p", converter)
    one = published.open_published(f"hub:{tmp_path / 'p'}")
    assert one.name == f"hub:{tmp_path / 'p'}" and one.recipe().resize == "squash"
    (column,) = one.info().named("image").values()
    assert column.shape == IMAGE
    assert column.mean == pytest.approx((0.5,) * 3) and column.std == pytest.approx((0.5,) * 3)
    assert len(one.info().class_names) == 5
    (tmp_path / "p" / "image_converter.json").unlink()  # it stands in preprocessor.json too
    assert published.open_published(tmp_path / "p").input_stats == one.input_stats
    model = kerasdl.from_pretrained(f"hub:{tmp_path / 'p'}", num_classes=2)
    assert kerasdl.load_weights(model, f"hub:{tmp_path / 'p'}").anew == ("head/kernel", "head/bias")


def write(path, file, change):
    values = json.loads((path / file).read_text())
    change(values)
    (path / file).write_text(json.dumps(values))


def test_presets_that_are_refused(hub, tmp_path):
    path = tmp_path / "p"
    make_vit(hub, path)
    configs = {file: (path / file).read_text() for file in ("config.json", "task.json")}
    int8 = {"class_name": "DTypePolicyMap", "config": {"policy_map": {}}}
    for file, option, value, said in (
        ("config.json", "patch_size", [4, 8], r"patch_size is (4, 8)"),
        ("config.json", "window", 3, "window is 3 in its config; here it can only hold"),
        ("config.json", "num_heads", "two", "num_heads cannot be 'two'"),
        ("config.json", "num_heads", 0, "num_heads cannot be 0"),
        ("config.json", "dtype", int8, "holds quantized weights"),
        ("config.json", "use_class_token", False, "pooling is 'token' and use_class_token False"),
        ("task.json", "intermediate_dim", 8, "task: intermediate_dim is 8 in its config"),
        ("task.json", "pooling", "max", "task: pooling is 'max' in its config; here it can only"),
        ("task.json", "activation", "sigmoid", "activation is 'sigmoid'"),
    ):
        write(path, file, lambda v, o=option, x=value: v["config"].update({o: x}))
        assert said in refusal(kerasdl.from_pretrained, f"hub:{path}")
        (path / file).write_text(configs[file])
    write(path, "task.json", lambda v: v.update(registered_name="keras_hub>ViTObjectDetector"))
    assert "class_name is 'ViTObjectDetector'" in refusal(kerasdl.from_pretrained, path)
    (path / "task.json").write_text(configs["task.json"])
    write(path, "config.json", lambda v: v.update(registered_name="keras_hub>BertBackbone"))
    line = refusal(kerasdl.from_pretrained, f"hub:{path}")
    assert "class_name 'BertBackbone' is none of those" in line
    assert "GPT2Backbone" in line and "ViTBackbone" in line
    (path / "config.json").write_text(configs["config.json"])
    (path / keras_hub.TASK_WEIGHTS).unlink()
    assert "task.weights.h5 is missing" in refusal(kerasdl.from_pretrained, path)
    (path / keras_hub.WEIGHTS).unlink()
    assert "neither model.weights.h5 nor" in refusal(kerasdl.from_pretrained, path)
    (path / "config.json").write_text('{"registered_name": 3}')
    assert "is no object of Keras" in refusal(kerasdl.from_pretrained, path)
