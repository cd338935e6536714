"""How models are made: from shapes, each layer once, in no more time than `keras.applications`."""

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.layers.core import Conv, Model, build_chain, construct


def variants():
    """The first row of each module and `TINY`."""
    seen = {}
    for row in catalog.ROWS:
        seen.setdefault((row.module, repr(catalog.module_of(row.name).TINY[row.name])), row.name)
    return list(seen.values())


def make(name):
    return catalog.build(name, **catalog.module_of(name).TINY[name])


@pytest.mark.parametrize("name", variants())
def test_nothing_is_called_and_nothing_built_twice(name, monkeypatch):
    def call(self, *args, **kwargs):
        raise AssertionError(f"{self.name} is called")

    made, add_weight = [], keras.Layer.add_weight

    def count(self, *args, **kwargs):
        made.append(add_weight(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(keras.Layer, "__call__", call)
    monkeypatch.setattr(keras.Layer, "add_weight", count)
    model = make(name)
    assert {id(v) for v in made} == {id(v) for v in model.weights}
    assert len(made) == len(model.weights) > 0


@pytest.mark.parametrize("name", variants())
def test_layers_know_the_shape_of_what_they_make(name, monkeypatch):
    model, checked = make(name), []
    call = keras.Layer.__call__

    def compare(self, x, *args, **kwargs):
        y = call(self, x, *args, **kwargs)
        if type(self).compute_output_shape is not keras.Layer.compute_output_shape:
            given, made = (keras.tree.map_structure(lambda t: tuple(t.shape), v) for v in (x, y))
            shape = self.compute_output_shape(given)
            shape = [*map(tuple, shape)] if isinstance(made, list) else tuple(shape)
            assert shape == made, self.path
            checked.append(self)
        return y

    monkeypatch.setattr(keras.Layer, "__call__", compare)
    model(
        keras.tree.map_structure(
            lambda x: np.ones([2, *(5 if n is None else n for n in x.shape[1:])], x.dtype),
            model.symbolic_inputs(),
        )
    )
    assert checked


class Forgetful(Model):
    """A model whose `build` leaves out a child."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = Conv(3, name="first")
        self.second = Conv(2, name="second")

    def symbolic_inputs(self):
        return keras.Input((4, 4, 1))

    def build(self, input_shape):
        assert build_chain(input_shape, self.first) == (None, 4, 4, 3)


def test_a_child_that_is_not_built_is_named():
    with pytest.raises(RuntimeError, match="forgetful: .* builds second$"):
        construct(Forgetful, "forgetful", {}, {}, {})


def test_equal_layers_start_apart_and_a_seed_gives_the_same_again():
    def kernels():
        keras.utils.set_random_seed(3)
        model = catalog.build("resnet20", **catalog.module_of("resnet20").TINY["resnet20"])
        blocks = model.backbone.blocks
        return [np.asarray(c.conv.kernel) for b in blocks for c in (b.conv1, b.conv2)]

    first, again = kernels(), kernels()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    same = [(i, j) for i, a in enumerate(first) for j, b in enumerate(first) if i < j]
    alike = [(i, j) for i, j in same if first[i].shape == first[j].shape]
    assert alike
    for i, j in alike:
        assert np.abs(first[i] - first[j]).min() > 0
