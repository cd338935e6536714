"""What features are worth with few labels: results of `kerasdl.few_labels`, as a table."""

from statistics import mean, stdev

from kerasdl.report.html import table

HEADS = ("model", "data", "labels", "method", "pre-trained", "random start", "gain", "results")
GROUP = ("model", "dataset", "labels", "method")
STARTS = ("run", "random")


def cells(results) -> list[tuple]:
    """Texts under `HEADS`: means and deviations over seeds and over runs of one model.

    Args:
        results: Of `kerasdl.few_labels.probe_run`, of any runs.
    """
    groups = {}
    for one in results:
        values = groups.setdefault(tuple(one[name] for name in GROUP), {s: [] for s in STARTS})
        values[one["start"]].append(one["top1"])
    return [
        (
            *key,
            *(_spread(values[start]) for start in STARTS),
            f"{mean(values['run']) - mean(values['random']):+.3f}" if all(values.values()) else "",
            str(max(map(len, values.values()))),
        )
        for key, values in groups.items()
    ]


def _spread(values):
    """`0.912 ± 0.013`, or one value alone."""
    text = f"{mean(values):.3f}" if values else ""
    return f"{text} ± {stdev(values):.3f}" if len(values) > 1 else text


def section(results) -> str:
    """The table of a run's results as HTML; nothing where there are none."""
    if not results:
        return ""
    rows = [row[1:] for row in cells(results)]
    note = (
        "Top-1 on the test part, mean and deviation over seeds. linear: a linear classifier on "
        "frozen features, its regularization chosen on the validation part; logistic: with a fixed "
        "one; knn: the nearest labeled examples; finetune: all weights trained, at a random start "
        "with the labels alone."
    )
    return f"<h2>Few labels</h2><p class=note>{note}</p>{table(HEADS[1:], rows)}"
