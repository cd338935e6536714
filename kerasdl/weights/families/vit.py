"""Vision Transformers as timm, transformers and the authors of DINOv2 name them.

Source: https://huggingface.co/docs/timm/models/vision-transformer,
        https://huggingface.co/docs/transformers/model_doc/vit and .../model_doc/dinov2, whose
        classifier sees the class token and the mean of the patches side by side,
        .../model_doc/vit_mae, whose decoder has its encoder's activation, epsilon and biases, and
        https://github.com/facebookresearch/dinov2.
"""

import re

import numpy as np

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable
from kerasdl.weights import image_facts
from kerasdl.weights.rename import Family, Rule, backbone_of, dense, norm

# Of timm's names: dim, depth, heads, units of the perceptron over dim
SIZES = {
    "tiny": (192, 12, 3, 4),
    "small": (384, 12, 6, 4),
    "medium": (512, 12, 8, 4),
    "base": (768, 12, 12, 4),
    "large": (1024, 24, 16, 4),
    "huge": (1280, 32, 16, 4),
    "giant": (1408, 40, 16, 48 / 11),
    "gigantic": (1664, 48, 16, 64 / 13),
}
GIANT = (1536, 40, 24, 2 * 2.66667)  # of DINOv2: gate and value are one kernel there
NAME = re.compile(
    rf"(vit|deit|deit3)_({'|'.join(SIZES)})_patch(\d+)(?:_(reg4))?_(?:(dinov2)|\d+(?:_in21k)?)"
)
KNOWN = (
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "proj_bias",
    "init_values",
    "class_token",
    "reg_tokens",
    "no_embed_class",
    "final_norm",
    "fc_norm",
    "act_layer",
)
MASK = "embeddings.mask_token"  # of training alone

OURS = "backbone/block{i+1}"


def _positions(theirs, model):
    """The rule of the positions of the model's grid and, if there are any, those before it."""
    before = model is None or backbone_of(model).tokens.positions_before
    ours = ("backbone/tokens/positions/grid", "backbone/tokens/positions/before")
    return Rule(theirs, ours if before else ours[:1], "grid")


def _qkv(theirs, block):
    """Rules of query, key and value apart, in that order, and our block's that has them as one."""
    return tuple(
        Rule(tuple(f"{name}.{kind}" for name in theirs), f"{block}/attention/qkv/{ours}", "join")
        for kind, ours in (("weight", "kernel"), ("bias", "bias"))
    )


def _gated(inner, outer):
    """Rules of a SwiGLU whose two inner kernels are one."""
    ours = f"{OURS}/mlp"
    return (
        Rule(f"{inner}.weight", (f"{ours}/gate/kernel", f"{ours}/up/kernel"), "apart"),
        Rule(f"{inner}.bias", (f"{ours}/gate/bias", f"{ours}/up/bias"), "apart"),
        *dense(outer, f"{ours}/down"),
    )


def timm(model):
    """Rules of timm's names, and of the files of DINOv2's authors."""
    block, tokens = "blocks.{i}", "backbone/tokens"
    return (
        Rule("cls_token", f"{tokens}/cls"),
        Rule("reg_token", f"{tokens}/registers"),
        Rule("register_tokens", f"{tokens}/registers"),
        _positions("pos_embed", model),
        *dense("patch_embed.proj", f"{tokens}/patches"),
        *norm(f"{block}.norm1", f"{OURS}/norm1"),
        *dense(f"{block}.attn.qkv", f"{OURS}/attention/qkv"),
        *dense(f"{block}.attn.proj", f"{OURS}/attention/project"),
        Rule(f"{block}.ls1.gamma", f"{OURS}/scale1/gamma"),
        *norm(f"{block}.norm2", f"{OURS}/norm2"),
        *dense(f"{block}.mlp.fc1", f"{OURS}/mlp/dense1"),
        *dense(f"{block}.mlp.fc2", f"{OURS}/mlp/dense2"),
        *_gated(f"{block}.mlp.fc1", f"{block}.mlp.fc2"),
        *_gated(f"{block}.mlp.w12", f"{block}.mlp.w3"),
        Rule(f"{block}.ls2.gamma", f"{OURS}/scale2/gamma"),
        *norm("norm", "backbone/norm"),
        *norm("fc_norm", "pool_norm"),
        *dense("head", "head"),
    )


