"""Training on the labels of few examples."""

import numpy as np
import pytest

from kerasdl.data import labeled, sources
from kerasdl.errors import UserError
from kerasdl.ops.labels import balanced
from kerasdl.recipe import Recipe
from kerasdl.tasks.classify import Classify
from kerasdl.tasks.contrast import Contrast
from kerasdl.tasks.detect import Detect


@pytest.fixture(scope="module")
def digits():
    return sources.from_recipe(Recipe(dataset="digits"), Classify)


def chosen(source, **settings):
    return labeled.positions(source, Classify, Recipe(**settings))


def test_as_equally_many_of_each_class_by_the_seed(digits):
    label = digits.train.columns()["label"]
    assert chosen(digits) is None
    first, again, other = (chosen(digits, labels=52, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert sorted(np.bincount(label[first])) == [5] * 8 + [6] * 2
    assert len(set(first) & set(other)) < 20
    assert np.bincount(label[chosen(digits, labels_per_class=7)]).tolist() == [7] * 10


def test_of_a_rare_class_all_are_taken():
    label = np.array([0] * 20 + [1] * 2)
    assert np.bincount(label[balanced(label, per_class=5, seed=0)]).tolist() == [5, 2]
    assert np.bincount(label[balanced(label, 10, seed=0)]).tolist() == [8, 2]


def test_an_epoch_repeats_them(digits):
    few = chosen(digits, labels=50)
    repeated = labeled.repeated(digits.train, few)
    assert len(repeated) == len(digits.train)
    rows = digits.train.columns()["image"][few]
    np.testing.assert_array_equal(repeated.columns()["image"][50:100], rows)
    np.testing.assert_array_equal(repeated.read([3, 53])["image"], rows[[3, 3]])
    assert "50 of 1,257" in labeled.line(digits, few)


def test_tasks_that_use_no_labels_refuse(digits):
    with pytest.raises(UserError, match="--labels 5: simclr_small learns without labels"):
        labeled.positions(digits, Contrast, Recipe("simclr_small", labels=5))
    with pytest.raises(UserError, match="--labels-per-class 5: scenes has not one label per"):
        scenes = sources.from_recipe(Recipe(dataset="scenes"), Detect)
        labeled.positions(scenes, Detect, Recipe(labels_per_class=5))
    with pytest.raises(UserError, match="give one"):
        Recipe(labels=3, labels_per_class=3)
