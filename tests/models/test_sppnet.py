"""What the SPP-net paper promises."""

import keras
import numpy as np
import pytest

from kerasdl.layers.core import BatchNorm
from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.models.detection import sppnet


def test_zf5_and_its_pyramid():
    with keras.StatelessScope():
        model = sppnet.sppnet()
    kernels = [tuple(block.conv.kernel.shape) for block in model.backbone.blocks]
    assert kernels == [
        (7, 7, 3, 96),
        (5, 5, 96, 256),
        (3, 3, 256, 384),
        (3, 3, 384, 384),
        (3, 3, 384, 256),
    ]
    assert model.dense[0].kernel.shape == (50 * 256, 4096)  # bins of 1, 2, 3 and 6 a side
    norms = [block.local_norm for block in model.backbone.blocks]
    assert [isinstance(n, LocalResponseNorm) for n in norms] == [True, True, False, False, False]
    shape = (None, 224, 224, 3)
    for block in model.backbone.blocks:
        shape = block.compute_output_shape(shape)
    assert shape == (None, 14, 14, 256)
    with keras.StatelessScope():
        model = sppnet.sppnet_small()
    assert all(isinstance(block.batch_norm, BatchNorm) for block in model.backbone.blocks)


@pytest.mark.parametrize("pyramid", [(1, 2, 3, 6), (4,)])
def test_pyramid_pooling_is_a_plain_loop(pyramid, rng):
    small = {**sppnet.TINY["sppnet"], "pyramid": pyramid}
    model = sppnet.sppnet(**small)
    maps = rng.standard_normal((2, 4, 6, 8)).astype("float32")  # a quarter of 16x24 pixels
    low = rng.uniform(0, (9, 15), (2, 7, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 9, (2, 7, 2))], -1).astype("float32")
    boxes[0, 0] = (0, 0, 16, 24)
    result = np.asarray(model.pooled(maps, boxes))
    assert result.shape == (2, 7, 8 * sum(n**2 for n in pyramid))
    for image in range(2):
        for r, box in enumerate(boxes[image]):
            y0, x0, y1, x1 = np.floor(box / 4 + 0.5).astype(int)  # both ends are inside
            expected = []
            for n in pyramid:
                h, w = (y1 - y0 + 1) / n, (x1 - x0 + 1) / n
                for i in range(n):
                    for j in range(n):
                        rows = slice(y0 + int(np.floor(i * h)), y0 + int(np.ceil((i + 1) * h)))
                        columns = slice(x0 + int(np.floor(j * w)), x0 + int(np.ceil((j + 1) * w)))
                        part = maps[image, rows, columns]
                        expected.append(part.max((0, 1)) if part.size else np.zeros(8))
            np.testing.assert_allclose(result[image, r], np.concatenate(expected), rtol=1e-6)


def test_the_whole_image_is_pooled_on_every_level(rng):
    model = sppnet.sppnet(**sppnet.TINY["sppnet"])
    maps = rng.standard_normal((1, 4, 6, 8)).astype("float32")
    whole = np.array([[[0, 0, 16, 24]]], "float32")
    result = np.asarray(model.pooled(maps, whole))[0, 0]
    np.testing.assert_array_equal(result[:8], maps[0].max((0, 1)))  # the first level: one bin
