"""What LeNet's paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import lenet


@pytest.fixture(scope="module")
def original():
    return lenet.lenet5_1998()


def test_parameters_are_those_of_the_paper(original):
    """Section II.B: 156, 12, 1,516, 32, 48,120 and 10,164; the 840 of the codes are not trained."""
    counts = {}
    for weight in original.weights:
        layer = weight.path.removeprefix("lenet5_1998/").removeprefix("backbone/").split("/")[0]
        counts[layer] = counts.get(layer, 0) + math.prod(weight.shape)
    assert counts == {
        "conv1": 156,
        "pool2": 12,
        "conv3": 1516,
        "pool4": 32,
        "conv5": 48_120,
        "fc6": 10_164,
        "head": 840,
    }
    assert [w.path.split("/")[-1] for w in original.non_trainable_weights] == ["codes"]


def test_connectivity_is_an_option_of_the_dense_form():
    with keras.StatelessScope(initialize_variables=False):
        model = lenet.lenet5(connectivity=1998)  # a number on the command line
    keras.backend.clear_session()
    count = sum(math.prod(w.shape) for w in model.trainable_weights)
    assert count == 61_706 - 2_416 + 1_516


def test_each_map_of_c3_sees_the_maps_of_table_1(rng):
    layer = lenet.SparseConv()
    x = rng.standard_normal((1, 5, 5, 6)).astype("float32")
    before = np.asarray(layer(x))
    assert before.shape == (1, 1, 1, 16)
    seen = [set() for _ in range(16)]
    for channel in range(6):
        changed = x.copy()
        changed[..., channel] += 1.0
        moved = np.abs(np.asarray(layer(changed)) - before)[0, 0, 0] > 1e-5
        for d in np.flatnonzero(moved):
            seen[d].add(channel)
    assert [len(maps) for maps in seen] == [3] * 6 + [4] * 9 + [6]
    assert seen == [set(maps) for maps in lenet.TABLE_1]
    assert seen[4] == {4, 5, 0} and seen[11] == {5, 0, 1, 2} and seen[14] == {0, 2, 3, 5}


def test_sparse_kernels_stand_at_their_places(rng):
    layer = lenet.SparseConv()
    layer.build((None, 7, 6, 6))
    layer.bias.assign(rng.standard_normal(16))
    x = rng.standard_normal((2, 7, 6, 6)).astype("float32")
    dense = np.zeros((5, 5, 6, 16), "float32")
    kernels = iter(np.moveaxis(np.asarray(layer.kernel), -1, 0))
    for d, maps in enumerate(lenet.TABLE_1):
        for c in maps:
            dense[:, :, c, d] = next(kernels)
    expected = keras.ops.conv(x, dense) + layer.bias
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_subsampling_is_a_weighted_sum(rng):
    layer = lenet.Subsampling()
    layer.build((None, 4, 6, 3))
    layer.scale.assign([0.5, -1.0, 2.0])
    layer.bias.assign([0.1, 0.2, 0.3])
    x = rng.standard_normal((2, 4, 6, 3)).astype("float32")
    total = x.reshape(2, 2, 2, 3, 2, 3).sum(axis=(2, 4))
    expected = 1.7159 * np.tanh(2 / 3 * (total * [0.5, -1.0, 2.0] + [0.1, 0.2, 0.3]))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_the_sigmoid_is_1_at_1():
    np.testing.assert_allclose(lenet.squash(np.float32([-1, 1])), [-1, 1], atol=1e-4)


def test_a_code_is_nearest_to_itself(rng):
    layer = lenet.Codes(5)
    layer.build((None, 84))
    codes = np.asarray(layer.codes)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    logits = np.asarray(layer(codes.T))
    expected = -((codes.T[:, None] - codes.T[None]) ** 2).sum(-1)
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert (logits.diagonal() == 0).all()


def test_larger_images_answer_at_many_places(rng):
    """Section VII: the network replicated; F6 is averaged here."""
    model = lenet.lenet5()
    features = model.backbone(rng.random((2, 32, 32, 1), np.float32))
    assert [tuple(x.shape[1:]) for x in features.values()] == [(14, 14, 6), (5, 5, 16), (1, 1, 120)]
    wide = lenet.lenet5(image_shape=(32, 40, 1))
    wide.set_weights(model.get_weights())
    x = rng.random((2, 32, 40, 1), np.float32)
    windows = [model.pool(model.backbone(x[:, :, i : i + 32])) for i in (0, 4, 8)]
    np.testing.assert_allclose(wide.pool(wide.backbone(x)), sum(windows) / 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"connectivity": "sparse"}, "connectivity 'sparse': not one of dense, 1998"),
        ({"connectivity": "1998", "filters": (6, 12)}, "connectivity 1998 is of 6 and 16 maps"),
        ({"image_shape": (15, 32, 1)}, "LeNet-5 takes .* of at least 16x16 pixels"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        lenet.lenet5(**kwargs)
