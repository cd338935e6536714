"""A model evaluated on a whole split."""

import numpy as np
import tensorflow as tf


def evaluate(model, task, batches, part="test"):
    """Means of the task's metrics over a split, and what its evaluators say.

    Args:
        model: The model.
        task: Its task.
        batches: Evaluation batches, the last padded with examples of weight 0.
        part: Which part of the data they are.

    Returns:
        `{metric: mean or what an evaluator holds of the test}`, `{what else evaluators found}`.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def both(batch):
        prepared = task.prepare(batch)
        loss, metrics = task.losses(model, prepared, task.players[0], training=False)
        outputs = task.predict(model, prepared) if evaluators else {}
        return {"loss": loss, **metrics}, outputs

    evaluators = task.evaluators()
    totals, weights = {}, 0.0
    for batch in batches:
        metrics, outputs = both(batch)
        weight = batch["weight"].numpy().astype(np.float64)
        weights += weight.sum()
        for name in task.metrics:
            value = np.asarray(metrics[name], np.float64)
            totals[name] = totals.get(name, 0.0) + float((value * weight).sum())
        arrays = {k: np.asarray(v) for k, v in batch.items()}
        outputs = {k: np.asarray(v) for k, v in outputs.items()}
        for evaluator in evaluators:
            evaluator.update(outputs, arrays)
    found = {}
    for evaluator in evaluators:
        found |= evaluator.result()
    means = task.summarize({name: total / weights for name, total in totals.items()}, part)
    return means | found.pop("test", {}), found
