"""BERT: every token looks at both sides, padding is not looked at, and what is refused."""

import numpy as np
import pytest

from kerasdl import create_model
from kerasdl.errors import UserError
from kerasdl.models.sequence.bert import TINY

IDS = np.array([[5, 6, 7, 8, 9, 10]], "int32")


@pytest.fixture(scope="module")
def model():
    return create_model("bert_base", **TINY["bert_base"])


def test_a_token_depends_on_both_sides(model):
    before = np.asarray(model.encode(IDS))
    for changed in (0, 5):
        ids = IDS.copy()
        ids[0, changed] = 4
        after = np.asarray(model.encode(ids))
        assert np.abs(after - before).max(-1).min() > 1e-6  # of every token


def test_what_is_appended_as_padding_changes_nothing(model):
    padded = np.pad(IDS, ((0, 0), (0, 4)))
    np.testing.assert_allclose(model(padded)[:, :6], model(IDS), atol=1e-5)


def test_another_id_may_stand_for_padding():
    model = create_model("bert_base", **TINY["bert_base"], pad_id=3)
    padded = np.pad(IDS, ((0, 0), (0, 4)), constant_values=3)
    np.testing.assert_allclose(model(padded)[:, :6], model(IDS), atol=1e-5)
    assert np.abs(model(np.pad(IDS, ((0, 0), (0, 4))))[:, :6] - model(IDS)).max() > 1e-4


def test_scores_are_made_with_the_embeddings_unless_they_are_not_tied(model):
    own = create_model("bert_small", **TINY["bert_small"])
    paths = [w.path for w in own.weights]
    assert "bert_small/head/scores/kernel" in paths
    assert not [w.path for w in model.weights if "scores" in w.path]
    x = np.asarray(model.head.norm(model.head.activation(model.head.project(model.encode(IDS)))))
    expected = x @ np.asarray(model.embedding.table).T + np.asarray(model.head.bias)
    np.testing.assert_allclose(model(IDS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_heads": 3}, "num_heads 3: must divide the 16 channels"),
        ({"num_segments": 0}, "num_segments 0"),
        ({"activation": "gelo"}, "activation 'gelo'.*did you mean gelu"),
    ],
)
def test_what_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        create_model("bert_base", **{**TINY["bert_base"], **changed})


def test_more_tokens_than_positions(model):
    with pytest.raises(UserError, match="13 tokens from position 0 on: there are only 12"):
        model(np.ones((1, 13), "int32"))
