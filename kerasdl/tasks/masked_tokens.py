"""Masked language modeling: some tokens of a text from those on both sides.

Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1 and appendix A.1.
"""

import math

import numpy as np
from keras import ops

from kerasdl.columns import ABSENT, Spec
from kerasdl.errors import UserError
from kerasdl.ops import decoding, noise
from kerasdl.ops.losses import token_cross_entropy
from kerasdl.ops.text import Pieces, Specials
from kerasdl.tasks import bounds
from kerasdl.tasks.task import Limit, Number, Signature, Task

# Streams of an example's key
PLACE, FATE, TOKEN = range(3)
MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens; the rest stays as it is
SAMPLES = 4  # texts filled in after an epoch


class MaskedTokens(Task):
    """Windows of a text, `token_ids` `(B, N)`, some of which are to be predicted.

    The setting `mask_rate` says which part of each example's tokens is chosen, at least one: of
    these 80 % become the mask token, 10 % another one at random, and 10 % stay as they are. Loss
    and accuracy are of the chosen tokens alone.
    """

    inputs = {"token_ids": Spec(("N",), "int32", "tokens")}
    settings = {"mask_rate": 0.15}
    allowed = {"mask_rate": Number(0.001, 0.999)}
    metrics = ("loss", "accuracy")
    monitor = "-loss"
    masks_tokens = True

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.label_smoothing = recipe.label_smoothing
        self.mask = Pieces(info.tokenizer).mask if info.tokenizer else None
        if self.mask is None:
            what = "the tokenizer has no mask token" if info.tokenizer else "there is no tokenizer"
            raise UserError(
                f"masked tokens: {what}, so it is not known which token is to be filled"
            )
        self.specials = Specials.of(info)
        self.never = tuple(dict.fromkeys((*self.specials.never, self.mask)))  # stand for no text
        self.text_ids = np.setdiff1d(np.arange(info.vocab_size), self.never).astype("int32")

    def arguments(self):
        return {"vocab_size": self.info.vocab_size, "max_length": self.info.max_length}

    def sizes(self):
        return {"N": self.info.max_length} if self.info.max_length else {}

    def prepare(self, batch):
        """The `masked_ids` that the model is given, and which were `chosen`."""
        if "masked_ids" in batch:
            return batch
        ids = batch["token_ids"][:, : self.info.max_length]  # windows have one more
        key, shape = batch["key"], (ids.shape[1],)
        text = ops.logical_not(self._among(ids, self.never))
        place = ops.where(text, noise.uniform(key, shape, PLACE, "float32"), 2.0)
        rank = ops.argsort(ops.argsort(place, axis=-1), axis=-1)
        number = ops.sum(ops.cast(text, "float32"), axis=-1, keepdims=True)
        count = ops.maximum(ops.round(self.settings["mask_rate"] * number), 1.0)
        chosen = ops.logical_and(ops.cast(rank, "float32") < count, text)
        fate = noise.uniform(key, shape, FATE, "float32")
        other = noise.randint(key, shape, 0, len(self.text_ids), TOKEN)
        other = ops.take(ops.convert_to_tensor(self.text_ids), other, axis=0)
        new = ops.where(fate < MASKED, self.mask, ops.where(fate < MASKED + REPLACED, other, ids))
        return {**batch, "masked_ids": ops.where(chosen, new, ids), "chosen": chosen}

    def _among(self, ids, some):
        """Whether each of the ids is one of some."""
        some = ops.convert_to_tensor(np.array(some, "int32"))
        return ops.any(ops.equal(ids[..., None], some), axis=-1)

    def model_inputs(self, model, batch):
        return batch["masked_ids"]

    def losses(self, model, batch, player="model", training=False):
        logits = model(self.model_inputs(model, batch), training=training)
        label = batch["token_ids"][:, : logits.shape[1]]
        counts = ops.cast(batch["chosen"], logits.dtype)  # (B, N)
        each = token_cross_entropy(label, logits, self.label_smoothing * training)
        right = ops.cast(decoding.greedy(logits) == label, logits.dtype)
        number = ops.sum(counts, axis=-1)  # an example counts as much as it has chosen tokens
        loss = ops.sum(each * counts, axis=-1)
        return (loss, number), {"accuracy": (ops.sum(right * counts, axis=-1), number)}

    def summarize(self, means, part):
        if "loss" not in means:
            return means
        return {**means, "perplexity": math.exp(min(means["loss"], 700.0))}

    def predict(self, model, batch):
        return {"logits": model(self.model_inputs(model, batch), training=False)}

    def fill(self, model, token_ids):
        """The likeliest token at each mask of `(B, N)`; the others stay."""
        logits = decoding.suppress(model(token_ids, training=False), self.never)
        return ops.where(token_ids == self.mask, decoding.greedy(logits), token_ids)

    def pictures(self, model, batch):
        ids = batch["masked_ids"][:SAMPLES]
        # Line by line: what the model is given, and what it makes of it.
        both = ops.stack([ids, self.fill(model, ids)], axis=1)
        return {"filled": ops.reshape(both, (-1, ids.shape[1]))}

    def signatures(self, model):
        def serve(token_ids, token_ids_length):
            return {"token_ids": self.fill(model, token_ids)}

        def scores(token_ids):
            return {"logits": model(token_ids, training=False)}

        def fill(token_ids, token_ids_length):
            place = ops.arange(ops.shape(token_ids)[1], dtype="int32")[None]
            inside = place < ops.cast(token_ids_length, "int32")[:, None]
            return {"filled_ids": self.fill(model, ops.where(inside, token_ids, self.specials.pad))}

        length = ("token_ids_length",)
        limits = [Limit(length, "text is empty", min=1)]
        if model.context:
            line = f"text is more than the context of {model.context} tokens"
            limits.append(Limit(length, line, max=model.context))
        together = bounds.tokens(model.context or self.info.max_length)
        line = f"texts, each as long as the longest, are over {together} tokens"
        tokens = {"token_ids": Spec(("N",), "int32", "tokens")}
        longest = self.info.max_length or 8
        lengths = np.array([longest, 1, longest // 2, longest], "int32")
        return [
            Signature(
                "serving_default",
                tokens,
                serve,
                formats=("savedmodel",),
                text_inputs={"token_ids": "text"},
                text_outputs={"token_ids": "text"},
                limits=(*limits, Limit(length, line, max=together, together=True)),
            ),
            Signature("logits", tokens, scores),
            Signature(
                "fill",
                tokens | {"token_ids_length": Spec((), "int32")},
                fill,
                formats=("tflite",),
                outputs={"filled_ids": Spec(("N",), "int32", "tokens")},
                examples={"token_ids_length": lengths},
                limits=tuple(limits),
            ),
        ]

    def served(self, columns):
        ids = columns["token_ids"]
        key = noise.keys(0, 0, columns.get("number", np.arange(len(ids))))
        prepared = self.prepare({"token_ids": ops.convert_to_tensor(ids), "key": key})
        masked, chosen = (np.asarray(prepared[name]) for name in ("masked_ids", "chosen"))
        pieces = Pieces(self.info.tokenizer)
        return {
            "token_ids": masked,
            "token_ids_length": np.full(len(ids), masked.shape[1], "int32"),
            "label": np.where(chosen, ids[:, : masked.shape[1]], ABSENT),
            "text": np.array([pieces.decode(row).encode() for row in masked], object),
        }

    def evaluated_by(self, target):
        return {
            "signature": "logits",
            "inputs": ["token_ids"],
            "output": "logits",
            "target": "label",
            "loss": "cross_entropy",
        }


TASK = MaskedTokens
