"""Marian: the answers of transformers, its beam search, other options, exported files."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import kerasdl
from kerasdl.errors import UserError
from kerasdl.export import worker
from kerasdl.inference.artifact import open_artifact, task_of
from kerasdl.store import load
from kerasdl.weights import families
from kerasdl.weights.configs import Config
from kerasdl.weights.families.marian import FAMILIES
from kerasdl.weights.files import save_safetensors
from kerasdl.weights.rename import by_path, fraction, to_ours, to_theirs
from tests import goldens
from tests.export.examples import quiet
from tests.weights.test_published import folder_of

(FAMILY,) = FAMILIES
GENERATION = {"decoder_start_token_id": 36, "eos_token_id": 0, "pad_token_id": 36}


def task_at(path, **settings):
    """The task of a folder, with other settings."""
    metadata = load.load_info(path)
    kwargs = metadata.recipe.task_kwargs | settings
    recipe = dataclasses.replace(metadata.recipe, task_kwargs=kwargs)
    return task_of(dataclasses.replace(metadata, recipe=recipe))


def inputs_of(golden):
    names = {"source_ids": "input_ids", "target_ids": "decoder_input_ids"}
    return {ours: golden.inputs[theirs].astype("int32") for ours, theirs in names.items()}


def test_answers_are_those_of_transformers(tmp_path):
    path, golden = folder_of("marian", tmp_path / "m")
    model, x = kerasdl.from_pretrained(path), inputs_of(golden)
    assert goldens.deviation(model(x), golden.outputs["logits"]) < 1e-5
    encoded = model.encode(x["source_ids"])
    assert goldens.deviation(encoded, golden.outputs["encoder_output"]) < 1e-5
    searches = {
        "greedy": {},
        "beam4": {"beam_width": 4},
        "beam4_nopenalty": {"beam_width": 4, "length_penalty": 0},
    }
    for name, settings in searches.items():
        answer = task_at(path, max_new_tokens=12, **settings).predict(model, x)
        expected = golden.outputs[f"{name}_ids"][:, 1:]  # without the start
        wide = ((0, 0), (0, 12 - expected.shape[1]))
        expected = np.pad(expected, wide, constant_values=36)
        np.testing.assert_array_equal(answer["target_ids"], expected)
        if name != "greedy":
            scores = golden.outputs[f"{name}_scores"]
            np.testing.assert_allclose(answer["score"], scores, rtol=1e-5)


def test_weights_go_there_and_back(tmp_path):
    path, golden = folder_of("marian", tmp_path / "m")
    model = kerasdl.from_pretrained(path)
    theirs = to_theirs(FAMILY, model)
    assert theirs.keys() == golden.weights.keys()
    assert all(v.tobytes() == theirs[k].tobytes() for k, v in golden.weights.items())
    tied = ("embed_tokens.weight", "embed_positions.weight", "lm_head.weight")
    saved = {k: v for k, v in golden.weights.items() if not k.endswith(tied)}
    bare = {k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")}
    for weights, missing in ((saved, ()), (bare, ("head/bias",))):
        renamed = to_ours(FAMILY, model, weights)
        assert renamed.left_over == () and renamed.missing == missing
        assert fraction(FAMILY, model, weights) == fraction(FAMILY, None, weights) == 1
    other = golden.weights | {"lm_head.weight": golden.weights["lm_head.weight"] + 1}
    with pytest.raises(UserError, match="lm_head.weight differ"):
        kerasdl.load_weights(model, other)
    sizes = {"vocab_size": 37, "dim": 24, "depth": 2, "num_heads": 3, "mlp_dim": 44}
    model = kerasdl.create_model("transformer_base", **sizes)
    with pytest.raises(UserError, match="transformer_base is only with halves=True"):
        kerasdl.load_weights(model, golden.weights)


def erf(x):
    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}


def logits_of(w, config, source, target):
    """What Marian answers, in float64; `w` are weights in the names of transformers."""

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x, y, mask, name, heads):
        def split(z, which):
            z = dense(z, f"{name}.{which}_proj")
            return z.reshape(*z.shape[:2], heads, -1).swapaxes(1, 2)

        q, k, v = split(x, "q"), split(y, "k"), split(y, "v")
        scores = q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5
        scores = np.exp(np.where(mask, scores, -np.inf))
        z = (scores / scores.sum(-1, keepdims=True)) @ v
        return dense(z.swapaxes(1, 2).reshape(x.shape), f"{name}.out_proj")

    def embed(ids, half):
        x = w[f"model.{half}.embed_tokens.weight"][ids]
        x = x * (x.shape[-1] ** 0.5 if config["scale_embedding"] else 1)
        return x + w[f"model.{half}.embed_positions.weight"][: ids.shape[1]]

    def blocks(x, half, mask, memory=None):
        heads = config[f"{half}_attention_heads"]
        for i in range(config[f"{half}_layers"]):
            name = f"model.{half}.layers.{i}"
            y = attention(x, x, mask, f"{name}.self_attn", heads)
            x = norm(x + y, f"{name}.self_attn_layer_norm")
            if memory is not None:
                y = attention(x, memory, padding, f"{name}.encoder_attn", heads)
                x = norm(x + y, f"{name}.encoder_attn_layer_norm")
            y = ACTIVATIONS[config["activation_function"]](dense(x, f"{name}.fc1"))
            x = norm(x + dense(y, f"{name}.fc2"), f"{name}.final_layer_norm")
        return x

    padding = (source != config["pad_token_id"])[:, None, None]
    memory = blocks(embed(source, "encoder"), "encoder", padding)
    causal = np.tri(target.shape[1], dtype=bool)
    x = blocks(embed(target, "decoder"), "decoder", causal, memory)
    return x @ w["lm_head.weight"].T + w["final_logits_bias"]


APART = {"encoder_layers": 1, "decoder_layers": 3, "encoder_ffn_dim": 10, "decoder_ffn_dim": 18}
APART |= {"encoder_attention_heads": 6, "decoder_attention_heads": 4, "scale_embedding": False}
TWO = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 31}
TWO |= {"pad_token_id": 3, "decoder_start_token_id": 1}
UNTIED = {"tie_word_embeddings": False, "activation_function": "gelu", "d_model": 30}


@pytest.mark.parametrize(
    "changed",
    [
        APART | {"activation_function": "swish", "max_position_embeddings": 9},
        TWO | {"activation_function": "gelu_new"},
        UNTIED,
        TWO | UNTIED | {"decoder_layers": 1},
    ],
)
def test_other_options(tmp_path, changed, rng):
    config = goldens.read("marian").config["resolved_config"] | changed
    row, arguments = FAMILY.configs["marian"](Config("config.json", config))
    model = kerasdl.create_model(row, **arguments)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(weight.value + 0.3 * rng.normal(size=weight.shape))
    theirs = to_theirs(FAMILY, model)
    assert theirs["final_logits_bias"].any() and ("model.shared.weight" in theirs) == (
        config["share_encoder_decoder_embeddings"] and config["tie_word_embeddings"]
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_safetensors(tmp_path / "model.safetensors", theirs)
    again = kerasdl.from_pretrained(tmp_path)
    assert all(np.array_equal(v, by_path(again)[k]) for k, v in by_path(model).items())
    source = rng.integers(4, 37, (3, 7))
    source[1, 4:] = source[2, 2:] = config["pad_token_id"]
    target = rng.integers(0, arguments["vocab_size"], (3, 5))
    x = {"source_ids": source.astype("int32"), "target_ids": target.astype("int32")}
    exact = logits_of({k: v.astype("float64") for k, v in theirs.items()}, config, source, target)
    assert goldens.deviation(again(x), exact) < 1e-5
    task = task_at(tmp_path, beam_width=3, max_new_tokens=4)
    assert task.predict(again, x)["target_ids"].shape == (3, 4)
    assert task.arguments().items() <= load.load_info(tmp_path).arguments.items()


def test_a_config_without_sizes_is_that_of_the_library():
    config = Config("config.json", {"model_type": "marian"})
    family, read = families.of_config(config)
    row, arguments = read(config)
    expected = {"vocab_size": 58101, "dim": 1024, "depth": 12, "decoder_heads": 16}
    expected |= {"scale_embedding": False, "activation": "gelu", "source_vocab_size": None}
    assert family is FAMILY and row == "transformer_base"
    assert expected.items() <= arguments.items()


def test_the_search_is_that_of_the_folder(tmp_path):
    own = {"num_beams": 6, "max_length": 30, "forced_eos_token_id": 0, "bad_words_ids": [[36]]}
    path, _ = folder_of("marian", tmp_path / "old", own)
    assert load.load_info(path).recipe.task_kwargs == {
        "beam_width": 6,
        "length_penalty": 1.0,
        "length_normalization": "power",
        "early_stopping": "likely",
        "renormalize": False,
        "forced_end": True,
        "max_new_tokens": 29,
    }
    other = {"num_beams": 2, "early_stopping": True, "length_penalty": 0.5}
    other |= {"renormalize_logits": True, "max_new_tokens": 8, "bad_words_ids": [[36], [5], [0]]}
    path, _ = folder_of("marian", tmp_path / "new", own, generation_config=GENERATION | other)
    expected = {"beam_width": 2, "early_stopping": "full", "length_penalty": 0.5}
    expected |= {"renormalize": True, "forced_end": False, "max_new_tokens": 8}
    metadata = load.load_info(path)
    assert expected.items() <= metadata.recipe.task_kwargs.items()
    specials = metadata.info.columns["source_ids"].specials
    assert specials | {"pad": 36, "begin": 36, "end": (0,), "never": (36, 5)} == specials


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"normalize_before": True}, "normalize_before is True"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm is True"),
        ({"static_position_embeddings": False}, "static_position_embeddings is False"),
        ({"activation_function": "mish"}, "activation_function is 'mish'"),
        ({"d_model": 25}, "num_heads 3: must divide the 25 channels"),
        ({"decoder_attention_heads": 5}, "num_heads 5: must divide the 24 channels"),
        ({"encoder_layers": -1}, "depth -1: must be a whole number from 1 on"),
        ({"decoder_ffn_dim": 45}, "decoder1/mlp/dense1/kernel is .24, 44. there and .24, 45. here"),
        ({"eos_token_id": 37}, "eos_token_id is 37; the target has 37 tokens"),
        ({"eos_token_id": None}, "no eos_token_id"),
        ({"decoder_start_token_id": None}, "no decoder_start_token_id"),
        ({"bad_words_ids": [[3, 4]]}, "bad_words_ids has words of several tokens"),
        ({"forced_eos_token_id": 4}, "forced_eos_token_id is .4,. in its config"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size is 3"),
        ({"length_penalty": -1}, "length_penalty is -1.0; here it must be from 0 on"),
        ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes'"),
        ({"do_sample": True}, "do_sample is True"),
        ({"num_beams": 0}, "beam_width=0: must be a whole number from 1 on"),
    ],
)
def test_what_is_refused(tmp_path, config, message):
    path, _ = folder_of("marian", tmp_path / "m", config)
    with pytest.raises(UserError, match=message):
        load.load_info(path)
        kerasdl.from_pretrained(path)


@pytest.mark.slow
def test_a_translator_without_a_tokenizer_is_served_by_ids(tmp_path):
    path, golden = folder_of("marian", tmp_path / "m")
    settings = {"beam_width": 4, "max_new_tokens": 12}
    formats = ["savedmodel", "tflite"]
    card = worker.export_run(
        path, formats, tmp_path / "out", settings=settings, say=quiet, is_run=False
    )
    x, folder = inputs_of(golden), Path(card["folder"])
    served = open_artifact(folder)
    answer = served.answer("serving_default", {"source_ids": x["source_ids"]})
    beam = golden.outputs["beam4_ids"][:, 1:]
    np.testing.assert_array_equal(answer["target_ids"], beam)
    np.testing.assert_allclose(answer["score"], golden.outputs["beam4_scores"], rtol=1e-5)
    logits = golden.outputs["logits"]
    assert goldens.deviation(served.answer("logits", x)["logits"], logits) < 1e-5
    lite = open_artifact(folder / "tflite" / "float32.tflite")
    wide = {"source_ids": 33, "target_ids": 12}
    x = {
        name: np.pad(ids, ((0, 0), (0, wide[name] - ids.shape[1])), constant_values=36)
        for name, ids in x.items()
    }
    greedy = golden.outputs["greedy_ids"][:, 1:]
    for i in range(len(beam)):
        one = {name: ids[i : i + 1] for name, ids in x.items()}
        source = {"source_ids": one["source_ids"]}
        for name, ids in (("beam", beam), ("greedy", greedy)):
            np.testing.assert_array_equal(lite.answer(name, source)["target_ids"][0], ids[i])
        written = lite.answer("logits", one)["logits"][:, : logits.shape[1]]
        assert goldens.deviation(written, logits[i : i + 1]) < 1e-4
