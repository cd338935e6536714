"""CLIP of transformers: answers, configs, names there and back, and the end of a text."""

import json

import numpy as np
import pytest
import tensorflow as tf

import kerasdl
from kerasdl.errors import UserError
from kerasdl.inference import signatures
from kerasdl.models.multimodal.clip import TINY, clip_b32, clip_small
from kerasdl.ops.losses import image_text
from kerasdl.recipe import Recipe
from kerasdl.store import load
from kerasdl.store.pretrained import save_pretrained, save_weights
from kerasdl.store.published import open_published
from kerasdl.tasks.contrast_texts import ContrastTexts
from kerasdl.weights import families
from kerasdl.weights.configs import Config
from kerasdl.weights.families.clip import of_config, text_config
from kerasdl.weights.rename import to_ours, to_theirs
from tests.data.test_published_tokenizers import clip as clip_tokenizer
from tests.goldens import deviation
from tests.weights.test_published import PREPROCESSOR, folder_of, of_nchw
from tests.weights.test_vit import BY_NAME, randomized

FAMILY = "transformers CLIP"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of the library, and its golden."""
    return folder_of("clip", tmp_path_factory.mktemp("clip") / "m")


def test_answers_are_those_of_the_library(published):
    path, golden = published
    model, expected = kerasdl.from_pretrained(path), golden.outputs
    image, ids = of_nchw(golden.inputs["pixel_values"]), golden.inputs["input_ids"]
    image_embeds, text_embeds = model.encode_image(image), model.encode_text(ids)
    assert deviation(image_embeds, expected["image_embeds"]) < 1e-4
    assert deviation(text_embeds, expected["text_embeds"]) < 1e-4
    logits = model.logits(image_embeds, text_embeds)
    assert deviation(logits, expected["logits_per_image"]) < 1e-4
    counted = golden.inputs["attention_mask"] > 0  # there, what fills a text up is hidden
    tokens = np.asarray(model.text.encode(ids))
    assert deviation(tokens[counted], expected["text_tokens"][counted]) < 1e-4
    x = model.backbone.embed(image)
    for block in model.backbone.blocks:
        x = block(x)
    assert deviation(x, expected["image_tokens"]) < 1e-4
    first = text_embeds[:3]
    loss, _ = image_text(image_embeds, first, image_embeds, first, np.exp(model.logit_scale))
    assert abs(np.mean(loss) - expected["contrastive_loss_of_first_3"]) < 1e-4


def test_weights_go_there_and_back_bit_by_bit(published, tmp_path):
    path, golden = published
    model = kerasdl.from_pretrained(path)
    back = to_theirs(BY_NAME[FAMILY], model, names=golden.weights)
    assert back.keys() == golden.weights.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, golden.weights[name])
    source = open_published(path).source(model)
    assert save_pretrained(model, tmp_path / "back", source)["family"] == FAMILY
    again = kerasdl.from_pretrained(tmp_path / "back")
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_text_ends_at_the_first_end_or_at_the_largest_id(published, tmp_path):
    path, golden = published
    model, ids = kerasdl.from_pretrained(path), golden.inputs["input_ids"]
    assert model.eos_id == 40
    values = json.loads((path / "config.json").read_text())["text_config"]
    older = {"text_config": {**values, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}}
    path, _ = folder_of("clip", tmp_path / "older", older)
    before = kerasdl.from_pretrained(path)
    assert before.eos_id is None
    np.testing.assert_array_equal(before.encode_text(ids), model.encode_text(ids))
    specials = load.load_info(path).info.columns["caption_ids"].specials
    assert specials["begin"] == 39 and specials["end"] == (40,)


def test_what_a_folder_says_of_its_images(tmp_path):
    path, golden = folder_of("clip", tmp_path / "m", preprocessor_config=PREPROCESSOR)
    model = kerasdl.from_pretrained(path)
    assert model.backbone.normalize.std == pytest.approx([0.2, 0.3, 0.4])
    info = load.load_info(path).info
    assert info.image_shape == (24, 24, 3) and info.max_length == 13 and info.vocab_size == 41


@pytest.mark.parametrize(
    "options", [{}, {"text_depth": 3, "activation": "gelu", "text_activation": "relu"}]
)
def test_every_option_goes_there_and_back(options):
    sizes = {**TINY["clip_b32"], "text_drop_rate": 0.0, **options}
    first, second = (randomized(clip_b32(**sizes)) for _ in range(2))
    renamed = to_ours(BY_NAME[FAMILY], second, to_theirs(BY_NAME[FAMILY], first))
    assert not renamed.left_over and not renamed.missing
    for weight in first.weights:
        np.testing.assert_array_equal(renamed.arrays[weight.path.partition("/")[2]], weight)


def test_a_residual_network_is_none_of_theirs():
    assert families.of_model(clip_small(**TINY["clip_small"])) == []
    assert families.of_model(clip_b32(**{**TINY["clip_b32"], "patch_bias": True})) == []


def test_configs():
    row, arguments = of_config(Config("it", {}))
    assert row == "clip_b32" and arguments["eos_id"] == 49407
    large = {"hidden_size": 768, "num_attention_heads": 12}
    values = {"text_config": {"hidden_size": 1}, "text_config_dict": large, "projection_dim": 768}
    _, arguments = of_config(Config("it", values))
    expected = {"text_dim": 768, "text_heads": 12, "text_mlp_dim": 2048, "projection_dim": 768}
    assert expected.items() <= arguments.items()
    assert text_config(Config("it", {})).values["bos_token_id"] == 49406
    for part, key, value in (
        ("vision_config", "hidden_act", "mish"),
        ("text_config", "attention_dropout", 0.1),
        ("vision_config", "patch_size", [8, 4]),
        ("text_config", "eos_token_id", "end"),
    ):
        with pytest.raises(UserError, match=f"{part}: {key}"):
            of_config(Config("it", {part: {key: value}}))


def test_texts_are_read_by_the_folders_tokenizer(tmp_path):
    reference = clip_tokenizer(["a red car", "a blue car, and a bus"])
    size, sizes = reference.get_vocab_size(), {**TINY["clip_b32"], "image_shape": (8, 8, 3)}
    arguments = {"text_drop_rate": 0.0, "eos_id": 1, "max_length": 9, "vocab_size": size}
    first = randomized(clip_b32(**{**sizes, **arguments, "input_mean": 0.0, "input_std": 1.0}))
    save_weights(first, tmp_path / "model.safetensors")
    text = {"vocab_size": size, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 3, "max_position_embeddings": 9}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "clip", "projection_dim": 6}
    config |= {"text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    reference.save(str(tmp_path / "tokenizer.json"))
    model, info = kerasdl.from_pretrained(tmp_path), load.load_info(tmp_path).info
    task = ContrastTexts(info, Recipe(model="clip_b32"))
    assert (task.specials.begin, task.specials.end) == (0, (1,))
    served = signatures.functions(task, model, "savedmodel", signatures.tokenizer_of(task))
    texts = ["a red car", "A  BUS"]
    found = served["encode_text"][0](tf.constant(texts))["text_embeds"]
    for row, text in zip(found, texts, strict=True):
        ids = np.array([reference.encode(text).ids])
        assert ids[0, 0] == 0 and ids[0, -1] == 1
        np.testing.assert_allclose(row, first.encode_text(ids)[0], rtol=1e-4, atol=1e-5)
