"""A class for every pixel."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "segmentation.fcn",
        "segment",
        "Long et al. 2015",
        "https://arxiv.org/abs/1411.4038",
        {
            "fcn32s": 134_346_581,
            "fcn16s": 134_364_410,
            "fcn8s": 134_376_863,
            "fcn32s_small": 277_243,
            "fcn16s_small": 273_734,
            "fcn8s_small": 273_921,
        },
        "scenes",
    ),
    Paper(
        "segmentation.unet",
        "segment",
        "Ronneberger et al. 2015",
        "https://arxiv.org/abs/1505.04597",
        {"unet": 31_030_658, "unet_small": 482_619},
        "scenes",
        image_sizes={"unet": 284},
    ),
    Paper(
        "segmentation.segnet",
        "segment",
        "Badrinarayanan et al. 2015",
        "https://arxiv.org/abs/1511.00561",
        {"segnet": 29_441_419, "segnet_small": 219_339},
        "scenes",
    ),
    Paper(
        "segmentation.dilated",
        "segment",
        "Yu and Koltun 2015",
        "https://arxiv.org/abs/1511.07122",
        {"dilated": 134_374_973, "dilated_large": 141_149_720, "dilated_small": 121_515},
        "scenes",
        image_sizes={"dilated": 200, "dilated_large": 200},
    ),
)
