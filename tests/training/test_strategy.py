"""Two replicas train as one device does, at the same global batch."""

from pathlib import Path

import numpy as np
import pytest

from kerasdl.training import strategy
from tests.training.processes import difference, finish, run_script, start_two, weights

TWO = {"strategy": "mirrored", "logical_devices": 2}
COMMON = {"epochs": 2, "max_steps": 30, "augment": ["shift"], "seed": 3}
MODELS = {
    "mlp": {"model": "mlp", "drop_rate": 0.0},
    "resnet20": {"model": "resnet20", "sync_batch_norm": True},
}


# The largest distance of loss, of each gradient's norm, and of the gradient as one vector. In
# bfloat16 resnet20's vector is rounding: it is nearer to the other's than to its own in float32.
@pytest.mark.slow
@pytest.mark.parametrize(
    "model, precision, loss, norm, vector",
    [
        ("resnet20", "float32", 1e-4, 1e-4, 1e-4),
        ("resnet20", "mixed_bfloat16", 2e-2, 2e-2, 0.2),
        ("mlp", "mixed_bfloat16", 2e-2, 2e-2, 2e-2),
    ],
)
def test_first_loss_and_gradients_agree(model, precision, loss, norm, vector, tmp_path):
    # One step of plain SGD at rate 1: the weights then differ by as much as the gradients do.
    sgd = {"opt": "sgd", "momentum": 0.0, "lr": 1.0, "sched": "constant", "weight_decay": 0.0}
    settings = {**COMMON, **MODELS[model], **sgd, "precision": precision, "max_steps": 1}
    one = finish(tmp_path, "one", **settings)
    others = [finish(tmp_path, "two", **settings, **TWO)]
    if precision == "float32":
        (status, result), _ = start_two(tmp_path, "workers", **settings)
        assert status == 0, result
        others.append(result)
    gradient = np.sqrt((one["norms"] ** 2).sum())
    trained = [k for k in weights(one) if "moving" not in k]
    for two in others:
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=loss)
        np.testing.assert_allclose(two["norms"], one["norms"], atol=norm * one["norms"].max())
        apart = np.sqrt(sum(((one[k] - two[k]) ** 2).sum() for k in trained))
        assert apart / gradient < vector


@pytest.mark.slow
def test_a_rerun_with_dropout_on_two_replicas_is_bit_equal(tmp_path):
    settings = {**COMMON, "model": "mlp", "drop_rate": 0.5, "max_steps": 6, **TWO}
    first = finish(tmp_path, "first", **settings)
    again = finish(tmp_path, "again", **settings)
    assert difference(first, again) == 0


@pytest.mark.slow
def test_one_replicas_nan_skips_the_step_of_all_in_float16(tmp_path):
    script = Path(__file__).with_name("one_nan.py")
    status, result = run_script(script, out=tmp_path / "found.npz")
    assert status == 0, result
    for model in ("mlp", "gan_mlp"):
        steps = [
            {k.split("/", 2)[2]: v for k, v in result.items() if k.startswith(f"{model}/{i}/")}
            for i in range(3)
        ]
        names = {k for k in steps[0] if "seed_generator" not in k and "good_steps" not in k}
        changed = [
            {k for k in names if (a[k] != b[k]).any()}
            for a, b in zip(steps, steps[1:], strict=False)
        ]
        if model == "mlp":
            assert changed[0] == {"loss_scale"}
        else:  # the generator has not seen that image
            assert not any("discriminator" in k for k in changed[0])
            assert any("discriminator" in k for k in changed[1])
        assert (steps[1]["loss_scale"] == steps[0]["loss_scale"] / 2).all()
        assert any(k.startswith("model/") for k in changed[1])
        for values in steps:
            for name in names:
                assert np.isfinite(values[name]).all(), name
                assert (values[name] == values[name][0]).all(), name  # on both replicas


def test_a_batch_that_replicas_cannot_share_names_the_nearest():
    strategy.check_batch(64, 2, 4)
    with pytest.raises(ValueError, match="--batch-size 50.*48 or 56"):
        strategy.check_batch(50, 2, 4)
