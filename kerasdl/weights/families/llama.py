"""Llama as transformers names it.

A query and a key are turned in pairs of channels `i, i + d / 2` of a head there, and `2i, 2i + 1`
here, as in the paper on rotary positions and in the files of Llama's authors.

Source: https://huggingface.co/docs/transformers/model_doc/llama
"""

from kerasdl.errors import UserError
from kerasdl.layers.mlp import SwiGLU
from kerasdl.layers.norm import RMSNorm
from kerasdl.system.terminal import printable
from kerasdl.weights.configs import Config
from kerasdl.weights.families.gpt2 import head
from kerasdl.weights.rename import Family, Rule, dense

BLOCK, OURS = "model.layers.{i}", "block{i+1}"
PARTS = ("gate", "up", "down")
WHOLE = (1.0, 1, None)  # of the channels of a head
ROPE = ("rope_parameters", "rope_scaling")  # of transformers 5, and of earlier versions


def theta(config, default):
    """Base of the rotary angles.

    Raises:
        UserError: They are scaled, or of a part of the channels.
    """
    value = config.get("rope_theta", default, float)
    for key in ROPE:
        options = config.get(key, {}, dict)
        kind = options.get("rope_type", options.get("type", "default"))
        if kind != "default":
            raise UserError(
                f"{config.name}: {key} is of type {printable(repr(kind))[:80]} in its config; "
                "here it can only be 'default'"
            )
        part = Config(f"{config.name}: {key}", options)
        part.only(partial_rotary_factor=WHOLE)
        value = part.get("rope_theta", value, float)
    config.only(partial_rotary_factor=WHOLE)
    return float(value)


def arguments_of(config, defaults) -> dict:
    """What the `config.json` of Llama and that of networks like it say.

    Args:
        config: A `Config`.
        defaults: `{option: its value where the file does not have it}`.
    """
    config.only(quantization_config=None)
    heads = config.get("num_attention_heads", 32)
    tokens = config.get("max_position_embeddings", defaults["max_position_embeddings"])
    window = config.get("sliding_window", tokens, int)
    if window < tokens:
        raise UserError(
            f"{config.name}: sliding_window is {window} in its config, and its context {tokens}; "
            "here every token sees all before it"
        )
    return {
        "vocab_size": config.get("vocab_size", 32000),
        "max_length": tokens,
        "dim": config.get("hidden_size", 4096),
        "depth": config.get("num_hidden_layers", 32),
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads", defaults["num_key_value_heads"] or heads),
        "head_dim": config.get("head_dim", None, int),
        "mlp_dim": config.get("intermediate_size", defaults["intermediate_size"]),
        "activation": config.activation("hidden_act", "silu"),
        "epsilon": float(config.get("rms_norm_eps", defaults["rms_norm_eps"], float)),
        "theta": theta(config, defaults["rope_theta"]),
        "drop_rate": 0.0,
        "attention_drop_rate": float(config.get("attention_dropout", 0.0, float)),
        "tied": config.get("tie_word_embeddings", False),
    }


def of_config(config):
    """The row and the arguments that a Llama `config.json` stands for."""
    config.only(pretraining_tp=(1, None))
    defaults = {
        "max_position_embeddings": 2048,
        "num_key_value_heads": None,
        "intermediate_size": 11008,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    return "llama_small", {
        **arguments_of(config, defaults),
        "use_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
    }


def attention(model) -> tuple:
    """Rules of embeddings, norms and attention."""
    apart = tuple(f"{BLOCK}.self_attn.{name}_proj" for name in "qkv")
    return (
        *head("model.embed_tokens.weight", model),
        Rule(f"{BLOCK}.input_layernorm.weight", f"{OURS}/norm1/scale"),
        *(
            Rule(
                tuple(f"{n}.{theirs}" for n in apart), f"{OURS}/attention/qkv/{ours}", "join_pairs"
            )
            for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
        ),
        *dense(f"{BLOCK}.self_attn.o_proj", f"{OURS}/attention/project"),
        Rule(f"{BLOCK}.post_attention_layernorm.weight", f"{OURS}/norm2/scale"),
        Rule("model.norm.weight", "norm/scale"),
    )


def rules(model):
    """The rules of a model: a head of its own has a kernel of its own."""
    layers = [dense(f"{BLOCK}.mlp.{name}_proj", f"{OURS}/mlp/{name}") for name in PARTS]
    return (*attention(model), *(rule for pair in layers for rule in pair))


def is_like(model, mlp_class) -> bool:
    """Whether it has rotary positions, RMS norms before its parts, and such perceptrons."""
    block = model.blocks[0]
    return (
        block.attention.rotary
        and isinstance(model.norm, RMSNorm)
        and isinstance(block.mlp, mlp_class)
    )


FAMILIES = (
    Family(
        name="transformers Llama",
        module="sequence.gpt",
        prefix="model.",
        rules=rules,
        ignored=(r"rotary_emb\.inv_freq$",),
        configs={"llama": of_config},
        accepts=lambda model: is_like(model, SwiGLU),
        needs="rotary positions, RMS norms and SwiGLUs",
    ),
)