def _embeddings(theirs, model):
    """Rules of the tokens in transformers' names."""
    tokens = "backbone/tokens"
    return (
        Rule(f"{theirs}.cls_token", f"{tokens}/cls"),
        Rule(f"{theirs}.register_tokens", f"{tokens}/registers"),
        _positions(f"{theirs}.position_embeddings", model),
        *dense(f"{theirs}.patch_embeddings.projection", f"{tokens}/patches"),
    )


def _attention(block, ours=OURS):
    """Rules of the published names of transformers, and of those of its later versions."""
    inner, later = f"{block}.attention.attention", f"{block}.attention"
    return (
        *_qkv((f"{inner}.query", f"{inner}.key", f"{inner}.value"), ours),
        *_qkv((f"{later}.q_proj", f"{later}.k_proj", f"{later}.v_proj"), ours),
        *dense(f"{block}.attention.output.dense", f"{ours}/attention/project"),
        *dense(f"{block}.attention.o_proj", f"{ours}/attention/project"),
    )


def _blocks(block, later, ours):
    """Rules of a ViT's blocks, of the published names and those of later versions."""
    return (
        *(
            rule
            for b in dict.fromkeys((block, later))
            for rule in (
                *norm(f"{b}.layernorm_before", f"{ours}/norm1"),
                *_attention(b, ours),
                *norm(f"{b}.layernorm_after", f"{ours}/norm2"),
            )
        ),
        *dense(f"{block}.intermediate.dense", f"{ours}/mlp/dense1"),
        *dense(f"{block}.output.dense", f"{ours}/mlp/dense2"),
        *dense(f"{later}.mlp.fc1", f"{ours}/mlp/dense1"),
        *dense(f"{later}.mlp.fc2", f"{ours}/mlp/dense2"),
    )


def vit_encoder(model):
    """Rules of a backbone as transformers' `ViTForImageClassification` has it."""
    return (
        *_embeddings("vit.embeddings", model),
        *_blocks("vit.encoder.layer.{i}", "vit.layers.{i}", OURS),
        *norm("vit.layernorm", "backbone/norm"),
    )


def vit(model):
    """Rules of transformers' `ViTForImageClassification`."""
    return *vit_encoder(model), *dense("classifier", "head")


def mae(model):
    """Rules of transformers' `ViTMAEForPreTraining`."""
    # The latter where transformers 5 writes a file
    blocks = "decoder.decoder_layers.{i}", "decoder.decoder_encoder.layer.{i}"
    positions = ("decoder/positions/grid", "decoder/positions/before")
    return (
        *vit_encoder(model),
        Rule("decoder.mask_token", "decoder/mask_token"),
        Rule("decoder.decoder_pos_embed", positions, "grid"),
        *dense("decoder.decoder_embed", "decoder/embed"),
        *(rule for one in blocks for rule in _blocks(one, one, "decoder/block{i+1}")),
        *norm("decoder.decoder_norm", "decoder/norm"),
        *dense("decoder.decoder_pred", "decoder/predict"),
    )


def dinov2(prefix):
    """The function that makes rules of transformers' DINOv2, with its prefix."""
    block = f"{prefix}encoder.layer.{{i}}"

    def rules(model):
        return (
            *_embeddings(f"{prefix}embeddings", model),
            *norm(f"{block}.norm1", f"{OURS}/norm1"),
            *_attention(block),
            Rule(f"{block}.layer_scale1.lambda1", f"{OURS}/scale1/gamma"),
            *norm(f"{block}.norm2", f"{OURS}/norm2"),
            *dense(f"{block}.mlp.fc1", f"{OURS}/mlp/dense1"),
            *dense(f"{block}.mlp.fc2", f"{OURS}/mlp/dense2"),
            *_gated(f"{block}.mlp.weights_in", f"{block}.mlp.weights_out"),
            Rule(f"{block}.layer_scale2.lambda1", f"{OURS}/scale2/gamma"),
            *norm(f"{prefix}layernorm", "backbone/norm"),
            *dense("classifier", "head"),
        )

    return rules


