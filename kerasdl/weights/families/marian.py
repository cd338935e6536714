"""Marian as transformers names it: Vaswani's Transformer, with a bias of each token's score.

Source: https://huggingface.co/docs/transformers/model_doc/marian; its norms have torch's epsilon,
        and the sines of a position come before its cosines.
"""

import numpy as np

from kerasdl.weights.rename import Family, Rule, dense, norm

ENCODER, DECODER = "model.encoder.layers.{i}", "model.decoder.layers.{i}"
OUR_ENCODER, OUR_DECODER = "encoder{i+1}", "decoder{i+1}"
SHARED, HEAD = "model.shared.weight", "lm_head.weight"
SOURCE, TARGET = (f"model.{half}.embed_tokens.weight" for half in ("encoder", "decoder"))
OPTIONS = {"halves": True, "epsilon": 1e-5, "logits_bias": True, "prenorm": False}


def of_config(config):
    """The row and the arguments that a Marian `config.json` stands for."""
    config.only(
        normalize_before=False,
        normalize_embedding=False,
        add_final_layer_norm=False,
        static_position_embeddings=True,
        is_encoder_decoder=True,
        is_decoder=False,
    )
    source = config.get("vocab_size", 58101)
    shared = config.get("share_encoder_decoder_embeddings", True)
    tied = config.get("tie_word_embeddings", True)
    target = source if shared else config.get("decoder_vocab_size", source)
    return "transformer_base", {
        "vocab_size": target,
        "max_length": config.get("max_position_embeddings", 1024),
        "dim": config.get(("d_model", "hidden_size"), 1024),
        "depth": config.get(("encoder_layers", "num_hidden_layers"), 12),
        "num_heads": config.get(("encoder_attention_heads", "num_attention_heads"), 16),
        "mlp_dim": config.get("encoder_ffn_dim", 4096),
        "drop_rate": float(config.get("dropout", 0.1, float)),
        "decoder_depth": config.get("decoder_layers", 12),
        "decoder_heads": config.get("decoder_attention_heads", 16),
        "decoder_mlp_dim": config.get("decoder_ffn_dim", 4096),
        "activation": config.activation("activation_function"),
        "scale_embedding": config.get("scale_embedding", False),
        # transformers shares embeddings only where it ties the scores to them.
        "source_vocab_size": None if shared and tied else source,
        "tied": tied,
        "pad_id": config.get("pad_token_id", 58100),
        **OPTIONS,
    }


def embeddings(model) -> tuple:
    """Rules of the embeddings and the scores of a model; None is any model."""
    tied = model is None or model.tied
    same = (HEAD,) if tied else ()
    own = () if tied else (Rule(HEAD, "head/kernel", "kernel"),)
    if model is None or model.source_embedding is None:
        return (Rule(SHARED, "embedding/table", also=(SOURCE, TARGET, *same)), *own)
    both = ((SOURCE, "source_embedding/table", ()), (TARGET, "embedding/table", same))
    apart = [Rule(theirs, ours, also=also) for theirs, ours, also in both]
    # Files of earlier versions hold what is shared once.
    return (*apart, *(Rule(SHARED, ours) for _, ours, _ in both), *own)


def self_attention(theirs, ours) -> tuple:
    """Rules of the attention of a sequence to itself."""
    names = tuple(f"{theirs}.self_attn.{name}_proj" for name in "qkv")
    return (
        *(
            Rule(tuple(f"{n}.{kind}" for n in names), f"{ours}/attention/qkv/{our_kind}", "join")
            for kind, our_kind in (("weight", "kernel"), ("bias", "bias"))
        ),
        *dense(f"{theirs}.self_attn.out_proj", f"{ours}/attention/project"),
        *norm(f"{theirs}.self_attn_layer_norm", f"{ours}/norm1"),
    )


def perceptron(theirs, ours, last) -> tuple:
    """Rules of the perceptron of a block, and of its last norm."""
    return (
        *dense(f"{theirs}.fc1", f"{ours}/mlp/dense1"),
        *dense(f"{theirs}.fc2", f"{ours}/mlp/dense2"),
        *norm(f"{theirs}.final_layer_norm", f"{ours}/{last}"),
    )


def rules(model) -> tuple:
    """The rules of a model; None is any model."""
    cross = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "project"}
    return (
        *embeddings(model),
        *self_attention(ENCODER, OUR_ENCODER),
        *perceptron(ENCODER, OUR_ENCODER, "norm2"),
        *self_attention(DECODER, OUR_DECODER),
        *(
            rule
            for theirs, ours in cross.items()
            for rule in dense(f"{DECODER}.encoder_attn.{theirs}", f"{OUR_DECODER}/cross/{ours}")
        ),
        *norm(f"{DECODER}.encoder_attn_layer_norm", f"{OUR_DECODER}/norm2"),
        *perceptron(DECODER, OUR_DECODER, "norm3"),
        Rule("final_logits_bias", "head/bias", "row"),
    )


def sinusoids(arrays, model) -> dict:
    """The tables of the positions, which are computed, and which transformers keeps."""
    i, positions = np.arange(model.dim // 2), np.arange(model.max_length)[:, None]
    angles = positions / np.power(10000, 2 * i / model.dim)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")
    return {f"model.{half}.embed_positions.weight": table for half in ("encoder", "decoder")}


def is_like(model) -> bool:
    """Whether transformers has such a network."""
    biased = model.head is not None and model.head.use_bias
    found = (model.halves, model.epsilon, biased, model.prenorm)
    return found == tuple(OPTIONS.values())


FAMILIES = (
    Family(
        name="transformers Marian",
        module="sequence.transformer",
        prefix="model.",
        rules=rules,
        ignored=(r"embed_positions\.weight$",),
        written=sinusoids,
        configs={"marian": of_config},
        accepts=is_like,
        needs=", ".join(f"{name}={value}" for name, value in OPTIONS.items()),
        options=OPTIONS,
    ),
)
