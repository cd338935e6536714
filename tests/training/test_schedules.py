"""Laws of the learning rate, at points that are known."""

import numpy as np
import pytest

from kerasdl.recipe import Recipe
from kerasdl.training import schedules

POINTS = {  # kind: rate at steps 0, 4, 5, 55, 100, with 5 steps of warm-up of 100
    "constant": (0.2, 1, 1, 1, 1),
    "cosine": (0.2, 1, 1, 0.5 + 0.5 * np.cos(np.pi * 50 / 95), 0.1),
    "linear": (0.2, 1, 1, 1 - 0.9 * 50 / 95, 0.1),
    "step": (0.2, 1, 1, 0.5**2, 0.5**4),
    "invsqrt": (0.2, 1, 1, (5 / 55) ** 0.5, (5 / 100) ** 0.5),
    "plateau": (0.2, 1, 1, 1, 1),
}


@pytest.mark.parametrize("kind", POINTS)
def test_schedules(kind):
    recipe = Recipe(
        sched=kind, lr=1.0, min_lr=0.1, warmup_epochs=0.5, decay_epochs=2, decay_rate=0.5
    )
    schedule = schedules.from_recipe(recipe, 10, 100)
    wanted = POINTS[kind]
    if kind == "cosine":
        wanted = (*wanted[:3], 0.1 + 0.9 * wanted[3], wanted[4])
    if kind in ("step", "invsqrt"):
        wanted = tuple(max(w, 0.1) for w in wanted)
    result = [float(schedule(s)) for s in (0, 4, 5, 55, 100)]
    np.testing.assert_allclose(result, wanted, rtol=1e-5)


def test_rate_scales_with_the_batch_where_a_base_is_given():
    recipe = Recipe(sched="constant", lr=0.1, batch_size=512, lr_base_batch=256)
    assert float(schedules.from_recipe(recipe, 1, 1)(0)) == pytest.approx(0.2)
