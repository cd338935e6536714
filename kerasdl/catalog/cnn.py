"""Linear and convolutional classifiers."""

from kerasdl.catalog.entry import Paper

VGG = "https://arxiv.org/abs/1409.1556"
NORMED_BIAS = {
    "expected_zero_grad": (
        ("conv[0-9]/conv/bias$", "batch norm takes the mean of its channel away"),
    )
}

PAPERS = (
    Paper(
        "cnn.linear",
        "classify",
        "Weston and Watkins 1999",
        "https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf",
        {"linear": 30_730},
    ),
    Paper(
        "cnn.mlp",
        "classify",
        "Rumelhart et al. 1986",
        "https://doi.org/10.1038/323533a0",
        {"mlp": 855_050},
    ),
    Paper(
        "cnn.lenet",
        "classify",
        "LeCun et al. 1998",
        "https://doi.org/10.1109/5.726791",
        {"lenet5": 61_706, "lenet5_1998": 60_000},
        image_sizes={"lenet5": 32, "lenet5_1998": 32},
    ),
    Paper(
        "cnn.alexnet",
        "classify",
        "Krizhevsky et al. 2012",
        "https://papers.nips.cc/paper/4824",
        {"alexnet": 60_965_224, "alexnet_small": 570_698},
        image_sizes={"alexnet": 96, "alexnet_small": 16},
    ),
    Paper(
        "cnn.nin",
        "classify",
        "Lin et al. 2013",
        "https://arxiv.org/abs/1312.4400",
        {"nin": 966_986, "nin_small": 111_338},
    ),
    Paper(
        "cnn.plain",
        "classify",
        "He et al. 2015",
        "https://arxiv.org/abs/1512.03385",
        {"plain": 75_290},
    ),
    Paper(
        "cnn.resnet",
        "classify",
        "He et al. 2015",
        "https://arxiv.org/abs/1512.03385",
        {
            "resnet18": 11_689_512,
            "resnet34": 21_797_672,
            "resnet50": 25_557_032,
            "resnet101": 44_549_160,
            "resnet152": 60_192_808,
            "resnet20": 269_722,
            "resnet32": 464_154,
            "resnet44": 658_586,
            "resnet56": 853_018,
            "resnet110": 1_727_962,
        },
        image_sizes={f"resnet{n}": 32 for n in (18, 34, 50, 101, 152)},
    ),
    Paper(
        "cnn.resnet_v2",
        "classify",
        "He et al. 2016",
        "https://arxiv.org/abs/1603.05027",
        {
            "resnet18v2": 11_687_720,
            "resnet34v2": 21_795_880,
            "resnet50v2": 25_549_352,
            "resnet101v2": 44_541_480,
            "resnet152v2": 60_185_128,
            "resnet20v2": 269_722,
            "resnet110v2": 1_727_962,
            "resnet164v2": 1_703_258,
        },
        image_sizes={f"resnet{n}v2": 32 for n in (18, 34, 50, 101, 152)},
    ),
    Paper(
        "cnn.bit",
        "classify",
        "Kolesnikov et al. 2020",
        "https://arxiv.org/abs/1912.11370",
        {"bit_r50x1": 25_549_352, "bit_r101x1": 44_541_480},
        image_sizes={"bit_r50x1": 32, "bit_r101x1": 32},
    ),
    Paper(
        "cnn.densenet",
        "classify",
        "Huang et al. 2016",
        "https://arxiv.org/abs/1608.06993",
        {
            "densenet121": 7_978_856,
            "densenet169": 14_149_480,
            "densenet201": 20_013_928,
            "densenet264": 33_337_704,
            "densenet_bc_100_12": 769_162,
            "densenet_bc_40_12": 176_122,
        },
        image_sizes={f"densenet{n}": 32 for n in (121, 169, 201, 264)},
    ),
    Paper(
        "cnn.vgg",
        "classify",
        "Simonyan and Zisserman 2014",
        VGG,
        {
            "vgg11": 132_863_336,
            "vgg13": 133_047_848,
            "vgg16": 138_357_544,
            "vgg19": 143_667_240,
        },
        image_sizes={f"vgg{n}": 32 for n in (11, 13, 16, 19)},
    ),
    Paper(
        "cnn.vgg",
        "classify",
        "Simonyan and Zisserman 2014",
        VGG,
        {
            "vgg11_bn": 132_868_840,
            "vgg13_bn": 133_053_736,
            "vgg16_bn": 138_365_992,
            "vgg19_bn": 143_678_248,
            "vgg_small": 567_978,
        },
        image_sizes={f"vgg{n}_bn": 32 for n in (11, 13, 16, 19)},
        limits=NORMED_BIAS,
    ),
    Paper(
        "cnn.googlenet",
        "classify",
        "Szegedy et al. 2014",
        "https://arxiv.org/abs/1409.4842",
        {"googlenet": 13_378_280, "googlenet_small": 206_370},
        image_sizes={"googlenet": 96},
    ),
    Paper(
        "cnn.ensemble",
        "classify",
        "Hansen and Salamon 1990",
        "https://doi.org/10.1109/34.58871",
        {"ensemble": 1_348_610},
    ),
)
