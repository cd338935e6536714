"""Representations learned without labels."""

from kerasdl.catalog.entry import Paper

PAPERS = (
    Paper(
        "selfsupervised.simclr",
        "contrast",
        "Chen et al. 2020",
        "https://arxiv.org/abs/2002.05709",
        {"simclr_small": 277_392, "simclr": 27_966_656},
    ),
    Paper(
        "selfsupervised.rotnet",
        "rotate",
        "Gidaris et al. 2018",
        "https://arxiv.org/abs/1803.07728",
        {"rotnet": 1_411_140, "rotnet_small": 48_748},
        dataset="scenes:digits=1",
        image_sizes={"rotnet_small": 24},
    ),
    Paper(
        "selfsupervised.relative_patches",
        "place_tiles",
        "Doersch et al. 2015",
        "https://arxiv.org/abs/1505.05192",
        {"relative_patches_small": 116_888},
        dataset="photos:size=64",
    ),
    Paper(
        "selfsupervised.jigsaw",
        "jigsaw",
        "Noroozi and Favaro 2016",
        "https://arxiv.org/abs/1603.09246",
        {"jigsaw": 43_697_792, "jigsaw_small": 242_960},
        dataset="photos",
    ),
    Paper(
        "selfsupervised.context_encoder",
        "inpaint",
        "Pathak et al. 2016",
        "https://arxiv.org/abs/1604.07379",
        {"context_encoder": 8_742_276, "context_encoder_small": 353_732},
        image_sizes={"context_encoder": 128, "context_encoder_small": 16},
        limits={
            "expected_zero_grad": (
                (
                    "(stage|/block)[2-9](_block1)?/conv/bias$|decoder/(mix|up[1-9])/bias$",
                    "batch norm takes the mean of its channel away",
                ),
            )
        },
    ),
    Paper(
        "selfsupervised.colorization",
        "colorize",
        "Zhang et al. 2016",
        "https://arxiv.org/abs/1603.08511",
        {"colorization": 32_235_385, "colorization_small": 136_265},
        dataset="photos",
        image_sizes={"colorization_small": 16},
    ),
    Paper(
        "selfsupervised.split_brain",
        "colorize",
        "Zhang et al. 2017",
        "https://arxiv.org/abs/1611.09842",
        {"split_brain": 1_927_565, "split_brain_small": 51_189},
        dataset="photos",
        image_sizes={"split_brain": 227, "split_brain_small": 16},
    ),
    Paper(
        "selfsupervised.mae",
        "masked_patches",
        "He et al. 2021",
        "https://arxiv.org/abs/2111.06377",
        {"mae_b16": 111_655_680, "mae_small": 175_780},
    ),
    Paper(
        "selfsupervised.moco",
        "momentum_contrast",
        "Chen et al. 2020",
        "https://arxiv.org/abs/2003.04297",
        {"moco_small": 277_392, "moco_v2": 27_966_656},
    ),
    Paper(
        "selfsupervised.moco",
        "momentum_contrast",
        "He et al. 2019",
        "https://arxiv.org/abs/1911.05722",
        {"moco_v1": 23_770_304},
    ),
    Paper(
        "selfsupervised.byol",
        "bootstrap",
        "Grill et al. 2020",
        "https://arxiv.org/abs/2006.07733",
        {"byol_small": 335_632, "byol": 35_058_752},
    ),
    Paper(
        "selfsupervised.dino",
        "self_distillation",
        "Caron et al. 2021",
        "https://arxiv.org/abs/2104.14294",
        {"dino_small": 251_264, "dino_s16": 43_952_256},
        limits={
            "expected_zero_grad": (
                (r"^dino_\w+/head/(prototypes|scale)$", "frozen in the first epoch"),
                (r"^dino_small/backbone/norm/beta$", "batch norm of the head takes it away"),
            )
        },
    ),
    Paper(
        "selfsupervised.cpc",
        "predict_patches",
        "Henaff et al. 2019",
        "https://arxiv.org/abs/1905.09272",
        {"cpc_small": 36_528, "cpc": 32_194_176},
        image_sizes={"cpc": 256},
    ),
    Paper(
        "selfsupervised.cpc",
        "predict_patches",
        "van den Oord et al. 2018",
        "https://arxiv.org/abs/1807.03748",
        {"cpc_rows": 42_176},
        dataset="digit_rows",
    ),
)
