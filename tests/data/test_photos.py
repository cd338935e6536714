"""`photos`: its parts share no pixel, its classes are where a patch is from."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from tests.data.shared import lengths


def test_photos():
    source = open_source("photos")
    assert lengths(source) == (4000, 480, 960) and source.info.image_shape == (32, 32, 3)
    assert source.info.class_names[3:5] == ("china 4", "flower 1")
    for split in source.parts.values():
        assert len(set(np.bincount(split.arrays["label"]))) == 1
    # A labeled part is chosen from its start, which must not be one place
    assert set(source.train.arrays["label"][:60]) == set(range(8))
    again, other = open_source("photos", seed=1), open_source("photos:classes=pictures")
    for part, split in source.parts.items():
        images, labels = split.arrays["image"], split.arrays["label"]
        np.testing.assert_array_equal(images, again.parts[part].arrays["image"])
        np.testing.assert_array_equal(images, other.parts[part].arrays["image"])
        np.testing.assert_array_equal(labels // 4, other.parts[part].arrays["label"])
    assert other.info.class_names == ("china", "flower")
    assert open_source("photos", image_size=(16,)).info.image_shape == (16, 16, 3)
    for wrong in ("size=48", "classes=colors", "64", "size=32;classes=regions"):
        with pytest.raises(UserError, match=f"{wrong} must be size=32 or size=64 or classes=regio"):
            open_source(f"photos:{wrong}")


@pytest.mark.parametrize("size", [32, 64])
def test_no_pixel_of_a_photo_is_in_two_parts(size):
    """Each patch is looked up in the pictures; a uniform one may lie at several places."""
    parts = open_source(f"photos:size={size},classes=pictures").parts
    for number, name in enumerate(("china", "flower")):
        picture = load_sample_image(f"{name}.jpg").astype(np.uint32)
        code = (picture @ [65536, 256, 1]).astype(np.uint32)
        windows = np.lib.stride_tricks.sliding_window_view(code, (size, size))
        place = {}  # of the code of four pixels
        corners = [windows[:, :, y, x] for y in (0, size - 1) for x in (0, size - 1)]
        for y, x in np.ndindex(windows.shape[:2]):
            place.setdefault(tuple(int(c[y, x]) for c in corners), []).append((y, x))
        taken = {}
        for part, split in parts.items():
            taken[part] = np.zeros(code.shape, bool)
            for image in split.arrays["image"][split.arrays["label"] == number]:
                patch = (image.astype(np.uint32) @ [65536, 256, 1]).astype(np.uint32)
                key = tuple(int(patch[y, x]) for y in (0, -1) for x in (0, -1))
                found = [at for at in place[key] if (windows[at] == patch).all()]
                assert len(found) == 1
                y, x = found[0]
                taken[part][y : y + size, x : x + size] = True
        assert not (taken["train"] & taken["test"]).any()
        assert not (taken["train"] & taken["validation"]).any()
        assert not (taken["validation"] & taken["test"]).any()
        assert taken["train"].mean() > 0.5
