"""The task's evaluators over a part of the data, on all replicas and workers."""

import io

import numpy as np
import tensorflow as tf

from kerasdl.metrics.evaluator import joined
from kerasdl.training import collectives


class Evaluators:
    """Runs a task's evaluators on a model in training.

    Each worker gives its own evaluators what its replicas predict; then all workers merge what the
    others saw, so that all have the same result.

    Args:
        trainer: The `step.Trainer`.
        strategy: A `tf.distribute` strategy.
        cluster: The `cluster.Cluster` of the strategy, or None where one process trains.
    """

    def __init__(self, trainer, strategy, cluster=None):
        self.task, self.strategy, self.cluster = trainer.task, strategy, cluster

        @tf.function(autograph=False)
        def outputs(batch):
            return strategy.run(trainer.outputs, args=(batch,))

        self.outputs = outputs

    def run(self, iterator, count: int, reference=None) -> dict:
        """What the evaluators find.

        Args:
            iterator: Of distributed evaluation batches.
            count: How many of them make the whole.
            reference: `examples -> (iterator, batches)` of so many training examples; needed where
                an evaluator wants some.

        Returns:
            `{"test": {metric: float}}`, and what else they report.
        """
        evaluators = self.task.evaluators()
        wanted = max((e.reference for e in evaluators), default=0)
        if wanted:
            self._give(*reference(wanted), [e.refer for e in evaluators if e.reference])
        self._give(iterator, count, [e.update for e in evaluators])
        if self.cluster:
            evaluators = self._merged(evaluators)
        return joined(evaluator.result() for evaluator in evaluators)

    def _give(self, iterator, count, receivers):
        """Predict some batches, and give each receiver what every replica here predicted."""
        local = self.strategy.experimental_local_results
        for _ in range(count):
            batch = next(iterator)
            outputs = self.outputs(batch)
            parts = [
                {name: [np.asarray(v) for v in local(value)] for name, value in values.items()}
                for values in (outputs, batch)
            ]
            for replica in range(len(local(batch["weight"]))):
                one = [{name: v[replica] for name, v in part.items()} for part in parts]
                for receive in receivers:
                    receive(*one)

    def _merged(self, evaluators):
        """New evaluators that hold what those of all workers saw, in the order of the workers."""
        states = [_packed(e.state()) for e in evaluators]
        merged = self.task.evaluators()
        for one, content in zip(merged, states, strict=True):
            for other in collectives.gather_bytes(self.strategy, self.cluster.size, content):
                one.merge(_unpacked(other))
        return merged


def _packed(state: dict) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)
    return file.getvalue()


def _unpacked(content: bytes) -> dict:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
