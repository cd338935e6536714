"""What evaluates a whole set, where the mean of a number per example cannot: the protocol."""


def joined(results) -> dict:
    """The results of several evaluators as one: their metrics and their warnings together."""
    joined = {"test": {}}
    for result in map(dict, results):
        joined["test"] = joined["test"] | result.pop("test", {})
        warnings = joined.get("warnings", []) + result.pop("warnings", [])
        joined |= result | ({"warnings": warnings} if warnings else {})
    return joined


class Evaluator:
    """Takes in a set batch by batch; its state can be merged with that of others.

    Each worker evaluates its part of a set; what they saw is merged, in any order, and the result
    is that of one evaluator which saw the whole set.

    Attributes:
        metrics: Names of what `result` holds under `test`.
        reference: How many examples of the training part it is given first, by `refer`.
    """

    metrics: tuple = ()
    reference = 0

    def refer(self, outputs: dict, batch: dict) -> None:
        """Add a batch of the training part; see `update`."""

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch.

        Args:
            outputs: What the task's `predict` gave, `{name: numpy (B, ...)}`.
            batch: The columns `{name: numpy (B, ...)}`, with `index` int `(B,)`, the example's
                number, and `weight` `(B,)`: examples of weight 0 do not count.
        """
        raise NotImplementedError

    def state(self) -> dict:
        """`{name: numpy array}` of everything given so far."""
        raise NotImplementedError

    def merge(self, state: dict) -> None:
        """Add the `state` of another one."""
        raise NotImplementedError

    def result(self) -> dict:
        """`{"test": {metric: float}}`, and what else is reported, by name; `warnings`, lines that
        a user should see at once, where there is reason."""
        raise NotImplementedError
