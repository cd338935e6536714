"""Translation: a target text from a source, by beam search; evaluated by BLEU and exact matches."""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.metrics.translation import Translations
from kerasdl.ops import beams, decoding
from kerasdl.ops.losses import token_cross_entropy
from kerasdl.ops.text import Pieces, Specials
from kerasdl.tasks.task import Limit, Number, Signature, Task


class Translate(Task):
    """Pairs of token ids: `source_ids` `(B, S)` with their end, `target_ids` `(B, T + 1)` from
    the token that begins them to their end, both padded; these ids are the `Specials` of the data.
    The decoder is given the target up to its last token and learns the next one.

    The settings say how a translation is looked for, as `kerasdl.ops.beams.Beam` has them:
    `beam_width` (1 is greedy), `length_penalty`, the exponent, `length_normalization`,
    `early_stopping`, `renormalize` and `forced_end`; and `max_new_tokens`, how long it may be with
    its end, if not as long as the data.
    """

    inputs = {
        "source_ids": Spec(("S",), "int32", "tokens"),
        "target_ids": Spec(("T",), "int32", "tokens"),
    }
    targets = {"group": Spec((), "int32", "label")}
    optional = ("group",)
    settings = {
        "beam_width": 4,
        "length_penalty": 0.6,
        "length_normalization": "wu",
        "early_stopping": None,
        "renormalize": True,
        "forced_end": False,
        "max_new_tokens": None,
    }
    allowed = {
        "beam_width": Number(1, whole=True),
        "length_penalty": Number(0),
        "length_normalization": beams.NORMALIZATIONS,
        "early_stopping": beams.EARLY,
        "renormalize": (True, False),
        "forced_end": (True, False),
        "max_new_tokens": Number(1, whole=True),
    }
    changeable = tuple(settings)
    metrics = ("loss", "token_accuracy")
    monitor = "-loss"
    served_examples = 256

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.label_smoothing = recipe.label_smoothing
        self.longest = (info.max_length or 0) + 1  # with the end
        self.total = min(self.longest, self.settings["max_new_tokens"] or self.longest)
        self.specials = Specials.of(info)
        if self.specials.begin is None or not self.specials.end:
            raise UserError("translation: the tokenizer has no token that begins or ends a text")

    def arguments(self):
        sizes = {"vocab_size": self.info.vocab_size, "max_length": self.longest}
        sizes["pad_id"] = self.specials.pad
        source, target = self._vocab_sizes()
        return sizes | ({"source_vocab_size": source, "vocab_size": target} if target else {})

    def _vocab_sizes(self):
        """Those of source and target where they have other vocabularies, else None for each."""
        columns = [self.info.columns.get(name) for name in self.inputs]
        sizes = [column and column.vocab_size for column in columns]
        return (None, None) if self.info.tokenizer or len(set(sizes)) < 2 else sizes

    def sizes(self):
        return {"S": self.longest, "T": self.total}

    def model_inputs(self, model, batch):
        return {"source_ids": batch["source_ids"], "target_ids": batch["target_ids"][:, :-1]}

    def losses(self, model, batch, player="model", training=False):
        logits = model(self.model_inputs(model, batch), training=training)
        label = batch["target_ids"][:, 1:]
        counts = ops.cast(label != self.specials.pad, logits.dtype)  # (B, T)
        each = token_cross_entropy(label, logits, self.label_smoothing * training)
        right = ops.cast(decoding.greedy(logits) == label, logits.dtype)
        number = ops.sum(counts, axis=-1)  # a sentence counts as much as it has tokens
        loss = ops.sum(each * counts, axis=-1)
        return (loss, number), {"token_accuracy": (ops.sum(right * counts, axis=-1), number)}

    @property
    def beam(self):
        """How a translation is looked for."""
        names = ("length_normalization", "early_stopping", "renormalize", "forced_end")
        width, alpha = self.settings["beam_width"], self.settings["length_penalty"]
        return beams.Beam(width, alpha, *(self.settings[name] for name in names))

    def translate(self, model, source_ids, beam):
        """The likeliest targets of sources `(B, S)`: ids `(B, total)`, and scores `(B,)`."""
        target, score = beams.search(
            model.decode_step,
            model.init_cache(source_ids, self.total),
            ops.shape(source_ids)[0],
            self.total,
            beam,
            self.specials,
        )
        return {"target_ids": target, "score": score}

    def predict(self, model, batch):
        return self.translate(model, batch["source_ids"], self.beam)

    def evaluators(self):
        if not self.info.tokenizer:
            return []
        return [Translations(Pieces(self.info.tokenizer), self.info.class_names)]

    def signatures(self, model):
        def serve(source_ids, source_ids_length):
            # The end where the padding begins.
            wide = ops.pad(source_ids, ((0, 0), (0, 1)), constant_values=self.specials.pad)
            place = ops.arange(ops.shape(wide)[1], dtype="int32")[None]
            ended = place == source_ids_length[:, None]
            return self.translate(model, ops.where(ended, self.specials.end[0], wide), self.beam)

        def greedy(source_ids):
            return self.translate(model, source_ids, beams.Beam(forced_end=self.beam.forced_end))

        def beam(source_ids):
            return self.translate(model, source_ids, self.beam)

        def logits(source_ids, target_ids):
            inputs = {"source_ids": source_ids, "target_ids": target_ids}
            return {"logits": model(inputs, training=False)}

        length, maximum = ("source_ids_length",), self.longest - 1
        limits = (
            Limit(length, "source is empty", min=1),
            Limit(length, f"source has more than {maximum} tokens", max=maximum),
        )
        source = {"source_ids": Spec(("S",), "int32", "tokens")}
        target = {"target_ids": Spec((self.total,), "int32", "tokens")}
        main = Signature(
            "serving_default",
            source,
            serve,
            formats=("savedmodel",),
            text_inputs={"source_ids": "source"},
            text_outputs={"target_ids": "target"},
            limits=limits,
        )
        device = {"formats": ("tflite",), "outputs": target}
        result = [main, Signature("greedy", source, greedy, limits=limits, **device)]
        if self.beam.early_stopping and self.beam.width > 1:
            result.append(Signature("beam", source, beam, **device))
        if not self.info.tokenizer:  # ids as the data have them, with their end
            result[0] = Signature("serving_default", source, beam, ("savedmodel",), target)
            largest = (self._vocab_sizes()[1] or self.info.vocab_size) - 1
            given = {"target_ids": Spec(("T",), "int32", "tokens", min=0, max=largest)}
            result.append(Signature("logits", source | given, logits))
        return result

    def served(self, columns):
        source, target = columns["source_ids"], columns["target_ids"][:, 1:]
        width, pad = self.total, self.specials.pad
        more = ((0, 0), (0, max(0, width - target.shape[1])))
        served = {
            "source_ids": source,
            "target_ids": np.pad(target, more, constant_values=pad)[:, :width],
        }
        if not self.info.tokenizer:
            return served
        pieces = Pieces(self.info.tokenizer)

        def texts(ids):
            return np.array([pieces.decode(row).encode() for row in ids], object)

        return served | {"source": texts(source), "target": texts(target)}

    def evaluated_by(self, target):
        signature, inputs, output = "greedy", ["source_ids"], "target_ids"
        if target == "savedmodel":
            signature = "serving_default"
            if self.info.tokenizer:
                inputs, output = ["source"], "target"
        return {"signature": signature, "inputs": inputs, "output": output, "target": output}


TASK = Translate
