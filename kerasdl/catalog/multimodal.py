"""Models of images and texts."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "multimodal.clip",
        "contrast_texts",
        "Radford et al. 2021",
        "https://arxiv.org/abs/2103.00020",
        {"clip_b32": 151_277_313, "clip_small": 454_241},
        dataset="scenes:digits=2",
        image_sizes={"clip_b32": 224},
    ),
)
