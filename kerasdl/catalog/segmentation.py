"""A class for every pixel."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "segmentation.unet",
        "segment",
        "Ronneberger et al. 2015",
        "https://arxiv.org/abs/1505.04597",
        {"unet_small": 482_619},
        "scenes",
    ),
)
