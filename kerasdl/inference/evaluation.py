"""A model evaluated on a whole part of the data."""

import numpy as np
import tensorflow as tf

from kerasdl.metrics.evaluator import joined


def evaluate(model, task, batches, part="test", reference=None):
    """Means of the task's metrics over a part, and the results of its evaluators.

    Args:
        model: The model.
        task: Its task.
        batches: Evaluation batches, the last padded with examples of weight 0.
        part: Which part of the data they are.
        reference: `examples -> batches` of so many training examples; for evaluators that need
            some.

    Returns:
        `{metric: value}` of the task's means and the evaluators' test metrics, and
        `{name: value}` of all else that the evaluators report.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def run(batch):
        prepared = task.prepare(batch)
        loss, metrics = task.losses(model, prepared, task.players[0], training=False)
        return {"loss": loss, **metrics}, predict(prepared)

    @tf.function(reduce_retracing=True, autograph=False)
    def refer(batch):
        return predict(task.prepare(batch))

    def predict(prepared):
        return task.predict(model, prepared) if evaluators else {}

    evaluators = task.evaluators()
    wanted = max((e.reference for e in evaluators), default=0)
    for batch in reference(wanted) if wanted else ():
        outputs, arrays = _arrays(refer(batch)), _arrays(batch)
        for evaluator in evaluators:
            if evaluator.reference:
                evaluator.refer(outputs, arrays)
    sums = np.zeros((2, len(task.metrics)))
    for batch in batches:
        metrics, outputs = run(batch)
        arrays = _arrays(batch)
        for i, name in enumerate(task.metrics):
            value = metrics[name]
            value, weight = value if isinstance(value, tuple) else (value, np.ones(len(value)))
            for row, each in enumerate((value, weight)):
                sums[row, i] += (np.asarray(each, np.float64) * arrays["weight"]).sum()
        outputs = _arrays(outputs)
        for evaluator in evaluators:
            evaluator.update(outputs, arrays)
    result = joined(evaluator.result() for evaluator in evaluators)
    means = np.divide(*sums, out=np.zeros(len(task.metrics)), where=sums[1] != 0)
    means = task.summarize(dict(zip(task.metrics, means.tolist(), strict=True)), part)
    return means | result.pop("test"), result


def _arrays(values):
    return {name: np.asarray(value) for name, value in values.items()}


def test_line(metrics: dict) -> str:
    """The metrics of the test part in one line."""
    return "test " + " ".join(f"{k} {v:.4f}" for k, v in metrics["test"].items())
