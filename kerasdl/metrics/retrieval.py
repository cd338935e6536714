"""Images and texts in one space: retrieval both ways, and classes told by their names.

Source: Karpathy and Fei-Fei 2014, https://arxiv.org/abs/1412.2306, section 4.2 (recall at k);
        Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1 (classes by their names).
"""

import numpy as np

from kerasdl.metrics.confusion import Confusion
from kerasdl.metrics.evaluator import Evaluator

COLUMNS = {"image_embeds": np.float32, "text_embeds": np.float32, "index": np.int64}


class Retrieval(Evaluator):
    """How often an image's caption is among the nearest of some captions, and an image likewise.

    The candidates of an example are itself and others that are drawn by its number, all with
    captions that differ: where several examples have one caption, no second one is a candidate. Of
    equally near ones the right one is the last. Its state may be merged in any order: examples are
    sorted by their number, and one that is given twice counts once.

    Args:
        candidates: How many there are; fewer where the set has fewer captions.
        ks: Among how many nearest the right one is looked for.
    """

    def __init__(self, candidates: int = 100, ks=(1, 5)):
        self.candidates, self.ks = candidates, tuple(ks)
        self.metrics = tuple(f"{what}_r{k}" for what in ("caption", "image") for k in self.ks)
        self.parts = {name: [] for name in (*COLUMNS, "caption_ids")}

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch.

        Args:
            outputs: `image_embeds` and `text_embeds`, numpy `(B, P)` of length 1.
            batch: `caption_ids` int `(B, N)`, of one `N` in all batches, `index` int `(B,)`, and
                `weight` `(B,)`: examples of weight 0 do not count.
        """
        real = np.asarray(batch["weight"]) > 0
        values = {**batch, **outputs}
        for name, rows in self.parts.items():
            rows.append(np.asarray(values[name])[real].astype(COLUMNS.get(name, np.int32)))

    def state(self) -> dict:
        """`{name: numpy array}` of everything given so far; {} where that is nothing."""
        return {name: np.concatenate(rows) for name, rows in self.parts.items() if rows}

    def merge(self, state: dict) -> None:
        """Add what another one was given.

        Args:
            state: Its `state()`.
        """
        for name, value in state.items():
            self.parts[name].append(np.asarray(value))

    def result(self) -> dict:
        """`{"test": {metric: fraction of the examples}}`: `caption_r1` of captions found by their
        image, `image_r1` of images found by their caption."""
        state = self.state()
        if not len(state.get("index", ())):
            return {"test": dict.fromkeys(self.metrics, float("nan"))}
        index, order = np.unique(state["index"], return_index=True)
        image, text, ids = (state[n][order] for n in ("image_embeds", "text_embeds", "caption_ids"))
        _, caption = np.unique(ids, axis=0, return_inverse=True)
        drawn = self.drawn(index, caption.reshape(-1))  # (N, C), the right one first
        result = {}
        for what, query, found in (("caption", image, text), ("image", text, image)):
            near = np.einsum("np,ncp->nc", query, found[drawn])
            rank = np.sum(near[:, 1:] >= near[:, :1], axis=1)
            result |= {f"{what}_r{k}": float(np.mean(rank < k)) for k in self.ks}
        return {"test": result}

    def drawn(self, index, caption) -> np.ndarray:
        """Candidates of each example, itself first: positions int `(N, C)`.

        Args:
            index: The examples' numbers, int `(N,)`, in their order.
            caption: Which caption each has, int `(N,)`, 0 and so on.
        """
        count = caption.max() + 1
        size = min(self.candidates, count)
        order = np.argsort(caption, kind="stable")  # by caption: where each one's examples stand
        first = np.searchsorted(caption[order], np.arange(count))
        many = np.bincount(caption)
        rows = np.empty((len(index), size), np.int64)
        for row, (number, own) in enumerate(zip(index.tolist(), caption.tolist(), strict=True)):
            rng = np.random.default_rng(number)
            other = rng.choice(count - 1, size - 1, replace=False)
            other += other >= own
            which = (rng.random(size - 1) * many[other]).astype(np.int64)
            rows[row] = row, *order[first[other] + which]
        return rows


class ZeroShot(Confusion):
    """Classes that are told by the nearest of their names, of the examples that show one.

    An example's class is its `label`; of a list of objects, `labels`, that of the only one. Others
    do not count.

    Args:
        class_names: Names in the order of the labels.
        keep: See `Confusion`.
    """

    metrics = ("zero_shot_top1", *Confusion.metrics)

    def update(self, outputs, batch):
        """Add a batch: `outputs` as of `Confusion`, and `label` `(B,)` or `labels` `(B, M)`, -1
        where there is none."""
        label = only_class(batch)
        weight = np.asarray(batch["weight"]) * (label >= 0)
        super().update(outputs, {**batch, "label": label, "weight": weight})

    def result(self):
        """As of `Confusion`, with `zero_shot_top1`."""
        result = super().result()
        count = self.matrix.sum()
        top1 = float(np.trace(self.matrix) / count) if count else float("nan")
        return {**result, "test": {"zero_shot_top1": top1, **result["test"]}}


def only_class(batch) -> np.ndarray:
    """The class of each example int `(B,)`, -1 where it shows none, or several objects."""
    if "label" in batch:
        return np.asarray(batch["label"])
    labels = np.asarray(batch["labels"])
    single = np.sum(labels >= 0, axis=1) == 1
    return np.where(single, labels.max(axis=1), -1)
