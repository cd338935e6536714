"""Files that are read on demand: one that cannot be read is named, or replaced by its class."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.data.pipeline import evaluation_batches
from kerasdl.data.reading import named_errors
from kerasdl.data.sources import folder
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe
from kerasdl.training.loop import Loop
from tests.data.shared import lengths
from tests.data.test_folder import classes, opened


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """A folder that is read on demand, with a JPEG cut in each class; their paths."""
    monkeypatch.setattr(folder, "MEMORY_BYTES", 10)
    classes(tmp_path, ending=".jpg", n=8, size=(40, 30))
    paths = [tmp_path / name / "003.jpg" for name in ("cat", "dog")]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-300])
    return tmp_path


def whole(split, source, size=4):
    """All examples of a split, as evaluation reads them."""
    batches = evaluation_batches(split, source.info.columns, batch_size=size)
    batches = list(batches.as_numpy_iterator())
    return {k: np.concatenate([b[k] for b in batches]) for k in ("image", "label")}


def test_damage_on_demand_is_named(cut):
    source = opened(cut)
    for read in (lambda s: s.read(range(len(s))), lambda s: whole(s, source)):
        with pytest.raises(UserError, match="00[3].jpg cannot be read; --skip-bad-files") as caught:
            with named_errors():
                for part in (source.train, source.validation, source.test):
                    read(part)
        assert "\n" not in str(caught.value)
    with pytest.raises(tf.errors.OpError), named_errors():
        raise tf.errors.InvalidArgumentError(None, None, "another error")


@pytest.mark.parametrize("jit", [False, True])
def test_the_loop_names_a_damaged_file(cut, jit):
    source = opened(cut)
    batches = evaluation_batches(source.train, source.info.columns, batch_size=len(source.train))
    iterator = iter(batches)

    @tf.function
    def run():
        return next(iterator)["image"]

    loop = SimpleNamespace(_run=run, recipe=Recipe(jit=jit))
    with pytest.raises(UserError, match="003.jpg cannot be read; --skip-bad-files"):
        Loop._take_steps(loop)


def test_damage_on_demand_is_replaced_by_its_class(cut):
    source = opened(cut, skip_bad_files=True, val_split=0.2)
    assert sum(lengths(source)) == 16 and source.replacements() == []
    first = whole(source.train, source)
    again = whole(source.train, source, size=3)
    np.testing.assert_array_equal(first["image"][:12], again["image"][:12])
    paths = list(source.files["train"])
    damaged = [i for i, path in enumerate(paths) if path.endswith("003.jpg")]
    assert damaged
    for i in damaged:
        same = [j for j in range(len(paths)) if first["label"][j] == first["label"][i] and j != i]
        after = [j for j in same if j > i] or same
        np.testing.assert_array_equal(first["image"][i], first["image"][after[0]])
    (line,) = source.replacements()
    assert f"{len(damaged)} unreadable images" in line and "003.jpg" in line


def test_a_class_that_cannot_be_read_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MEMORY_BYTES", 10)
    classes(tmp_path, ending=".jpg", n=4, size=(40, 30))
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:-300])
    source = opened(tmp_path, skip_bad_files=True, val_split=0.25)
    with pytest.raises(UserError, match="cannot be read, nor .* of its class"), named_errors():
        whole(source.train, source)
