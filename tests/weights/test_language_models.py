"""GPT-2, Llama and Mixtral: the answers of transformers, all spellings, there and back."""

import dataclasses
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import kerasdl
from kerasdl.errors import UserError
from kerasdl.ops import decoding
from kerasdl.weights import families
from kerasdl.weights.configs import Config
from kerasdl.weights.families import mixtral
from kerasdl.weights.files import save_safetensors
from kerasdl.weights.rename import by_path, fraction, to_ours, to_theirs
from kerasdl.weights.transforms import TRANSFORMS
from tests import goldens
from tests.fork_server import python
from tests.weights.test_published import folder_of

NAMES = ("gpt2", "llama", "mixtral")


def family_of(model_type):
    return families.of_config(Config("config.json", {"model_type": model_type}))


def imported(name, path, checkpoint=False):
    path, golden = folder_of(name, path / name, checkpoint=checkpoint)
    return kerasdl.from_pretrained(path), golden


def ids_of(golden):
    return golden.inputs["input_ids"].astype("int32")


def inner(model, ids):
    """What other libraries' networks give besides the logits, of the layers of ours."""
    x = model.embedding(ids)
    x = embedded = x if model.positions is None else model.positions(x)
    after, scores = [], []
    for block in model.blocks:
        if hasattr(block.mlp, "router"):
            y = x + block.attention(block.norm1(x))
            y = block.norm2(y) @ block.mlp.router
            scores.append(np.reshape(y, (-1, y.shape[-1])))
        x, *_ = block(x)
        after.append(x)
    answers = {"embedded": embedded, "block1": after[0], "hidden": model.encode(ids)}
    return answers | {"router_logits": np.array(scores), "logits": model(ids)}


def greedy_ids(model, prompt, total, end=2, pad=0):
    """The likeliest tokens after prompts, `pad` after `end`."""
    n = len(prompt)
    tokens = decoding.generate(
        model.decode_step,
        model.init_cache(n, total),
        tf.constant(prompt),
        tf.fill((n,), prompt.shape[1]),
        total,
        tf.fill((n,), total),
        lambda logits, position: decoding.greedy(logits),
    )
    tokens = np.array(tokens)
    for row in tokens:
        ends = np.flatnonzero(row[prompt.shape[1] :] == end)
        if len(ends):
            row[prompt.shape[1] + ends[0] + 1 :] = pad
    return tokens[:, : max(len(np.trim_zeros(row, "b")) for row in tokens)]


@pytest.mark.parametrize(
    ("name", "checkpoint"), [*((name, False) for name in NAMES), ("mixtral", True)]
)
def test_answers_are_those_of_transformers(tmp_path, name, checkpoint):
    model, golden = imported(name, tmp_path, checkpoint)
    answers = inner(model, ids_of(golden))
    for key, expected in golden.outputs.items():
        if key == "greedy_ids_of_first_4":
            written = greedy_ids(model, ids_of(golden)[:, :4], 10)
            np.testing.assert_array_equal(written, expected)
        else:
            assert goldens.deviation(answers[key], expected) < 1e-5, key


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_there_and_back(tmp_path, name):
    model, golden = imported(name, tmp_path)
    family, _ = family_of(name)
    published = golden.checkpoint or golden.weights
    assert family in families.of_model(model)
    assert families.choose(model, published, name) is family
    assert fraction(family, None, published) == fraction(family, None, golden.weights) == 1
    written = [(family, published)]
    if name == "mixtral":
        rules = (*family.rules(model), *mixtral.stacked())
        later = tuple(r for r in rules if r not in mixtral.published())
        written.append((dataclasses.replace(family, rules=later), golden.weights))
    for one, expected in written:
        theirs = to_theirs(one, model)
        assert theirs.keys() == expected.keys()
        assert all(v.tobytes() == theirs[k].tobytes() for k, v in expected.items())
    bare = {k.removeprefix(family.prefix): v for k, v in published.items() if k != "lm_head.weight"}
    without = to_ours(family, model, bare)
    assert without.left_over == ()
    assert without.missing == (() if name == "gpt2" else ("head/kernel",))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("gpt2", {"tie_word_embeddings": False, "n_inner": None, "activation_function": "tanh"}),
        ("gpt2", {"n_head": 1, "vocab_size": 1, "layer_norm_epsilon": 1e-3}),
        ("llama", {"head_dim": 6, "attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": None, "tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 1, "hidden_act": "gelu", "num_hidden_layers": 1}),
        ("mixtral", {"head_dim": 10, "num_local_experts": 3, "num_experts_per_tok": 1}),
        ("mixtral", {"num_local_experts": 1, "num_experts_per_tok": 1, "hidden_act": "relu"}),
    ],
)
def test_other_sizes_go_there_and_back(rng, name, changed):
    values = goldens.read(name).config["resolved_config"] | changed
    family, read = family_of(name)
    row, arguments = read(Config("config.json", values))
    model = kerasdl.create_model(row, **arguments)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(rng.normal(size=weight.shape))
    assert family in families.of_model(model)
    theirs = to_theirs(family, model)
    again = to_ours(family, model, theirs)
    assert again.missing == again.left_over == ()
    assert all(np.array_equal(again.arrays[k], v) for k, v in by_path(model).items())
    tied = "lm_head.weight" in theirs and np.array_equal(
        theirs["lm_head.weight"], theirs[family.prefix + EMBEDDING[name]]
    )
    assert tied == values["tie_word_embeddings"]