def _mask(prefix):
    """The function that makes the mask token, which transformers expects."""

    def written(arrays, model):
        return {prefix + MASK: np.zeros_like(arrays[f"{prefix}embeddings.cls_token"][0])}

    return written


def _has_usual_parts(backbone) -> bool:
    """Whether the patches have a bias and no norm before the blocks, and the perceptrons biases
    where what is behind the heads has."""
    block = backbone.blocks[0]
    return (
        backbone.pre_norm is None
        and backbone.tokens.patches.use_bias
        and (block.mlp.use_bias == block.attention.project_bias)
    )


def _is_timm(model) -> bool:
    backbone, tokens = backbone_of(model), backbone_of(model).tokens
    known = {0, int(tokens.class_token), tokens.before}
    return (
        getattr(model, "pooling", "cls") in ("cls", "mean")
        and _has_usual_parts(backbone)
        and tokens.positions_before in known
        and not (backbone.norm and getattr(model, "pool_norm", None))
    )


def _is_transformers(model, pooling, scaled, registers) -> bool:
    backbone, tokens = backbone_of(model), backbone_of(model).tokens
    block = backbone.blocks[0]
    return (
        getattr(model, "pooling", pooling) == pooling
        and getattr(model, "pool_norm", None) is None
        and backbone.norm is not None
        and tokens.class_token
        and tokens.positions_before == 1
        and registers == (tokens.before > 1)
        and scaled == (block.scale1 is not None)
        and (scaled or not backbone.gated)
        and block.attention.project_bias
        and _has_usual_parts(backbone)
    )


def _of_transformers(config, epsilon) -> dict:
    """Arguments of transformers' ViT and DINOv2 alike."""
    patch = image_facts.sides(config, "patch_size", 16)
    if patch[0] != patch[1]:
        raise UserError(f"{config.name}: patch_size is {patch}; here patches are square")
    return {
        "image_shape": (
            *image_facts.sides(config, "image_size", 224),
            config.get("num_channels", 3),
        ),
        "num_classes": image_facts.labels(config)[0],
        "patch_size": patch[0],
        "dim": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "drop_rate": config.get("hidden_dropout_prob", 0.0, float),
        "epsilon": config.get("layer_norm_eps", epsilon, float),
        "activation": config.activation("hidden_act"),
        "qkv_bias": config.get("qkv_bias", True),
    }


def _classifies(config, default) -> bool:
    """Whether it is the config of a classifier; `default` where it does not say."""
    names = config.get("architectures", [], list)
    return any("ImageClassification" in str(name) for name in names) if names else default


def of_vit(config):
    """The row and the arguments that a `config.json` of transformers' ViT stands for."""
    arguments = _of_transformers(config, 1e-12)
    if not _classifies(config, True):
        arguments["features"] = True
    return "vit_b16", {**arguments, "mlp_dim": config.get("intermediate_size", 3072)}


def of_mae(config):
    """Likewise of ViT MAE, whose `ViTMAEModel` is the encoder alone."""
    arguments = _of_transformers(config, 1e-12)
    del arguments["num_classes"]
    if config.get("architectures", [], list) == ["ViTMAEModel"]:
        arguments["features"] = True
    return "mae_b16", {
        **arguments,
        "mlp_dim": config.get("intermediate_size", 3072),
        "decoder_dim": config.get("decoder_hidden_size", 512),
        "decoder_depth": config.get("decoder_num_hidden_layers", 8),
        "decoder_heads": config.get("decoder_num_attention_heads", 16),
        "decoder_mlp_dim": config.get("decoder_intermediate_size", 2048),
        "mask_ratio": config.get("mask_ratio", 0.75, float),
        "norm_pix_loss": config.get("norm_pix_loss", False),
    }


