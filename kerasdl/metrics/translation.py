"""How near translations are to their references: BLEU, and exact matches by group.

Source: Papineni et al. 2002, BLEU; Post 2018, https://arxiv.org/abs/1804.08771 (sacrebleu).
"""

import numpy as np

from kerasdl.metrics.evaluator import Evaluator

SHOWN = 24  # translations that are kept for the report, the wrong ones first


class Translations(Evaluator):
    """Compares decoded targets with their references.

    Args:
        pieces: `kerasdl.ops.text.Pieces` of the tokenizer.
        group_names: Names of the groups that the batch's `group` numbers, or ().
    """

    def __init__(self, pieces, group_names=()):
        self.pieces = pieces
        self.group_names = group_names
        self.rows = []  # (number, group, source, target, reference) of each example

    metrics = ("bleu", "exact_match")

    def update(self, outputs, batch):
        real = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        for i in real:
            texts = (batch["source_ids"][i], outputs["target_ids"][i], batch["target_ids"][i, 1:])
            group = int(batch["group"][i]) if "group" in batch else 0
            self.rows.append((int(batch["index"][i]), group, *map(self.pieces.decode, texts)))

    def state(self):
        numbers = np.array([row[:2] for row in self.rows], np.int64).reshape(-1, 2)
        texts = [text.encode() for row in self.rows for text in row[2:]]
        lengths = np.array([len(text) for text in texts], np.int64)
        return {
            "numbers": numbers,
            "lengths": lengths,
            "texts": np.frombuffer(b"".join(texts), np.uint8),
        }

    def merge(self, state):
        ends = np.cumsum(state["lengths"])
        content = state["texts"].tobytes()
        texts = [content[e - n : e].decode() for e, n in zip(ends, state["lengths"], strict=True)]
        self.rows += [
            (*map(int, numbers), *texts[3 * i : 3 * i + 3])
            for i, numbers in enumerate(state["numbers"])
        ]

    def result(self) -> dict:
        """`test`: BLEU in [0, 100] and the fraction of exact matches; `groups`: it in each;
        `translations`: some, wrong ones first."""
        from sacrebleu.metrics import BLEU

        _, groups, sources, targets, references = zip(*sorted(self.rows), strict=True)
        right = np.array([t == r for t, r in zip(targets, references, strict=True)], float)
        # References of fewer than four words have no longer n-grams to be compared by.
        words = max(len(BLEU().tokenizer(text).split()) for text in references)
        metric = BLEU(max_ngram_order=max(1, min(4, words)))
        bleu = metric.corpus_score(targets, [references])
        result = {"test": {"bleu": bleu.score, "exact_match": float(right.mean())}}
        if self.group_names:
            groups = np.array(groups)
            result["groups"] = {
                name: float(right[groups == i].mean())
                for i, name in enumerate(self.group_names)
                if (groups == i).any()
            }
        order = np.argsort(right, kind="stable")[:SHOWN]
        result["translations"] = [
            {
                "source": sources[i],
                "translation": targets[i],
                "reference": references[i],
            }
            for i in order
        ]
        return result
