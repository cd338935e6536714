"""Llama, a decoder-only Transformer with rotary positions, RMSNorm and SwiGLU, and its experts.

Paper:   LLaMA: Open and Efficient Foundation Language Models, Touvron et al. 2023,
         https://arxiv.org/abs/2302.13971 (section 2.2), with the grouped heads of Llama 2,
         https://arxiv.org/abs/2307.09288 (section 2.2).
         Mixtral of Experts, Jiang et al. 2024, https://arxiv.org/abs/2401.04088 (section 2,
         table 1): a few of several experts stand in the place of each perceptron.
Differs: every expert computes every token, which is exact. `llama_small` and `mixtral_small` are
         our sizes for characters; `kerasdl.from_pretrained` makes the published ones from their
         `config.json`.
"""

from kerasdl.layers.core import construct
from kerasdl.models.sequence import gpt

LLAMA = {
    "positions": "rotary",
    "norm": "rms",
    "mlp": "swiglu",
    "tied": False,
    "use_bias": False,
    "epsilon": 1e-6,
    "drop_rate": 0.0,
}
MIXTRAL = LLAMA | {"epsilon": 1e-5, "theta": 1e6}
_SMALL = {"dim": 128, "depth": 4, "num_heads": 8, "num_kv_heads": 2}


def llama_small(vocab_size=128, max_length=128, **kwargs):
    """A small Llama of characters."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    return construct(gpt.GPT, "llama_small", given, {**LLAMA, **_SMALL, "mlp_dim": 344}, kwargs)


def mixtral_small(vocab_size=128, max_length=128, **kwargs):
    """A small Mixtral of characters."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    experts = {"mlp_dim": 176, "num_experts": 4, "top_k": 2}
    return construct(gpt.GPT, "mixtral_small", given, MIXTRAL | _SMALL | experts, kwargs)


TINY = {name: gpt.TINY["char_gpt"] for name in ("llama_small", "mixtral_small")}
_TEXT = {
    "weight_decay": 0.1,
    "clip_grad": 1.0,
    "batch_size": 32,
    "lr": 0.003,
    "warmup_epochs": 0.5,
    "epochs": 4,
}
RECIPE = {"llama_small": _TEXT, "mixtral_small": _TEXT}
