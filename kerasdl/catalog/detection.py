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
        "detection.rcnn",
        "detect_proposals",
        "Girshick et al. 2014",
        "https://arxiv.org/abs/1311.2524",
        {"rcnn": 57_298_409, "rcnn_small": 118_455},
        "scenes",
    ),
    Paper(
        "detection.sppnet",
        "detect_proposals",
        "He et al. 2014",
        "https://arxiv.org/abs/1406.4729",
        {"sppnet": 73_370_857, "sppnet_small": 1_188_871},
        "scenes",
    ),
    Paper(
        "detection.fast_rcnn",
        "detect_proposals",
        "Girshick 2015",
        "https://arxiv.org/abs/1504.08083",
        {"fast_rcnn": 134_690_729, "fast_rcnn_small": 748_567},
        "scenes",
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
        "detection.fpn",
        "detect",
        "Lin et al. 2017",
        "https://arxiv.org/abs/1612.03144",
        {"faster_rcnn_fpn": 41_808_406},
        "scenes",
    ),
    Paper(
        "detection.mask_rcnn",
        "detect_masks",
        "He et al. 2017",
        "https://arxiv.org/abs/1703.06870",
        {"mask_rcnn": 44_454_513, "mask_rcnn_small": 542_777},
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
