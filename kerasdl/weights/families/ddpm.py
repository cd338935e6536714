"""The U-Net of denoising diffusion as diffusers names it.

Its images are in [-1, 1] as ours are. Its timestep `t`, 0 to 999, is our time `(t + 1) / 1000`.

Source: https://huggingface.co/docs/diffusers/api/models/unet2d and the files google/ddpm-*, whose
        attention has names of earlier versions.
"""

from kerasdl.errors import UserError
from kerasdl.system.terminal import printable
from kerasdl.weights import image_facts
from kerasdl.weights.configs import MISSING
from kerasdl.weights.rename import Family, Rule, dense, norm

LEVELS = 8  # that files may have which are of no known model


def _res_block(theirs, ours):
    return (
        *norm(f"{theirs}.norm1", f"{ours}/norm1"),
        *dense(f"{theirs}.conv1", f"{ours}/conv1"),
        *dense(f"{theirs}.time_emb_proj", f"{ours}/time"),
        *norm(f"{theirs}.norm2", f"{ours}/norm2"),
        *dense(f"{theirs}.conv2", f"{ours}/conv2"),
        *dense(f"{theirs}.conv_shortcut", f"{ours}/project"),
    )


def _attention(theirs, ours):
    rules = [*norm(f"{theirs}.group_norm", f"{ours}/norm")]
    for names, last in (
        (("to_q", "to_k", "to_v"), "to_out.0"),
        (("query", "key", "value"), "proj_attn"),  # of earlier versions
    ):
        for kind, of_ours in (("weight", "kernel"), ("bias", "bias")):
            apart = tuple(f"{theirs}.{name}.{kind}" for name in names)
            rules.append(Rule(apart, f"{ours}/attention/qkv/{of_ours}", "join"))
        rules += dense(f"{theirs}.{last}", f"{ours}/attention/project")
    return rules


def rules(model):
    """Their way up counts from the smallest maps, so that its rules are of the number of levels."""
    levels = LEVELS if model is None else model.levels
    result = [
        *dense("conv_in", "stem"),
        *dense("time_embedding.linear_1", "time1"),
        *dense("time_embedding.linear_2", "time2"),
        *_res_block("mid_block.resnets.0", "middle1_block"),
        *_attention("mid_block.attentions.0", "middle1_attention"),
        *_res_block("mid_block.resnets.1", "middle2_block"),
        *norm("conv_norm_out", "norm"),
        *dense("conv_out", "head"),
    ]
    for level in range(levels):
        for theirs, way, sampler in (
            (f"down_blocks.{level}", f"down{level + 1}", "downsamplers"),
            (f"up_blocks.{levels - 1 - level}", f"up{level + 1}", "upsamplers"),
        ):
            result += [
                *_res_block(f"{theirs}.resnets.{{i}}", f"{way}_{{i+1}}_block"),
                *_attention(f"{theirs}.attentions.{{i}}", f"{way}_{{i+1}}_attention"),
                *dense(f"{theirs}.{sampler}.0.conv", f"{way}_sample"),
            ]
    return result


def _blocks(config, key, names) -> list:
    """Which levels have attention, of a list of block types."""
    values = config.get(key, kind=list)
    for value in values:
        if value not in names:
            raise UserError(
                f"{config.name}: {key} holds {printable(repr(value))[:80]}; "
                f"here it can only hold {', '.join(names)}"
            )
    return [value == names[1] for value in values]


def of_config(config):
    """The row and the arguments that a `config.json` of `UNet2DModel` stands for."""
    config.only(
        attention_head_dim=None,
        attn_norm_num_groups=None,
        add_attention=True,
        act_fn=("silu", "swish"),
        center_input_sample=False,
        class_embed_type=None,
        num_class_embeds=None,
        downsample_type="conv",
        upsample_type="conv",
        mid_block_type="UNetMidBlock2D",
        mid_block_scale_factor=(1, 1.0),
        resnet_time_scale_shift="default",
        time_embedding_type="positional",
    )
    # Without these, diffusers takes others than ours
    for key, ours in (("flip_sin_to_cos", False), ("freq_shift", 1), ("downsample_padding", 0)):
        if config.get(key, not ours if isinstance(ours, bool) else 1 - ours) != ours:
            raise UserError(
                f"{config.name}: {key} is not {ours} in its config; here it can only be {ours}"
            )
    down = _blocks(config, "down_block_types", ("DownBlock2D", "AttnDownBlock2D"))
    up = _blocks(config, "up_block_types", ("UpBlock2D", "AttnUpBlock2D"))
    widths = image_facts.sizes(config, "block_out_channels", MISSING)
    if up != down[::-1] or len(widths) != len(down):
        raise UserError(
            f"{config.name}: up_block_types and block_out_channels must be those of "
            "down_block_types in its config"
        )
    channels = config.get("in_channels", 3)
    if config.get("out_channels", channels) != channels:
        raise UserError(f"{config.name}: out_channels must be in_channels {channels} in its config")
    return "ddpm_unet", {
        "image_shape": (*image_facts.sides(config, "sample_size"), channels),
        "dim": widths[0],
        "widths": widths,
        "depth": config.get("layers_per_block", 2),
        "attention_levels": tuple(level for level, attends in enumerate(down) if attends),
        "drop_rate": config.get("dropout", 0.0, float),
        "groups": config.get("norm_num_groups", 32),
        "epsilon": config.get("norm_eps", 1e-5, float),
        "first_time": 0.0,
    }


FAMILIES = (
    Family(
        name="diffusers DDPM",
        module="generative.ddpm",
        rules=rules,
        configs={"UNet2DModel": of_config},
        accepts=lambda model: model.classes is None,
    ),
)
