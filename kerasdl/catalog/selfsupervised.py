"""Representations learned without labels."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "selfsupervised.simclr",
        "contrast",
        "Chen et al. 2020",
        "https://arxiv.org/abs/2002.05709",
        {"simclr_small": 277_392},
    ),
    Paper(
        "selfsupervised.mae",
        "masked_patches",
        "He et al. 2021",
        "https://arxiv.org/abs/2111.06377",
        {"mae_b16": 111_655_680, "mae_small": 175_780},
    ),
)
