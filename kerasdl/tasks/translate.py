"""Translation: a target text from a source, by beam search; evaluated by BLEU and exact matches."""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.metrics.translation import Translations
from kerasdl.ops import decoding
from kerasdl.ops.losses import token_cross_entropy
from kerasdl.ops.text import EOS, PAD, Pieces
from kerasdl.tasks.task import Limit, Number, Signature, Task


class Translate(Task):
    """Pairs of token ids: `source_ids` `(B, S)` ending in `EOS`, `target_ids` `(B, T + 1)` from
    `BOS` to `EOS`, both padded with `PAD`. The decoder is given the target up to its last token and
    learns the next one.

    The settings: `beam_width` (1 is greedy) and `length_penalty`, the exponent alpha of Wu et al.
    """

    inputs = {
        "source_ids": Spec(("S",), "int32", "tokens"),
        "target_ids": Spec(("T",), "int32", "tokens"),
    }
    targets = {"group": Spec((), "int32", "label")}
    optional = ("group",)
    settings = {"beam_width": 4, "length_penalty": 0.6}
    allowed = {"beam_width": Number(1, whole=True), "length_penalty": Number(0)}
    metrics = ("loss", "token_accuracy")
    monitor = "-loss"
    served_examples = 256

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.label_smoothing = recipe.label_smoothing
        self.longest = (info.max_length or 0) + 1  # with EOS

    def arguments(self):
        return {"vocab_size": self.info.vocab_size, "max_length": self.longest}

    def sizes(self):
        return {"S": self.longest}

    def model_inputs(self, model, batch):
        return {"source_ids": batch["source_ids"], "target_ids": batch["target_ids"][:, :-1]}

    def losses(self, model, batch, player="model", training=False):
        logits = model(self.model_inputs(model, batch), training=training)
        label = batch["target_ids"][:, 1:]
        counts = ops.cast(label != PAD, logits.dtype)  # (B, T)
        each = token_cross_entropy(label, logits, self.label_smoothing * training)
        right = ops.cast(decoding.greedy(logits) == label, logits.dtype)
        number = ops.sum(counts, axis=-1)  # a sentence counts as much as it has tokens
        loss = ops.sum(each * counts, axis=-1)
        return (loss, number), {"token_accuracy": (ops.sum(right * counts, axis=-1), number)}

    def translate(self, model, source_ids, width=1, alpha=0.0):
        """The likeliest targets of sources `(B, S)`: ids `(B, longest)`, and scores `(B,)`."""
        target, score = decoding.search(
            model.decode_step,
            model.init_cache(source_ids, self.longest),
            ops.shape(source_ids)[0],
            self.longest,
            width,
            alpha,
        )
        return {"target_ids": target, "score": score}

    def predict(self, model, batch):
        return self.translate(model, batch["source_ids"], **self._beam())

    def _beam(self):
        return {
            "width": self.settings["beam_width"],
            "alpha": self.settings["length_penalty"],
        }

    def evaluators(self):
        return [Translations(Pieces(self.info.tokenizer), self.info.class_names)]

    def signatures(self, model):
        def serve(source_ids, source_ids_length):
            # EOS where the padding begins.
            wide = ops.pad(source_ids, ((0, 0), (0, 1)), constant_values=PAD)
            place = ops.arange(ops.shape(wide)[1], dtype="int32")[None]
            source_ids = ops.where(place == source_ids_length[:, None], EOS, wide)
            return self.translate(model, source_ids, **self._beam())

        length, maximum = ("source_ids_length",), self.longest - 1
        limits = (
            Limit(length, "source is empty", min=1),
            Limit(length, f"source has more than {maximum} tokens", max=maximum),
        )

        def greedy(source_ids):
            return self.translate(model, source_ids)

        source = {"source_ids": Spec(("S",), "int32", "tokens")}
        target = {"target_ids": Spec((self.longest,), "int32", "tokens")}
        return [
            Signature(
                "serving_default",
                source,
                serve,
                formats=("savedmodel",),
                text_inputs={"source_ids": "source"},
                text_outputs={"target_ids": "target"},
                limits=limits,
            ),
            Signature("greedy", source, greedy, formats=("tflite",), outputs=target, limits=limits),
        ]

    def served(self, columns):
        pieces = Pieces(self.info.tokenizer)

        def texts(ids):
            return np.array([pieces.decode(row).encode() for row in ids], object)

        source, target = columns["source_ids"], columns["target_ids"][:, 1:]
        return {
            "source_ids": source,
            "target_ids": np.pad(target, ((0, 0), (0, self.longest - target.shape[1]))),
            "source": texts(source),
            "target": texts(target),
        }

    def evaluated_by(self, target):
        signature, inputs, output = "greedy", ["source_ids"], "target_ids"
        if target == "savedmodel":
            signature, inputs, output = "serving_default", ["source"], "target"
        return {"signature": signature, "inputs": inputs, "output": output, "target": output}


TASK = Translate
