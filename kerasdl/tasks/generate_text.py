"""Language modeling: each next token from those before it; measured in bits, shown in samples."""

import math

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.ops import decoding
from kerasdl.ops.losses import token_cross_entropy
from kerasdl.ops.text import Pieces, Specials
from kerasdl.tasks import bounds
from kerasdl.tasks.task import Limit, Number, Signature, Task

BALANCE_WEIGHT = 0.01  # of experts' loads, Fedus et al. 2021, section 2.2
SAMPLES = 4  # texts written after an epoch
PROMPT = 8  # tokens that they start from, at most
GREEDY_TOKENS = 32  # written by the loop in TFLite files


class GenerateText(Task):
    """Windows of a text, `token_ids` `(B, N + 1)`: every token but the first is a target.

    The settings say how samples are taken after each epoch: `temperature` (0 is greedy), `top_k`
    (0 is all), `top_p`, and `sample_tokens`, how many.
    """

    inputs = {"token_ids": Spec(("N",), "int32", "tokens")}
    settings = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "sample_tokens": 200}
    allowed = {
        "temperature": Number(0, 1_000_000),
        "top_k": Number(0, 2**31 - 1, whole=True),
        "top_p": Number(1e-6, 1),
        "sample_tokens": Number(1, 2**20, whole=True),
    }
    metrics = ("loss", "accuracy")
    monitor = "-loss"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.specials = Specials.of(info)
        # What is never written ends no text.
        self.end = tuple(i for i in self.specials.end if i not in self.specials.never)
        self.prompt = max(1, min(PROMPT, (info.max_length or 3 * PROMPT) // 3))
        self.label_smoothing = recipe.label_smoothing

    def arguments(self):
        return {"vocab_size": self.info.vocab_size, "max_length": self.info.max_length}

    def sizes(self):
        return {"N": self.info.max_length} if self.info.max_length else {}

    def model_inputs(self, model, batch):
        return batch["token_ids"][:, :-1]

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        heads = outputs if isinstance(outputs, dict) else {"logits": outputs}
        logits = heads["logits"]
        label = batch["token_ids"][:, 1:]
        loss = token_cross_entropy(label, logits, self.label_smoothing * training)
        right = ops.cast(decoding.greedy(logits) == label, logits.dtype)
        loss = ops.mean(loss, axis=-1)
        if training and "balance_loss" in heads:
            loss = loss + BALANCE_WEIGHT * ops.cast(heads["balance_loss"], loss.dtype)
        return loss, {"accuracy": ops.mean(right, axis=-1)}

    def summarize(self, means, part):
        if "loss" not in means:
            return means
        bits = (
            means["loss"]
            / math.log(2)
            * self.info.first("tokens").tokens_per_character.get(part, 1.0)
        )
        perplexity = math.exp(min(means["loss"], 700.0))
        return {**means, "perplexity": perplexity, "bits_per_character": bits}

    def predict(self, model, batch):
        return {"logits": model(self.model_inputs(model, batch), training=False)}

    def generate(
        self,
        model,
        token_ids,
        token_ids_length,
        max_new_tokens,
        temperature,
        top_k,
        seed,
        top_p=None,
    ):
        """Continue prompts.

        Args:
            model: A language model with `start` and `decode_step`.
            token_ids: int32 `(B, N)`, `N` at least 1.
            token_ids_length: int32 `(B,)`, at least 1.
            max_new_tokens, top_k, seed: int32 `(B,)`.
            temperature, top_p: float32 `(B,)`.

        Returns:
            `{"token_ids": int32 (B, M)}`: prompts and continuations, then padding.
        """
        key = ops.stack([ops.cast(seed, "uint32"), ops.zeros_like(ops.cast(seed, "uint32"))], -1)
        limit = token_ids_length + ops.maximum(max_new_tokens, 0)
        total = ops.maximum(ops.max(limit), ops.shape(token_ids)[1])

        def choose(logits, position):
            logits = self.writable(logits)
            return decoding.sample(logits, key, position, temperature, top_k, top_p)

        state = model.init_cache(ops.shape(token_ids)[0], total)
        written = decoding.generate(
            *(model.decode_step, state, token_ids, token_ids_length, total, limit, choose),
            end=self.end,
            pad=self.specials.pad,
        )
        return {"token_ids": written}

    def writable(self, logits):
        """Logits `(..., V)` without those of tokens that are never written."""
        return decoding.suppress(logits, self.specials.never)

    def pictures(self, model, batch):
        prompt = batch["token_ids"][:SAMPLES, : self.prompt]
        count, width = prompt.shape
        new = min(self.settings["sample_tokens"], (model.context or math.inf) - width)

        def filled(value, dtype):
            return ops.full((count,), value, dtype)

        written = self.generate(
            model,
            prompt,
            filled(width, "int32"),
            filled(int(new), "int32"),
            filled(self.settings["temperature"], "float32"),
            filled(self.settings["top_k"], "int32"),
            ops.arange(count, dtype="int32"),
            filled(self.settings["top_p"], "float32"),
        )
        return {"samples": written["token_ids"]}

    def signatures(self, model):
        one, number = Spec((), "int32"), Spec((), "float32")

        def serve(**inputs):
            return self.generate(model, **inputs)

        length = ("token_ids_length",)
        alone = [Limit(length, "text is empty", min=1)]  # of a file that takes no settings
        limits = [
            *alone,
            Limit(("max_new_tokens",), "max_new_tokens must be 0 or more", min=0),
            Limit(("temperature",), "temperature must be 0 or more", min=0),
            Limit(("top_k",), "top_k must be 0 or more", min=0),
        ]
        whole = (*length, "max_new_tokens")
        if model.context:
            line = f"text and max_new_tokens are more than the context of {model.context} tokens"
            limits.append(Limit(whole, line, max=model.context))
            alone.append(Limit(length, line, max=model.context))
        count = bounds.tokens(model.context or self.info.max_length)
        line = f"texts and max_new_tokens, each as many as the largest, are over {count} tokens"
        limits.append(Limit(whole, line, max=count, together=True))

        def next_token(token_ids):
            if model.context:  # of more tokens the last ones count
                token_ids = token_ids[:, -model.context :]
            return {"logits": self._following(model, token_ids, lambda x: x[:, -1:])}

        def next_token_after(token_ids, token_ids_length):
            last = ops.cast(token_ids_length, "int32")[:, None, None] - 1
            return {
                "logits": self._following(
                    model, token_ids, lambda x: ops.take_along_axis(x, last, axis=1)
                )
            }

        def greedy(token_ids, token_ids_length):
            batch, width = ops.shape(token_ids)[0], ops.shape(token_ids)[1]
            total = width + GREEDY_TOKENS
            written = decoding.generate(
                model.decode_step,
                model.init_cache(batch, model.context or total),
                token_ids,
                token_ids_length,
                total,
                ops.minimum(token_ids_length + GREEDY_TOKENS, model.context or total),
                lambda logits, position: decoding.greedy(self.writable(logits)),
                prefill=False,
                end=self.end,
                pad=self.specials.pad,
            )
            new = token_ids_length[:, None] + ops.arange(GREEDY_TOKENS, dtype="int32")[None]
            return {"token_ids": ops.take_along_axis(written, new, axis=1)}

        tokens = {"token_ids": Spec(("N",), "int32", "tokens")}
        settings = {"max_new_tokens": one, "temperature": number, "top_k": one, "seed": one}
        # Twice: what is decoded may be encoded in more tokens.
        room = min(8, (model.context or 4 * PROMPT) - 2 * self.prompt)
        examples = {
            "max_new_tokens": np.array([room, room // 2, 0, room], "int32"),
            "temperature": np.array([0.0, 1.0, 0.7, 0.0], "float32"),
            "top_k": np.array([0, 5, 0, 1], "int32"),
            "seed": np.array([0, 1, 2, 3], "int32"),
        }
        longest = self.info.max_length or 2 * self.prompt
        lengths = np.array([longest, 1, longest // 2, longest], "int32")
        device = {  # of files that are given how many of the tokens count
            "inputs": tokens | {"token_ids_length": one},
            "formats": ("tflite",),
            "examples": {"token_ids_length": lengths},
            "limits": tuple(alone),
        }
        return [
            Signature(
                "serving_default",
                tokens | settings,
                serve,
                formats=("savedmodel",),
                text_inputs={"token_ids": "text"},
                text_outputs={"token_ids": "text"},
                examples=examples,
                limits=tuple(limits),
                cases=() if self.info.tokenizer else tuple(self._requests(examples)),
            ),
            Signature("next_token", tokens, next_token, formats=("savedmodel",)),
            Signature("next_token", function=next_token_after, **device),
            Signature(
                "greedy",
                function=greedy,
                outputs={"token_ids": Spec((GREEDY_TOKENS,), "int32", "tokens")},
                **device,
            ),
        ]

    def _following(self, model, token_ids, last):
        """Logits `(B, V)` at the position that `last` takes of `(B, N, ...)`.

        The other positions are not scored where the model can: of a large vocabulary their logits
        are larger than the model.
        """
        if hasattr(model, "encode"):
            return model.score(last(model.encode(token_ids)))[:, 0]
        return last(model(token_ids, training=False))[:, 0]

    def _requests(self, settings):
        """Whole requests of token ids, of one prompt and of three."""
        rng = np.random.default_rng(0)
        for n in (1, 3):
            ids = rng.integers(0, self.info.vocab_size, (n, self.prompt), dtype=np.int32)
            lengths = np.maximum(1, self.prompt - np.arange(n, dtype=np.int32))
            some = {name: values[:n] for name, values in settings.items()}
            yield {"token_ids": ids, "token_ids_length": lengths, **some}

    def served(self, columns):
        ids = columns["token_ids"]
        served = {
            "token_ids": ids[:, :-1],
            "token_ids_length": np.full(len(ids), ids.shape[1] - 1, "int32"),
            "label": ids[:, -1],
        }
        if not self.info.tokenizer:
            return served
        pieces = Pieces(self.info.tokenizer)
        texts = [pieces.decode(row[: self.prompt]) for row in ids]
        return served | {"text": np.array([text.encode() for text in texts], object)}

    def evaluated_by(self, target):
        return {
            "signature": "next_token",
            "inputs": ["token_ids"] + ["token_ids_length"] * (target == "tflite"),
            "output": "logits",
            "target": "label",
            "loss": "cross_entropy",
        }


TASK = GenerateText
