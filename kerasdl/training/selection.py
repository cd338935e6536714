"""Which epoch is best, and what follows where none has been better for a while."""

import math

from kerasdl.errors import TrainingError, UserError
from kerasdl.system.names import nearest


def check_monitor(recipe, names, evaluators) -> None:
    """Refuse a monitor that will not be there.

    Args:
        recipe: The settings.
        names: Of the metrics that are means.
        evaluators: The task's.

    Raises:
        UserError: Names what is allowed.
    """
    name = recipe.monitor.removeprefix("-").removeprefix("val_")
    late = [metric for evaluator in evaluators for metric in evaluator.metrics]
    if name.endswith("loss") and name in names and not recipe.monitor.startswith("-"):
        raise UserError(f"--monitor {recipe.monitor}: lower is better: write =-{name}")
    if name in late and name not in names and not recipe.eval_epochs:
        raise UserError(
            f"--monitor {recipe.monitor}: is known only where --eval-epochs is at least 1"
        )
    if name not in (*names, *late):
        raise UserError(
            f"--monitor {recipe.monitor}: not one of {', '.join((*names, *late))}, or one with a "
            f"minus where lower is better{nearest(name, (*names, *late))}"
        )


class Selection:
    """Watches one metric over the epochs.

    Args:
        recipe: Its `monitor`, `early_stopping`, and, of the schedule plateau, `decay_epochs`.

    Attributes:
        best: `{"epoch", "step", "value", "row"}` of the best epoch, or None before the first.
        waited: Epochs since then, or since the last drop of the schedule plateau.
    """

    def __init__(self, recipe):
        lower = recipe.monitor.startswith("-")
        self.sign, self.name = (-1, recipe.monitor[1:]) if lower else (1, recipe.monitor)
        self.patience = recipe.early_stopping
        self.plateau = recipe.decay_epochs if recipe.sched == "plateau" else None
        self.best = None
        self.waited = 0

    def update(self, row: dict) -> tuple[bool, bool]:
        """Take in the row of an epoch.

        Args:
            row: `epoch`, `step`, and the metrics; those of the validation part start with `val_`.

        Returns:
            Whether it is the best so far, and whether the rate must drop.

        Raises:
            TrainingError: The metric is not finite.
        """
        key = self._key(row)
        self.waited += 1
        if key not in row:  # of an evaluator, which does not run after every epoch
            return False, False
        value = self.sign * row[key]
        if not math.isfinite(value):
            raise TrainingError(f"{key} is {value} after epoch {row['epoch']}")
        if self.best is None or value > self.best["value"]:
            self.best = {"epoch": row["epoch"], "step": row["step"], "value": value, "row": row}
            self.waited = 0
            return True, False
        drops = self.plateau is not None and self.waited >= self.plateau
        if drops:
            self.waited = 0
        return False, drops

    def exhausted(self, history) -> bool:
        """Whether it is time to stop early: no epoch was better for as long as the patience.

        Args:
            history: The rows of all epochs.
        """
        if not self.patience or not self.best:
            return False
        last = max(row["epoch"] for row in history if self._key(row) in row)
        return last - self.best["epoch"] >= self.patience

    def _key(self, row):
        return f"val_{self.name}" if f"val_{self.name}" in row else self.name
