"""ResNets v2 and BiT as timm names them.

Source: https://huggingface.co/docs/timm/models; kernels of BiT are stored as they are before they
        are standardized.
"""

from kerasdl.weights import image_facts
from kerasdl.weights.rename import Family, Rule, backbone_of, batch_norm

BLOCK, OURS = "stages.{s}.blocks.{b}", "backbone/stage{s+2}_block{b+1}"
# Theirs: our row
PLAIN = {f"resnetv2_{n}": f"resnet{n}v2" for n in (18, 34, 50, 101, 152)}
BIT = {f"resnetv2_{n}_bit": "bit_r50x1" for n in ("50x1", "50x3")}
BIT |= {f"resnetv2_{n}_bit": "bit_r101x1" for n in ("101x1", "101x3", "152x2", "152x4")}
ROWS = {**PLAIN, **BIT}
BASIC = ("resnetv2_18", "resnetv2_34")
WIDTHS = {True: (64, 128, 256, 512), False: (256, 512, 1024, 2048)}
KNOWN = ("layers", "channels", "stem_chs", "width_factor", "bottle_ratio", "basic", "stem_type")


def divisible(value) -> int:
    """The multiple of 8 next to a number of channels, and no tenth below it.

    Source: `make_divisible` of timm.
    """
    result = max(8, int(value + 4) // 8 * 8)
    return result if result >= 0.9 * value else result + 8


def of_timm(config):
    """The row and the arguments that a `config.json` of timm stands for."""
    options = image_facts.check_options(config, KNOWN)
    options.only(stem_type=("", "fixed", None))
    name = config.get("architecture", kind=str)
    factor = int(name.removesuffix("_bit").rpartition("x")[2] or 1) if name in BIT else 1
    basic = options.get("basic", name in BASIC)
    factor = options.get("width_factor", factor, (int, float))
    widths = image_facts.sizes(options, "channels", WIDTHS[name in BASIC])
    widths = tuple(divisible(w * factor) for w in widths)
    ratio = options.get("bottle_ratio", 1.0 if name in BASIC else 0.25, float)
    arguments = {
        **image_facts.arguments_of_timm(config),
        "filters": widths,
        "stem_filters": divisible(options.get("stem_chs", 64) * factor),
        "bottleneck": not basic,
        "pads_with_zeros": options.get("stem_type", "fixed" if name in BIT else "") == "fixed",
    }
    if basic:
        options.only(bottle_ratio=(1.0, 1, None))
    else:
        inner = tuple(divisible(w * ratio) for w in widths)
        arguments |= {"inner": inner, "stride_in_3x3": True, "projects_first": True}
    deeper = (3, 8, 36, 3) if name.startswith("resnetv2_152x") else None  # no row of its own
    if depths := image_facts.sizes(options, "layers", deeper):
        arguments["depths"] = depths
    return ROWS[name], arguments | image_facts.drop_rate(options)


def _accepts(model):
    backbone = backbone_of(model)
    return not (backbone.small or backbone.strides_in_1x1)


FAMILIES = (
    Family(
        name="timm ResNet v2",
        module="cnn.resnet_v2",
        rules=(
            Rule("stem.conv.weight", "backbone/stem/kernel", "kernel"),
            Rule(f"{BLOCK}.conv{{c}}.weight", f"{OURS}/conv{{c}}/kernel", "kernel"),
            *batch_norm(f"{BLOCK}.norm{{c}}", f"{OURS}/norm{{c}}"),
            Rule(f"{BLOCK}.downsample.conv.weight", f"{OURS}/project/kernel", "kernel"),
            *batch_norm("norm", "backbone/norm"),
            Rule("head.fc.weight", "head/kernel", "pointwise"),
            Rule("head.fc.bias", "head/bias"),
        ),
        configs=dict.fromkeys(ROWS, of_timm),
        accepts=_accepts,
        needs="small=False and, of bottlenecks, stride_in_3x3=True",
        options={"stride_in_3x3": True},
    ),
)