def of_dinov2(config):
    """Likewise of DINOv2, without registers or with them."""
    arguments = _of_transformers(config, 1e-6)
    if not _classifies(config, False):
        arguments["features"] = True
    gated, units = config.get("use_swiglu_ffn", False), config.get("mlp_ratio", 4, float)
    units = int(arguments["dim"] * units)
    if gated:
        units = (int(units * 2 / 3) + 7) // 8 * 8
    registered = config.get("model_type", "dinov2") == "dinov2_with_registers"
    return "dinov2_s14", {
        **arguments,
        "mlp_dim": units,
        "gated": gated,
        "layer_scale": config.get("layerscale_value", 1.0, float),
        "drop_path": config.get("drop_path_rate", 0.0, float),
        "registers": config.get("num_register_tokens", 4) if registered else 0,
    }


def of_timm(config):
    """The row and the arguments that a `config.json` of timm stands for."""
    name = config.get("architecture", kind=str)
    match = NAME.fullmatch(name)
    if not match:
        raise UserError(
            f"{config.name}: architecture is {printable(name)[:80]}; of these it can only be "
            f"vit, deit or deit3, then {', '.join(SIZES)}, then _patchN_, then the image size or "
            "dinov2 or reg4_dinov2, as in vit_base_patch16_224"
        )
    kind, size, patch, registers, dino = match.groups()
    options = image_facts.check_options(config, KNOWN)
    gated = bool(dino and size == "giant")
    dim, depth, heads, ratio = GIANT if gated else SIZES[size]
    dim = options.get("embed_dim", dim)
    units = int(dim * options.get("mlp_ratio", ratio, float))
    scale = 1e-5 if dino else 1e-6 if kind == "deit3" else None
    class_token = options.get("class_token", True)
    embedded = not options.get("no_embed_class", kind == "deit3" or bool(registers))
    registers = options.get("reg_tokens", 4 if registers else 0)
    pooled = options.get("global_pool", config.get("global_pool", "token", str), str)
    if pooled not in ("token", "avg"):
        raise UserError(
            f"{config.name}: global_pool is {printable(pooled)[:80]}; "
            "here it can only be token, avg"
        )
    pool_norm = options.get("fc_norm", pooled == "avg", bool)
    arguments = {
        **image_facts.arguments_of_timm(config),
        "patch_size": options.get("patch_size", int(patch)),
        "dim": dim,
        "depth": options.get("depth", depth),
        "num_heads": options.get("num_heads", heads),
        "mlp_dim": units // 2 if gated else units,
        "gated": gated,
        "drop_rate": options.get("drop_rate", 0.0, float),
        "activation": options.activation("act_layer"),
        "qkv_bias": options.get("qkv_bias", True),
        "mlp_bias": options.get("proj_bias", True),
        "layer_scale": options.get("init_values", scale, float),
        "class_token": class_token,
        "registers": registers,
        "positions_before": int(class_token) + registers if embedded else 0,
        "final_norm": options.get("final_norm", True) and not pool_norm,
        "pooling": "cls" if pooled == "token" else "mean",
        "pool_norm": pool_norm,
    }
    return "vit_b16", arguments


def _dinov2(name, prefix, registers):
    return Family(
        name=f"transformers {name}",
        module="vision_transformer.vit",
        prefix=prefix,
        rules=dinov2(prefix),
        ignored=(rf"{re.escape(MASK)}$",),
        written=_mask(prefix),
        configs={prefix.removesuffix("."): of_dinov2},
        accepts=lambda model: _is_transformers(model, "cls_mean", True, registers),
    )


FAMILIES = (
    Family(
        name="timm ViT",
        module="vision_transformer.vit",
        rules=timm,
        ignored=(r"^mask_token$",),
        configs={"vit_*": of_timm, "deit_*": of_timm, "deit3_*": of_timm},
        accepts=_is_timm,
    ),
    Family(
        name="transformers ViT",
        module="vision_transformer.vit",
        prefix="vit.",
        rules=vit,
        ignored=(r"^decoder\.",),  # of a ViT MAE, whose encoder it is
        configs={"vit": of_vit},
        accepts=lambda model: _is_transformers(model, "cls", False, False),
    ),
    Family(
        name="transformers MAE",
        module="selfsupervised.mae",
        prefix="vit.",
        rules=mae,
        configs={"vit_mae": of_mae},
    ),
    _dinov2("DINOv2", "dinov2.", False),
    _dinov2("DINOv2 with registers", "dinov2_with_registers.", True),
)
