"""DenseNets as torchvision and timm name them, and as torchvision's published files do.

Source: https://docs.pytorch.org/vision/stable/models/densenet.html; its files of 2017 have a dot
        more in the names of dense layers, `norm.1` for `norm1`.
"""

from kerasdl.weights import image_facts
from kerasdl.weights.rename import Family, Rule, backbone_of, batch_norm, count_batches, dense

LAYER, OURS = "features.denseblock{s}.denselayer{i}", "backbone/stage{s+1}_layer{i}"
# Theirs: our row, and what differs from it
NAMES = {f"densenet{n}": (f"densenet{n}", {}) for n in (121, 169, 201, 264)}
NAMES |= {f"tv_densenet{n}": NAMES[f"densenet{n}"] for n in (121, 169, 201)}
NAMES["densenet161"] = (
    "densenet121",
    {"depths": (6, 12, 36, 24), "growth_rate": 48, "stem_filters": 96},
)
OPTIONS = {"growth_rate": "growth_rate", "num_init_features": "stem_filters"}
OPTIONS["bn_size"] = "bottleneck"


def of_timm(config):
    """The row and the arguments that a `config.json` of timm stands for."""
    options = image_facts.check_options(config, ("block_config", *OPTIONS))
    row, arguments = NAMES[config.get("architecture", kind=str)]
    arguments = {**arguments, **image_facts.arguments_of_timm(config)}
    if depths := image_facts.sizes(options, "block_config"):
        arguments["depths"] = depths
    if growth := options.get("growth_rate", None, int):
        arguments["stem_filters"] = 2 * growth
    for theirs, ours in OPTIONS.items():
        if (value := options.get(theirs, None, int)) is not None:
            arguments[ours] = value
    return row, arguments | image_facts.drop_rate(options)


def rules_with(dot):
    """A function of the model that makes the rules, with a dot before numbers in dense layers."""

    def rules(model):
        last = 5 if model is None else len(backbone_of(model).depths) + 1
        return (
            Rule("features.conv0.weight", "backbone/stem/conv/kernel", "kernel"),
            *batch_norm("features.norm0", "backbone/stem/norm"),
            *batch_norm(f"{LAYER}.norm{dot}{{c}}", f"{OURS}/norm{{c}}"),
            Rule(f"{LAYER}.conv{dot}{{c}}.weight", f"{OURS}/conv{{c}}/kernel", "kernel"),
            *batch_norm("features.norm5", f"backbone/stage{last}_norm"),
            *batch_norm("features.transition{s}.norm", "backbone/stage{s+1}_norm"),
            Rule(
                "features.transition{s}.conv.weight",
                "backbone/stage{s+1}_transition/conv/kernel",
                "kernel",
            ),
            *dense("classifier", "head"),
        )

    return rules


FAMILIES = tuple(
    Family(
        name=name,
        module="cnn.densenet",
        rules=rules_with(dot),
        written=written,
        configs=configs,
        accepts=lambda model: not backbone_of(model).small,
        needs="small=False",
    )
    for name, dot, written, configs in (
        ("torchvision and timm DenseNet", "", count_batches, dict.fromkeys(NAMES, of_timm)),
        ("torchvision DenseNet of 2017", ".", None, {}),
    )
)
