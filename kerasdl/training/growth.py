"""More epochs for a run, whether it is finished or under way."""

import math

from kerasdl.errors import UserError
from kerasdl.store import checkpoint
from kerasdl.training import schedules
from kerasdl.training.selection import Selection

OVER_ALL = ("cosine", "linear")  # schedules that depend on the number of epochs


def check(run, recipe) -> None:
    """Refuse another number of epochs where the run cannot go on with it.

    Args:
        run: The `kerasdl.store.runs.Run` that was started.
        recipe: The settings that it shall go on with.

    Raises:
        UserError: More epochs have begun already, or something else has ended the run.
    """
    latest = recipe.epochs != run.recipe.epochs and checkpoint.latest(run.checkpoints, _quiet)
    if not latest:
        return
    state = checkpoint.loop_state(latest[0], ("step", "history", "best"))
    given = f"--epochs {recipe.epochs}: {run.folder}"
    step, history = state["step"], state["history"]
    anew = "; --no-resume starts it anew"
    if recipe.max_steps and step >= recipe.max_steps:
        raise UserError(
            f"{given} has ended by --max-steps {recipe.max_steps}, which other epochs do not change"
            + anew
        )
    selection = Selection(recipe)
    selection.best = state["best"]
    if selection.exhausted(history):
        raise UserError(
            f"{given} has ended by --early-stopping {recipe.early_stopping} after epoch "
            f"{len(history)} (the best is epoch {selection.best['epoch']}), which other epochs do "
            "not change" + anew
        )
    begun = math.ceil(step / history[0]["step"]) if history else 1
    if recipe.epochs < begun:
        raise UserError(
            f"{given} has come to epoch {begun}; give {begun} or more, or --no-resume to start it "
            "anew"
        )


def line(old, loop) -> str:
    """What another number of epochs does to the learning rate, for the user.

    Args:
        old: The settings before.
        loop: The `kerasdl.training.loop.Loop` that goes on, at the step where it does.
    """
    new, trainer = loop.recipe, loop.trainer
    total = min(loop.steps_per_epoch * old.epochs, old.max_steps or math.inf)
    player, optimizer = next(iter(trainer.optimizers.items()))
    before = schedules.from_recipe(old, loop.steps_per_epoch, total)
    before = schedules.stretched(before, trainer.updates(player))(optimizer.iterations)
    rates = [f"{float(before) * loop.lr_factor():.4g}", f"{loop.learning_rate():.4g}"]
    goes = f"stays {rates[0]}" if rates[0] == rates[1] else f"goes from {rates[0]} to {rates[1]}"
    how = f"is computed over {new.epochs} epochs" if new.sched in OVER_ALL else "is as before"
    return (
        f"--epochs was {old.epochs}, is {new.epochs}: the {new.sched} schedule {how}; at step "
        f"{loop.step} the learning rate {goes}"
    )


def _quiet(line):
    """Damaged checkpoints are named when the run goes on."""
