"""ResNets as torchvision and timm, and as transformers, name them.

Source: https://docs.pytorch.org/vision/stable/models/resnet.html,
        https://huggingface.co/docs/timm/models/resnet and
        https://huggingface.co/docs/transformers/model_doc/resnet.
"""

from kerasdl.errors import UserError
from kerasdl.weights import image_facts
from kerasdl.weights.rename import Family, Rule, backbone_of, batch_norm, dense

BLOCK, OURS = "layer{s}.{b}", "backbone/stage{s+1}_block{b+1}"
# Theirs: our row
ROWS = {f"resnet{n}": f"resnet{n}" for n in (18, 34, 50, 101, 152)}
NAMES = {
    **ROWS,
    **{f"tv_{name}": row for name, row in ROWS.items()},
    **{f"gluon_{name}_v1b": row for name, row in ROWS.items()},
    "resnet26": "resnet50",
}
SMALLEST = {"basic": "resnet18", "bottleneck": "resnet50"}
TRANSFORMERS = {
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
DEPTHS = {"resnet26": (2, 2, 2, 2)}


def conv_norm(conv, norm, ours):
    """Rules of a `ConvNorm`."""
    return Rule(f"{conv}.weight", f"{ours}/conv/kernel", "kernel"), *batch_norm(
        norm, f"{ours}/norm"
    )


def of_timm(config):
    """The row and the arguments that a `config.json` of timm stands for."""
    options = image_facts.check_options(config, ("layers", "channels"))
    name = config.get("architecture", kind=str)
    arguments = image_facts.arguments_of_timm(config)
    if NAMES[name] not in ("resnet18", "resnet34"):
        arguments["stride_in_3x3"] = True
    if depths := image_facts.sizes(options, "layers", DEPTHS.get(name)):
        arguments["depths"] = depths
    if filters := image_facts.sizes(options, "channels"):
        arguments |= {"filters": filters, "stem_filters": 64}
    return NAMES[name], arguments | image_facts.drop_rate(options)


def of_transformers(config):
    """The row and the arguments that a `config.json` of transformers stands for."""
    config.only(
        layer_type=("bottleneck", "basic"),
        hidden_act="relu",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=(False, True),
    )
    block = config.get("layer_type", "bottleneck")
    widths = image_facts.sizes(config, "hidden_sizes", (256, 512, 1024, 2048))
    depths = image_facts.sizes(config, "depths", (3, 4, 6, 3))
    if len(depths) != len(widths):
        raise UserError(f"{config.name}: depths of {len(depths)} stages, widths of {len(widths)}")
    if block == "bottleneck":
        if odd := [w for w in widths if w % 4]:
            raise UserError(f"{config.name}: hidden_sizes must be multiples of 4, not {odd[0]}")
        widths = tuple(w // 4 for w in widths)
    side, channels = config.get("image_size", None, int), config.get("num_channels", 3)
    # Without a size it is that of the images' own file
    shape = {"image_shape": (side or 224,) * 2 + (channels,)} if side or channels != 3 else {}
    return TRANSFORMERS.get((block, depths), SMALLEST[block]), {
        **shape,
        "num_classes": image_facts.labels(config)[0],
        "depths": depths,
        "block": block,
        "filters": widths,
        "stem_filters": config.get("embedding_size", 64),
        "stride_in_3x3": not config.get("downsample_in_bottleneck", False),
    }


def _is_large(model):
    """Whether it has the stem of ImageNet, which the small ones of CIFAR lack."""
    return not backbone_of(model).small


def _is_torchvision(model):
    """Their bottlenecks have the stride in the 3x3 convolution."""
    return _is_large(model) and not backbone_of(model).strides_in_1x1


LAYERS = "resnet.encoder.stages.{s}.layers.{b}"
THERE = "backbone/stage{s+2}_block{b+1}"
FAMILIES = (
    Family(
        name="torchvision and timm ResNet",
        module="cnn.resnet",
        rules=(
            *conv_norm("conv1", "bn1", "backbone/stem"),
            *conv_norm(f"{BLOCK}.conv{{c}}", f"{BLOCK}.bn{{c}}", f"{OURS}/conv{{c}}"),
            *conv_norm(f"{BLOCK}.downsample.0", f"{BLOCK}.downsample.1", f"{OURS}/project"),
            *dense("fc", "head"),
        ),
        configs=dict.fromkeys(NAMES, of_timm),
        accepts=_is_torchvision,
        needs="small=False and, of bottlenecks, stride_in_3x3=True",
        options={"stride_in_3x3": True},
    ),
    Family(
        name="transformers ResNet",
        module="cnn.resnet",
        prefix="resnet.",
        rules=(
            *conv_norm(
                "resnet.embedder.embedder.convolution",
                "resnet.embedder.embedder.normalization",
                "backbone/stem",
            ),
            *conv_norm(
                f"{LAYERS}.layer.{{c}}.convolution",
                f"{LAYERS}.layer.{{c}}.normalization",
                f"{THERE}/conv{{c+1}}",
            ),
            *conv_norm(
                f"{LAYERS}.shortcut.convolution",
                f"{LAYERS}.shortcut.normalization",
                f"{THERE}/project",
            ),
            *dense("classifier.1", "head"),
        ),
        configs={"resnet": of_transformers},
        accepts=_is_large,
        needs="small=False",
    ),
)
