"""Llama, a decoder-only Transformer with rotary positions, RMSNorm and SwiGLU.

Paper:   LLaMA: Open and Efficient Foundation Language Models, Touvron et al. 2023,
         https://arxiv.org/abs/2302.13971 (section 2.2), with the grouped heads of Llama 2,
         https://arxiv.org/abs/2307.09288 (section 2.2).
Differs: `llama_small` is our size for characters; the published ones, up to any, are made from
         their `config.json` by `kerasdl.from_pretrained`.
"""

from kerasdl.layers.core import construct
from kerasdl.models.sequence.gpt import GPT

LLAMA = {
    "positions": "rotary",
    "norm": "rms",
    "mlp": "swiglu",
    "tied": False,
    "use_bias": False,
    "epsilon": 1e-6,
    "drop_rate": 0.0,
}


def llama_small(vocab_size=128, max_length=128, **kwargs):
    """A small Llama of characters."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    sizes = {"dim": 128, "depth": 4, "num_heads": 8, "num_kv_heads": 2, "mlp_dim": 344}
    return construct(GPT, "llama_small", given, LLAMA | sizes, kwargs)


TINY = {
    "llama_small": {
        "vocab_size": 13,
        "max_length": 12,
        "dim": 16,
        "depth": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "mlp_dim": 24,
        "head_dim": 6,
        "theta": 500.0,
        "epsilon": 1e-4,
        "activation": "gelu",
        "mlp_bias": True,
        "drop_rate": 0.05,
    },
}
RECIPE = {
    "llama_small": {
        "weight_decay": 0.1,
        "clip_grad": 1.0,
        "batch_size": 32,
        "lr": 0.003,
        "warmup_epochs": 0.5,
        "epochs": 4,
    },
}
