"""GPT-2 as transformers names it.

Source: https://huggingface.co/docs/transformers/model_doc/gpt2; its `Conv1D` kernels are `(I, O)`,
        as ours are.
"""

from kerasdl.weights.rename import Family, Rule, norm

BLOCK, OURS = "transformer.h.{i}", "block{i+1}"


def conv1d(theirs, ours):
    """Rules of a `Conv1D`."""
    return Rule(f"{theirs}.weight", f"{ours}/kernel"), Rule(f"{theirs}.bias", f"{ours}/bias")


def of_config(config):
    """The row and the arguments that a GPT-2 `config.json` stands for."""
    config.only(
        activation_function=("gelu_new", "gelu_pytorch_tanh"),
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
        layer_norm_epsilon=1e-5,
    )
    dim = config.get("n_embd", 768)
    return "gpt2_small", {
        "vocab_size": config.get("vocab_size", 50257),
        "max_length": config.get("n_positions", 1024),
        "dim": dim,
        "depth": config.get("n_layer", 12),
        "num_heads": config.get("n_head", 12),
        "mlp_dim": config.get("n_inner", 4 * dim),
        "drop_rate": config.get("resid_pdrop", 0.1, float),
    }


FAMILIES = (
    Family(
        name="transformers GPT-2",
        module="sequence.gpt",
        prefix="transformer.",
        rules=(
            Rule("transformer.wte.weight", "embedding/table", also=("lm_head.weight",)),
            Rule("transformer.wpe.weight", "positions/table"),
            *norm(f"{BLOCK}.ln_1", f"{OURS}/norm1"),
            *conv1d(f"{BLOCK}.attn.c_attn", f"{OURS}/attention/qkv"),
            *conv1d(f"{BLOCK}.attn.c_proj", f"{OURS}/attention/project"),
            *norm(f"{BLOCK}.ln_2", f"{OURS}/norm2"),
            *conv1d(f"{BLOCK}.mlp.c_fc", f"{OURS}/mlp/dense1"),
            *conv1d(f"{BLOCK}.mlp.c_proj", f"{OURS}/mlp/dense2"),
            *norm("transformer.ln_f", "norm"),
        ),
        ignored=(r"attn\.(masked_)?bias$",),
        configs={"gpt2": of_config},
        accepts=lambda model: model.positions is not None and model.head is None,
    ),
)
