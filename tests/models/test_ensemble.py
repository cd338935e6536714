"""What an ensemble promises: the mean of its members' probabilities."""

import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.cnn.ensemble import ensemble
from kerasdl.ops.likelihood import log_mean_softmax

MEMBERS = (
    {"model": "mlp", "dims": [9], "input_mean": 0.2},
    {"model": "googlenet_small", "aux_heads": True},
)


def test_probabilities_are_averaged(rng):
    model = ensemble((12, 10, 1), 4, members=MEMBERS, input_std=0.7)
    x = rng.random((3, 12, 10, 1), np.float32)
    parts = [model.members[0](x), model.members[1](x)["logits"]]
    p = np.mean([np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in map(np.asarray, parts)], 0)
    np.testing.assert_allclose(np.exp(model(x)), p, rtol=1e-5)
    assert model.members[0].backbone.normalize.mean == 0.2
    assert [m.backbone.normalize.std for m in model.members] == [0.7, 0.7]
    assert all(w.path.startswith(("ensemble/member1/", "ensemble/member2/")) for w in model.weights)


def test_certain_members_that_differ_have_finite_logarithms():
    logits = [np.array([[0.0, 2000.0]], "float32"), np.array([[2000.0, 0.0]], "float32")]
    np.testing.assert_allclose(log_mean_softmax(logits), np.log([[0.5, 0.5]]), rtol=1e-6)


@pytest.mark.parametrize(
    "members, message",
    [
        ((), "must be a list"),
        ("resnet20", "must be a list"),
        (({"name": "mlp"},), "names no model"),
        (({"model": "simclr_small"},), "simclr_small is no classifier"),
        (({"model": "resnet21"},), "unknown model 'resnet21'"),
    ],
)
def test_what_is_no_member_is_refused(members, message):
    with pytest.raises(UserError, match=message):
        ensemble((8, 8, 1), members=members)
