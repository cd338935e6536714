"""What the SegNet paper promises."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.models.segmentation import segnet
from kerasdl.ops.pooling import bed_of_nails, max_pool_with_indices, max_unpool

GOLDEN = Path(__file__).parents[1] / "goldens" / "torch_pieces.npz"
CASES = [
    ("x", "k2s2p0d1", "k2s2", (10, 14)),
    ("odd", None, "odd_k2s2_size11x13", (11, 13)),
]


@pytest.fixture(scope="module")
def golden():
    """torch's, with the channels last."""
    with np.load(GOLDEN) as arrays:
        pooling = [
            name for name in arrays.files if name.split("/")[1] in ("x", "odd") or "pool" in name
        ]
        return {name: np.moveaxis(arrays[name], 1, -1) for name in pooling}


@pytest.mark.parametrize(("given", "pooled", "unpooled", "size"), CASES)
def test_equals_torch(golden, given, pooled, unpooled, size):
    values, places = max_pool_with_indices(golden[f"inputs/{given}"])
    if pooled:
        np.testing.assert_array_equal(values, golden[f"outputs/max_pool/{pooled}"])
        # torch's are places in the whole map
        rows, columns = np.mgrid[: size[0] // 2, : size[1] // 2][..., None]
        whole = (2 * rows + places // 2) * size[1] + 2 * columns + places % 2
        np.testing.assert_array_equal(whole, golden[f"outputs/max_pool/{pooled}_indices"])
    np.testing.assert_array_equal(
        max_unpool(values, places, size), golden[f"outputs/max_unpool/{unpooled}"]
    )


def test_of_equal_values_the_first_is_taken():
    values, places = max_pool_with_indices(np.zeros((1, 4, 4, 2), np.float32))
    assert (np.asarray(places) == 0).all()
    np.testing.assert_array_equal(
        max_unpool(values + 1, places, (4, 4)), bed_of_nails(values + 1, (4, 4))
    )


def test_bed_of_nails(rng):
    x = rng.random((2, 2, 3, 4), np.float32)
    y = np.array(bed_of_nails(x, (5, 6)))
    np.testing.assert_array_equal(y[:, :4:2, ::2], x)
    y[:, :4:2, ::2] = 0
    assert y.shape == (2, 5, 6, 4) and (y == 0).all()


def test_gradients_go_where_the_maxima_were(rng):
    x = tf.constant(rng.random((1, 4, 6, 2), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        values, places = max_pool_with_indices(x)
        total = tf.reduce_sum(max_unpool(values, places, (4, 6)) * 3)
    gradient = np.asarray(tape.gradient(total, x))
    is_maximum = np.asarray(max_unpool(tf.ones_like(values), places, (4, 6)))
    np.testing.assert_array_equal(gradient, 3 * is_maximum)


def test_the_decoder_mirrors_the_encoder():
    model = segnet.segnet_small((16, 16, 3), 5, stages=((4, 5), (6, 7, 8)))
    assert [layer.conv.filters for layer in model.encoder] == [4, 5, 6, 7, 8]
    assert [layer.conv.filters for layer in model.decoder] == [7, 6, 5, 4]
    assert model.head.kernel.shape == (3, 3, 4, 5)
    with keras.StatelessScope(initialize_variables=False):
        whole = segnet.segnet()
    keras.backend.clear_session()
    assert (len(whole.encoder), len(whole.decoder)) == (13, 12)


@pytest.mark.parametrize("unpooling", segnet.UNPOOLINGS)
@pytest.mark.parametrize("size", [(16, 24), (17, 22)])
def test_images_of_any_size(unpooling, size, rng):
    model = segnet.segnet_small(stages=((4,), (6,)), unpooling=unpooling)
    assert model(rng.random((2, *size, 1), np.float32)).shape == (2, *size, 11)


def test_indices_tell_the_decoder_what_nails_do_not(rng):
    """A pixel moved within its window leaves what is pooled, but not where it is put back."""
    x = np.zeros((1, 8, 8, 1), np.float32)
    moved = x.copy()
    x[0, 2, 2], moved[0, 3, 3] = 1, 1
    for unpooling in segnet.UNPOOLINGS:
        model = segnet.segnet_small((8, 8, 1), 2, stages=((1,),), unpooling=unpooling)
        kernel = np.zeros((3, 3, 1, 1))
        kernel[1, 1] = 1
        model.encoder[0].conv.kernel.assign(kernel)
        model.head.kernel.assign(rng.normal(size=model.head.kernel.shape))
        same = np.allclose(model(x), model(moved))
        assert same == (unpooling == "nails")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unpooling": "mean"}, "unpooling 'mean': not one of indices, nails"),
        ({"image_shape": (4, 48, 1)}, "SegNet takes .* at least 8x8 pixels"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        segnet.segnet_small(**arguments)
