"""CLIP as transformers names it.

Source: https://huggingface.co/docs/transformers/model_doc/clip; the norm before the blocks is
        spelt so there.
"""

from kerasdl.errors import UserError
from kerasdl.weights import image_facts
from kerasdl.weights.configs import Config
from kerasdl.weights.rename import Family, Rule, dense, norm

VISION, TEXT = "vision_model", "text_model"
WRONG_END = 2  # of earlier configs: not the end, which is the last of the ids
TEXT_DEFAULTS = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}


def _blocks(theirs, ours):
    """Rules of the blocks of both towers."""
    theirs, names = f"{theirs}.encoder.layers.{{i}}", ("q_proj", "k_proj", "v_proj")
    kinds = {"weight": "kernel", "bias": "bias"}
    return (
        *norm(f"{theirs}.layer_norm1", f"{ours}/norm1"),
        *(
            Rule(
                tuple(f"{theirs}.self_attn.{name}.{end}" for name in names),
                f"{ours}/attention/qkv/{kind}",
                "join",
            )
            for end, kind in kinds.items()
        ),
        *dense(f"{theirs}.self_attn.out_proj", f"{ours}/attention/project"),
        *norm(f"{theirs}.layer_norm2", f"{ours}/norm2"),
        *dense(f"{theirs}.mlp.fc1", f"{ours}/mlp/dense1"),
        *dense(f"{theirs}.mlp.fc2", f"{ours}/mlp/dense2"),
    )


def rules():
    """The rules of `CLIPModel`."""
    embeddings, tokens = f"{VISION}.embeddings", "backbone/tokens"
    positions = (f"{tokens}/positions/grid", f"{tokens}/positions/before")
    return (
        Rule("logit_scale", "logit_scale"),
        Rule(f"{embeddings}.class_embedding", f"{tokens}/cls", "token"),
        Rule(f"{embeddings}.position_embedding.weight", positions, "flat_grid"),
        Rule(f"{embeddings}.patch_embedding.weight", f"{tokens}/patches/kernel", "kernel"),
        *norm(f"{VISION}.pre_layrnorm", "backbone/pre_norm"),
        *_blocks(VISION, "backbone/block{i+1}"),
        *norm(f"{VISION}.post_layernorm", "backbone/norm"),
        Rule("visual_projection.weight", "visual_projection/kernel", "kernel"),
        Rule(f"{TEXT}.embeddings.token_embedding.weight", "text/embedding/table"),
        Rule(f"{TEXT}.embeddings.position_embedding.weight", "text/positions/table"),
        *_blocks(TEXT, "text/block{i+1}"),
        *norm(f"{TEXT}.final_layer_norm", "text/norm"),
        Rule("text_projection.weight", "text_projection/kernel", "kernel"),
    )


def accepts(model) -> bool:
    """Whether its tower of images is such a ViT."""
    backbone = model.backbone
    if getattr(backbone, "pre_norm", None) is None:  # no ViT
        return False
    block, tokens = backbone.blocks[0], backbone.tokens
    return (
        backbone.norm is not None
        and not backbone.gated
        and not tokens.patches.use_bias
        and not tokens.fixed_positions
        and tokens.class_token
        and (tokens.before, tokens.positions_before) == (1, 1)
        and block.scale1 is None
        and (block.attention.use_bias, block.attention.project_bias) == (True, True)
        and block.mlp.use_bias
    )


def _part(config, name) -> Config:
    """The config of one tower; what `<name>_dict` says counts more, as in transformers."""
    values = config.get(f"{name}_dict", None, dict)
    values = config.get(name, {}, dict) if values is None else values
    part = Config(f"{config.name}: {name}", values)
    part.only(attention_dropout=(0.0, 0), dropout=(0.0, 0))
    return part


def text_config(config) -> Config:
    """The config of the tower of texts, with the ids that begin and end one.

    Earlier files say that 2 is the end: there it is the last id, and the beginning the one before.

    Args:
        config: The `Config` of a `config.json`.
    """
    part = _part(config, "text_config")
    values = TEXT_DEFAULTS | part.values
    part = Config(part.name, values)
    if part.get("eos_token_id", kind=int) == WRONG_END:
        size = part.get("vocab_size", kind=int)
        own = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
        part = Config(part.name, values | own)
    return part


def of_config(config):
    """The row and the arguments that a CLIP `config.json` stands for."""
    config.only(quantization_config=None)
    vision, text = _part(config, "vision_config"), text_config(config)
    patch = image_facts.sides(vision, "patch_size", 32)
    if patch[0] != patch[1]:
        raise UserError(f"{vision.name}: patch_size is {patch}; here patches are square")
    old = _part(config, "text_config").values.get("eos_token_id") == WRONG_END
    return "clip_b32", {
        "image_shape": (
            *image_facts.sides(vision, "image_size", 224),
            vision.get("num_channels", 3),
        ),
        "vocab_size": text.get("vocab_size", kind=int),
        "max_length": text.get("max_position_embeddings", 77),
        "projection_dim": config.get("projection_dim", 512),
        "text_dim": text.get("hidden_size", 512),
        "text_depth": text.get("num_hidden_layers", 12),
        "text_heads": text.get("num_attention_heads", 8),
        "text_mlp_dim": text.get("intermediate_size", 2048),
        "text_activation": text.activation("hidden_act", "quick_gelu"),
        "text_epsilon": float(text.get("layer_norm_eps", 1e-5, float)),
        "eos_id": None if old else text.get("eos_token_id", kind=int),
        "patch_size": patch[0],
        "dim": vision.get("hidden_size", 768),
        "depth": vision.get("num_hidden_layers", 12),
        "num_heads": vision.get("num_attention_heads", 12),
        "mlp_dim": vision.get("intermediate_size", 3072),
        "activation": vision.activation("hidden_act", "quick_gelu"),
        "epsilon": float(vision.get("layer_norm_eps", 1e-5, float)),
    }


FAMILIES = (
    Family(
        name="transformers CLIP",
        module="multimodal.clip",
        rules=rules(),
        ignored=(r"embeddings\.position_ids$",),
        configs={"clip": of_config},
        accepts=accepts,
        needs="a ViT with a norm before its blocks and patches without bias",
    ),
)
