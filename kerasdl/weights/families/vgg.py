"""VGGs as timm and as torchvision name them.

Source: https://docs.pytorch.org/vision/stable/models/vgg.html and
        https://huggingface.co/docs/timm/models; timm has the paper's dense layers as convolutions,
        torchvision as dense layers over a flattened 7x7 map.
"""

from kerasdl.weights import image_facts
from kerasdl.weights.rename import Family, Rule, backbone_of, batch_norm, dense

NAMES = tuple(f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn"))


def of_timm(config):
    """The row and the arguments that a `config.json` of timm stands for."""
    options = image_facts.check_options(config)
    arguments = image_facts.arguments_of_timm(config)
    return config.get("architecture", kind=str), arguments | image_facts.drop_rate(options)


def features(model) -> list:
    """Rules of the convolutions: theirs are numbered together with norms, ReLUs and poolings."""
    if model is None:
        return [*dense("features.{i}", "backbone/{i}"), *batch_norm("features.{i}", "backbone/{i}")]
    backbone = backbone_of(model)
    rules, number, blocks = [], 0, iter(backbone.blocks)
    for depth in backbone.depths:
        for _ in range(depth):
            block = next(blocks)
            ours = f"backbone/{block.name}"
            rules += dense(f"features.{number}", f"{ours}/conv")
            if block.norm is not None:
                number += 1
                rules += batch_norm(f"features.{number}", f"{ours}/norm")
            number += 2  # ReLU
        number += 1  # pooling
    return rules


def of_torchvision(model):
    """Rules of torchvision's names."""
    layers = []
    for number, ours in ((0, "fc1"), (3, "fc2")):
        layers.append(Rule(f"classifier.{number}.weight", f"{ours}/kernel", "flattened"))
        layers.append(Rule(f"classifier.{number}.bias", f"{ours}/bias"))
    return *features(model), *layers, *dense("classifier.6", "head")


FAMILIES = (
    Family(
        name="timm VGG",
        module="cnn.vgg",
        rules=lambda model: (
            *features(model),
            *dense("pre_logits.fc{i}", "fc{i}"),
            *dense("head.fc", "head"),
        ),
        configs=dict.fromkeys(NAMES, of_timm),
    ),
    Family(
        name="torchvision VGG",
        module="cnn.vgg",
        rules=of_torchvision,
        # A map of another size it pools to 7x7 first
        accepts=lambda model: not hasattr(model, "fc1") or model.backbone.last_map() == (7, 7),
        needs="images whose last map is 7x7, as that of 224x224 pixels is",
    ),
)