EMBEDDING = {"gpt2": "wte.weight", **dict.fromkeys(("llama", "mixtral"), "embed_tokens.weight")}


def test_biases_of_rotary_heads_are_turned_as_their_kernels(rng):
    model = SimpleNamespace(num_heads=4, num_kv_heads=2)
    apart = [rng.normal(size=(heads * 6, 5)) for heads in (4, 2, 2)]
    (kernel,) = TRANSFORMS["join_pairs"].to_ours(apart, [(5, 48)], model)
    for i in range(5):
        (bias,) = TRANSFORMS["join_pairs"].to_ours([a[:, i] for a in apart], [(48,)], model)
        np.testing.assert_array_equal(bias, kernel[i])


def test_cached_decoding_with_heads_of_their_own_width(rng):
    model = kerasdl.create_model(
        "llama_small", vocab_size=11, dim=12, depth=2, num_heads=3, num_kv_heads=1, head_dim=10,
        theta=30.0, use_bias=True, mlp_bias=True, max_length=9,
    )  # fmt: skip
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    ids = rng.integers(0, 11, (2, 9)).astype("int32")
    whole = np.asarray(model(ids))
    logits, state = model.decode_step(ids[:, :4], model.init_cache(2, 9), 0)
    parts = [logits]
    for i in range(4, 9):
        logits, state = model.decode_step(ids[:, i : i + 1], state, tf.constant(i))
        parts.append(logits)
    assert state[0].shape == (2, 1, 9, 10)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-5, atol=1e-5)


def test_configs_of_earlier_versions():
    """Without what has its default; with the base of the angles at the top."""
    for name, row, expected in (
        ("gpt2", "gpt2_small", {"dim": 768, "mlp_dim": 3072, "num_heads": 12, "tied": True}),
        ("llama", "llama_small", {"num_kv_heads": 32, "epsilon": 1e-6, "theta": 1e4}),
        ("mixtral", "mixtral_small", {"num_kv_heads": 8, "num_experts": 8, "theta": 1e6}),
    ):
        _, read = family_of(name)
        found, arguments = read(Config("config.json", {"model_type": name}))
        assert found == row and expected.items() <= arguments.items()
    _, read = family_of("llama")
    old = {"rope_theta": 500000, "rope_scaling": None, "head_dim": None, "pretraining_tp": 1}
    assert read(Config("config.json", old))[1]["theta"] == 500000.0
    assert read(Config("config.json", {"rope_scaling": {"type": "default"}}))[1]["theta"] == 1e4


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"activation_function": "mish"}, "activation_function is 'mish'"),
        ("gpt2", {"n_head": 5}, "num_heads 5: must divide the 24 channels"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling .*'linear'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters .*'llama3'"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": "yarn"}, "rope_parameters cannot be 'yarn'"),
        ("llama", {"rope_parameters": {"rope_theta": 0}}, "theta 0.0: must be above 0"),
        ("llama", {"partial_rotary_factor": 0.25}, "partial_rotary_factor is 0.25"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp is 2"),
        ("llama", {"hidden_act": "relu2"}, "hidden_act is 'relu2'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"head_dim": 7}, "an even number of channels per head"),
        ("mixtral", {"sliding_window": 16}, "sliding_window is 16 .* context 29"),
        ("mixtral", {"num_experts_per_tok": 6}, "top_k 6: must be"),
    ],
)
def test_what_is_refused(tmp_path, name, changed, said):
    path, _ = folder_of(name, tmp_path / name, changed)
    with pytest.raises(UserError, match=said) as refused:
        kerasdl.from_pretrained(path)
    assert "\n" not in str(refused.value)


def test_other_networks_of_one_class_are_told_apart(tmp_path):
    model, _ = imported("llama", tmp_path)
    weights = goldens.read("mixtral").weights
    with pytest.raises(UserError, match="holds weights of a transformers Mixtral, which"):
        kerasdl.load_weights(model, weights)
    config = {"num_key_value_heads": 4}
    path, _ = folder_of("llama", tmp_path / "more", config)
    with pytest.raises(UserError, match=r"qkv/kernel is \(32, 64\) there and \(32, 96\) here"):
        kerasdl.from_pretrained(path)
    assert json.loads((path / "config.json").read_text())["num_key_value_heads"] == 4


@pytest.mark.slow
def test_an_import_takes_little_more_memory_than_its_file(tmp_path, rng):
    """Arrays are read one by one; the file has the proportions of GPT-2."""
    path, golden = folder_of("gpt2", tmp_path / "small")
    sizes = {"n_embd": 512, "n_layer": 8, "n_head": 8, "n_inner": 2048, "vocab_size": 20000}
    values = golden.config["resolved_config"] | sizes
    family, read = family_of("gpt2")
    row, arguments = read(Config("config.json", values))
    large = tmp_path / "large"
    large.mkdir()
    (large / "config.json").write_text(json.dumps(values))
    theirs = to_theirs(family, kerasdl.create_model(row, **arguments))
    del theirs["lm_head.weight"]  # as in the published file
    save_safetensors(large / "model.safetensors", theirs)
    script = Path(__file__).with_name("memory.py")
    done = subprocess.run([python(), script, path, large], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 1 < float(done.stdout) < 2.5
