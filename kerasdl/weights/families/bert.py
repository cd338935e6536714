"""BERT as transformers names it, and as the files of its first years do.

Source: https://huggingface.co/docs/transformers/model_doc/bert; the norms of files that were made
        from TensorFlow's have `gamma` and `beta`.
"""

from kerasdl.weights.rename import Family, Rule, dense, norm

BLOCK, OURS = "bert.encoder.layer.{i}", "block{i+1}"
ACTIVATIONS = {  # names there: ours
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


def norms(theirs, ours):
    """Rules of a layer norm in both spellings."""
    old = [Rule(f"{theirs}.{name}", f"{ours}/{name}") for name in ("gamma", "beta")]
    return (*norm(theirs, ours), *old)


def joined(theirs, ours):
    """Rules of query, key and value."""
    kinds = {"weight": "kernel", "bias": "bias"}
    names = ("query", "key", "value")
    return [
        Rule(tuple(f"{theirs}.{name}.{end}" for name in names), f"{ours}/{kind}", "join")
        for end, kind in kinds.items()
    ]


def of_config(config):
    """The row and the arguments that a BERT `config.json` stands for."""
    config.only(
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        hidden_act=tuple(ACTIVATIONS),
    )
    return "bert_base", {
        "vocab_size": config.get("vocab_size", 30522),
        "max_length": config.get("max_position_embeddings", 512),
        "dim": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "mlp_dim": config.get("intermediate_size", 3072),
        "num_segments": config.get("type_vocab_size", 2),
        "activation": ACTIVATIONS[config.get("hidden_act", "gelu")],
        "epsilon": float(config.get("layer_norm_eps", 1e-12, float)),
        "drop_rate": float(config.get("hidden_dropout_prob", 0.1, float)),
        "pad_id": config.get("pad_token_id", 0),
        "tied": config.get("tie_word_embeddings", True),
    }


def rules(model):
    """The rules of a model: a head of its own has a kernel of its own."""
    decoder = "cls.predictions.decoder"
    tied = (f"{decoder}.weight",) if model is None or model.head.tied else ()
    scores, bias = Rule(f"{decoder}.weight", "head/scores/kernel", "kernel"), f"{decoder}.bias"
    # Of a head of its own the other bias is there, and adds nothing.
    own = () if tied else (scores, Rule(bias, "head/bias"))
    return (
        Rule("bert.embeddings.word_embeddings.weight", "embedding/table", also=tied),
        Rule("bert.embeddings.position_embeddings.weight", "positions/table"),
        Rule("bert.embeddings.token_type_embeddings.weight", "segments/table"),
        *norms("bert.embeddings.LayerNorm", "norm"),
        *joined(f"{BLOCK}.attention.self", f"{OURS}/attention/qkv"),
        *dense(f"{BLOCK}.attention.output.dense", f"{OURS}/attention/project"),
        *norms(f"{BLOCK}.attention.output.LayerNorm", f"{OURS}/norm1"),
        *dense(f"{BLOCK}.intermediate.dense", f"{OURS}/mlp/dense1"),
        *dense(f"{BLOCK}.output.dense", f"{OURS}/mlp/dense2"),
        *norms(f"{BLOCK}.output.LayerNorm", f"{OURS}/norm2"),
        *dense("cls.predictions.transform.dense", "head/project"),
        *norms("cls.predictions.transform.LayerNorm", "head/norm"),
        *own,
        Rule("cls.predictions.bias", "head/bias", also=(bias,)),
    )


FAMILIES = (
    Family(
        name="transformers BERT",
        module="sequence.bert",
        prefix="bert.",
        rules=rules,
        # Of the next sentence, which no model here predicts; and a count of positions.
        ignored=(r"^(bert\.)?pooler\.", r"^cls\.seq_relationship\.", r"position_ids$"),
        configs={"bert": of_config},
    ),
)
