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
)
