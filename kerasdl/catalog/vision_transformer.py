"""Transformers on image patches."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "vision_transformer.vit",
        "classify",
        "Dosovitskiy et al. 2020",
        "https://arxiv.org/abs/2010.11929",
        {
            "vit_ti16": 5_717_416,
            "vit_s16": 22_050_664,
            "vit_b16": 86_567_656,
            "vit_l16": 304_326_632,
            "vit_digits": 136_138,
        },
        image_sizes={f"vit_{size}16": 32 for size in ("ti", "s", "b", "l")},
    ),
    Paper(
        "vision_transformer.vit",
        "classify",
        "Oquab et al. 2023",
        "https://arxiv.org/abs/2304.07193",
        {"dinov2_s14": 22_397_800},
        image_sizes={"dinov2_s14": 28},
    ),
)
