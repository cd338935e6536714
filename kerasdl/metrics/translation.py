"""How near translations are to their references: BLEU, and exact matches by group.

Source: Papineni et al. 2002, BLEU; Post 2018, https://arxiv.org/abs/1804.08771 (sacrebleu).
"""

import numpy as np

SHOWN = 24  # translations that are kept for the report, the wrong ones first


class Translations:
    """Compares decoded targets with their references.

    Args:
        pieces: `kerasdl.ops.text.Pieces` of the tokenizer.
        group_names: Names of the groups that the batch's `group` numbers, or ().
    """

    def __init__(self, pieces, group_names=()):
        self.pieces = pieces
        self.group_names = group_names
        self.sources, self.targets, self.references, self.groups = [], [], [], []

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch of numpy arrays; examples of weight 0 do not count."""
        real = np.flatnonzero(np.asarray(batch["weight"]) > 0)
        for i in real:
            self.sources.append(self.pieces.decode(batch["source_ids"][i]))
            self.references.append(self.pieces.decode(batch["target_ids"][i, 1:]))
            self.targets.append(self.pieces.decode(outputs["target_ids"][i]))
            self.groups.append(int(batch["group"][i]) if "group" in batch else 0)

    def result(self) -> dict:
        """`test`: BLEU in [0, 100] and the share of exact matches; `groups`: the share in each;
        `translations`: some, wrong ones first."""
        from sacrebleu.metrics import BLEU

        right = np.array(
            [t == r for t, r in zip(self.targets, self.references, strict=True)], float
        )
        # References of fewer than four words have no longer n-grams to be judged by.
        words = max(len(BLEU().tokenizer(text).split()) for text in self.references)
        metric = BLEU(max_ngram_order=max(1, min(4, words)))
        bleu = metric.corpus_score(self.targets, [self.references])
        found = {"test": {"bleu": bleu.score, "exact_match": float(right.mean())}}
        if self.group_names:
            groups = np.array(self.groups)
            found["groups"] = {
                name: float(right[groups == i].mean())
                for i, name in enumerate(self.group_names)
                if (groups == i).any()
            }
        order = np.argsort(right, kind="stable")[:SHOWN]
        found["translations"] = [
            {
                "source": self.sources[i],
                "translation": self.targets[i],
                "reference": self.references[i],
            }
            for i in order
        ]
        return found
