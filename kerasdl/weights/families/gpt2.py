"""GPT-2 as transformers names it.

Source: https://huggingface.co/docs/transformers/model_doc/gpt2; its `Conv1D` kernels are `(I, O)`,
        as ours are.
"""

import keras

from kerasdl.layers.mlp import MLP
from kerasdl.layers.position import LearnedPosition
from kerasdl.weights.rename import Family, Rule, norm

BLOCK, OURS = "transformer.h.{i}", "block{i+1}"


def conv1d(theirs, ours):
    """Rules of a `Conv1D`."""
    return Rule(f"{theirs}.weight", f"{ours}/kernel"), Rule(f"{theirs}.bias", f"{ours}/bias")


def of_config(config):
    """The row and the arguments that a GPT-2 `config.json` stands for."""
    config.only(
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        quantization_config=None,
    )
    dim = config.get("n_embd", 768)
    return "gpt2_small", {
        "vocab_size": config.get("vocab_size", 50257),
        "max_length": config.get("n_positions", 1024),
        "dim": dim,
        "depth": config.get("n_layer", 12),
        "num_heads": config.get("n_head", 12),
        "mlp_dim": config.get("n_inner", 4 * dim),
        "activation": config.activation("activation_function", "gelu_new"),
        "epsilon": config.get("layer_norm_epsilon", 1e-5, float),
        "drop_rate": config.get("resid_pdrop", 0.1, float),
        "token_drop_rate": config.get("embd_pdrop", 0.1, float),
        "attention_drop_rate": config.get("attn_pdrop", 0.1, float),
        "tied": config.get("tie_word_embeddings", True),
    }


def rules(model):
    """The rules of a model: a head of its own has a kernel of its own."""
    return (
        *head("transformer.wte.weight", model),
        Rule("transformer.wpe.weight", "positions/table"),
        *norm(f"{BLOCK}.ln_1", f"{OURS}/norm1"),
        *conv1d(f"{BLOCK}.attn.c_attn", f"{OURS}/attention/qkv"),
        *conv1d(f"{BLOCK}.attn.c_proj", f"{OURS}/attention/project"),
        *norm(f"{BLOCK}.ln_2", f"{OURS}/norm2"),
        *conv1d(f"{BLOCK}.mlp.c_fc", f"{OURS}/mlp/dense1"),
        *conv1d(f"{BLOCK}.mlp.c_proj", f"{OURS}/mlp/dense2"),
        *norm("transformer.ln_f", "norm"),
    )


def head(embedding, model):
    """Rules of the token embeddings, of that name, and of the scores."""
    scores = "lm_head.weight"
    if model is None or model.head is None:
        return (Rule(embedding, "embedding/table", also=(scores,)),)
    return Rule(embedding, "embedding/table"), Rule(scores, "head/kernel", "kernel")


def accepts(model):
    """Whether it is one, with all biases."""
    attention, mlp = model.blocks[0].attention, model.blocks[0].mlp
    return (
        isinstance(model.positions, LearnedPosition)
        and isinstance(model.norm, keras.layers.LayerNormalization)
        and isinstance(mlp, MLP)
        and (attention.use_bias, mlp.use_bias) == (True, True)
        and attention.num_kv_heads == attention.num_heads
        and attention.head_dim in (None, model.dim // attention.num_heads)
    )


FAMILIES = (
    Family(
        name="transformers GPT-2",
        module="sequence.gpt",
        prefix="transformer.",
        rules=rules,
        ignored=(r"attn\.(masked_)?bias$",),
        configs={"gpt2": of_config},
        accepts=accepts,
        needs="learned positions, layer norms, perceptrons of two layers, and all biases",
    ),
)
