"""Boxes around objects, and their classes."""

from kerasdl.catalog.entry import Paper

BLIND = {
    "expected_zero_grad": (
        ("key/bias$", "adds the same to all scores of a query: softmax is blind to it"),
        ("decoder_block1/norm1/gamma$", "scales what the first block is given, which is 0"),
    )
}

PAPERS = (
    Paper(
        "detection.locate",
        "locate",
        "Sermanet et al. 2013",
        "https://arxiv.org/abs/1312.6229",
        {"locate_small": 1_070_094},
        "scenes:digits=1",
    ),
    Paper(
        "detection.faster_rcnn",
        "detect",
        "Ren et al. 2015",
        "https://arxiv.org/abs/1506.01497",
        {"faster_rcnn": 137_078_239, "faster_rcnn_small": 836_845},
        "scenes",
    ),
    Paper(
        "detection.yolo_v1",
        "detect",
        "Redmon et al. 2016",
        "https://arxiv.org/abs/1506.02640",
        {"yolo_v1": 271_703_550, "yolo_v1_small": 336_092},
        "scenes",
    ),
    Paper(
        "detection.detr",
        "detect",
        "Carion et al. 2020",
        "https://arxiv.org/abs/2005.12872",
        {"detr": 41_577_888, "detr_small": 960_959},
        "scenes",
        limits=BLIND,
    ),
)
