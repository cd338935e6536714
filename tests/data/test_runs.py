"""Masks as runs: of polygons, of COCO's encodings, and whole again."""

import numpy as np

from kerasdl.data import runs


def test_a_polygon_is_drawn_where_it_is():
    mask = runs.of_polygons([np.array([[2, 3], [9, 3], [9, 8], [2, 8]], float)], (12, 10))
    expected = np.zeros((12, 10), bool)
    expected[3:8, 2:9] = True
    np.testing.assert_array_equal(mask, expected)
    far = runs.of_polygons([np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])], (4, 5))
    assert far.all()


def test_compressed_runs_are_those_of_pycocotools():
    from pycocotools import mask as codec

    rng = np.random.default_rng(0)
    for _ in range(50):
        size = tuple(rng.integers(1, 30, 2).tolist())
        mask = (rng.random(size) < rng.random()).astype(np.uint8)
        encoded = codec.encode(np.asfortranarray(mask))
        text = encoded["counts"].decode()
        given = {"size": list(size), "counts": text}
        np.testing.assert_array_equal(runs.of_coco(given, size), mask.astype(bool))
        broken = list(text)
        for place in rng.integers(len(broken), size=2):
            broken[place] = chr(rng.integers(0, 300))
        damaged_mask = runs.of_coco(given | {"counts": "".join(broken)}, size)
        assert damaged_mask is None or damaged_mask.shape == size
        assert runs.of_coco(given | {"counts": text[:-1] + chr(48 + 40)}, size) is None


def test_masks_as_runs_are_whole_again():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 300, (5, 3, 7))
    masks[1] = 0
    one = runs.Runs(list(masks), (3, 7), np.int32)
    np.testing.assert_array_equal(one.array([3, 1, 0]), masks[[3, 1, 0]])
    for i, row in enumerate(one.rows(np.arange(5))):
        np.testing.assert_array_equal(one.decoded(row), masks[i])
