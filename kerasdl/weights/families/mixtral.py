"""Mixtral as its published files name it, and as later versions of transformers do.

The former have each expert by itself, the latter stack them.

Source: https://huggingface.co/docs/transformers/model_doc/mixtral; `w1` is the gate, `w3` what it
        multiplies, `w2` the way back.
"""

from kerasdl.layers.moe import MixtureOfExperts
from kerasdl.weights.families.llama import BLOCK, OURS, arguments_of, attention, is_like
from kerasdl.weights.rename import Family, Rule

EXPERTS = f"{OURS}/experts"


def of_config(config):
    """The row and the arguments that a Mixtral `config.json` stands for."""
    defaults = {
        "max_position_embeddings": 4096 * 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
    }
    arguments = arguments_of(config, defaults)
    return "mixtral_small", {
        **arguments,
        "num_experts": config.get("num_local_experts", 8),
        "top_k": config.get("num_experts_per_tok", 2),
    }


def published() -> tuple:
    """Rules of experts in the names of published files."""
    block = f"{BLOCK}.block_sparse_moe"
    each = f"{block}.experts.{{*e}}"
    return (
        Rule(f"{block}.gate.weight", f"{EXPERTS}/router", "kernel"),
        Rule(f"{each}.w1.weight", f"{EXPERTS}/gate", "experts"),
        Rule(f"{each}.w2.weight", f"{EXPERTS}/down", "experts_out"),
        Rule(f"{each}.w3.weight", f"{EXPERTS}/up", "experts"),
    )


def stacked() -> tuple:
    """Rules of experts in the names of later versions."""
    inner, outer = (f"{BLOCK}.mlp.experts.{name}_proj" for name in ("gate_up", "down"))
    return (
        Rule(f"{BLOCK}.mlp.gate.weight", f"{EXPERTS}/router", "kernel"),
        Rule(inner, (f"{EXPERTS}/gate", f"{EXPERTS}/up"), "stacked_experts"),
        Rule(outer, f"{EXPERTS}/down", "stacked_experts_out"),
    )


FAMILIES = (
    Family(
        name="transformers Mixtral",
        module="sequence.gpt",
        prefix="model.",
        rules=lambda model: (*attention(model), *published(), *stacked()),
        ignored=(r"rotary_emb\.inv_freq$",),
        configs={"mixtral": of_config},
        accepts=lambda model: (
            is_like(model, MixtureOfExperts) and not model.blocks[0].attention.use_bias
        ),
        needs="rotary positions, RMS norms, experts, and no biases",
    ),
)
