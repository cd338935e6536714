"""Mixtral, a Llama in which a few of several experts stand in the place of each perceptron.

Paper:   Mixtral of Experts, Jiang et al. 2024, https://arxiv.org/abs/2401.04088 (section 2,
         table 1).
Differs: every expert computes every token, which is exact; `mixtral_small` is our size for
         characters; the published ones are made from their `config.json` by
         `kerasdl.from_pretrained`.
"""

from kerasdl.layers.core import construct
from kerasdl.models.sequence.gpt import GPT
from kerasdl.models.sequence.llama import LLAMA

MIXTRAL = LLAMA | {"epsilon": 1e-5, "theta": 1e6}


def mixtral_small(vocab_size=128, max_length=128, **kwargs):
    """A small Mixtral of characters."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    sizes = {"dim": 128, "depth": 4, "num_heads": 8, "num_kv_heads": 2, "mlp_dim": 176}
    experts = {"num_experts": 4, "top_k": 2}
    return construct(GPT, "mixtral_small", given, MIXTRAL | sizes | experts, kwargs)


TINY = {
    "mixtral_small": {
        "vocab_size": 13,
        "max_length": 12,
        "dim": 16,
        "depth": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "mlp_dim": 20,
        "num_experts": 3,
        "theta": 1000.0,
        "activation": "relu",
        "attention_drop_rate": 0.1,
    },
}
RECIPE = {
    "mixtral_small": {
        "weight_decay": 0.1,
        "clip_grad": 1.0,
        "batch_size": 32,
        "lr": 0.003,
        "warmup_epochs": 0.5,
        "epochs": 4,
    },
}
