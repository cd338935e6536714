"""Models that no paper describes, for what a signature may take and give; and their exports."""

import json

import keras
import numpy as np
from keras import ops

from kerasdl.columns import ABSENT, Column, DataInfo, Spec
from kerasdl.data.text.tokenizer import train
from kerasdl.export import saved_model
from kerasdl.inference.signatures import functions, interface
from kerasdl.recipe import Recipe
from kerasdl.tasks.task import Limit, Signature, Task

SHAPE, ANSWERS = (6, 5, 3), ("yes", "no", "three")
LETTERS, QUESTION = "what is this?", 20  # that questions are made of, and how many at most


class Answers(keras.Model):
    """Scores of answers to a question about an image: a sum over both."""

    def __init__(self, vocab_size):
        super().__init__()
        rng = np.random.default_rng(0)
        self.of_image = self.add_weight(shape=(3, len(ANSWERS)), name="of_image")
        self.of_tokens = self.add_weight(shape=(vocab_size, len(ANSWERS)), name="of_tokens")
        self.of_image.assign(rng.normal(size=self.of_image.shape))
        self.of_tokens.assign(rng.normal(size=self.of_tokens.shape))
        self.built = True

    def call(self, inputs):
        pixels = ops.matmul(ops.mean(inputs["image"], axis=(1, 2)), self.of_image)
        known = ops.cast(inputs["token_ids"] > 0, "float32")[..., None]
        words = ops.sum(known * ops.take(self.of_tokens, inputs["token_ids"], axis=0), axis=1)
        return pixels + words


class AnswerQuestions(Task):
    """An answer of some to a question about an image."""

    def __init__(self):
        tokenizer = train("char", [LETTERS])
        columns = {
            "image": Column("image", SHAPE),
            "token_ids": Column("tokens", ("N",), tokenizer="text"),
            "label": Column("label", (), ANSWERS),
        }
        super().__init__(DataInfo(columns, {"text": tokenizer.to_json()}), Recipe(model="answers"))
        self.tokenizer = tokenizer

    def signatures(self, model):
        def serve(image, token_ids, token_ids_length=None):
            logits = model({"image": image, "token_ids": token_ids})
            label = ops.cast(ops.top_k(logits, 1)[1][:, 0], "int32")
            return {"label": label, "probabilities": ops.softmax(logits)}

        inputs = {
            "image": Spec(SHAPE, "float32", "image"),
            "token_ids": Spec(("N",), "int32", "tokens"),
        }
        return [
            Signature(
                "serving_default",
                inputs,
                serve,
                outputs={"label": Spec((), "int32", "label")},
                text_inputs={"token_ids": "text"},
                limits=(
                    Limit(("token_ids_length",), "text is empty", min=1),
                    Limit(("token_ids_length",), f"text has over {QUESTION} tokens", max=QUESTION),
                ),
            )
        ]


class FindThings(Task):
    """The upper and the lower half of an image as boxes, with masks or without, and its darker
    pixels as a mask: by the name of the model."""

    def __init__(self):
        columns = {
            "image": Column("image", SHAPE),
            "mask": Column("mask", SHAPE[:2], ("background", "dark")),
            "boxes": Column("boxes", ("M", 4)),
            "labels": Column("label", ("M",), ("upper", "lower")),
        }
        super().__init__(DataInfo(columns), Recipe(model="things"))

    def signatures(self, model):
        halves = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 0, 0]], "float32")

        def boxes(image):
            count = ops.shape(image)[0]
            labels = np.array([[0, 1, ABSENT]], "int32")
            scores = ops.mean(image, axis=(2, 3))[:, :3]
            return {
                "boxes": ops.tile(halves[None], (count, 1, 1)),
                "labels": ops.tile(labels, (count, 1)),
                "scores": scores,
            }

        def mask(image):
            return {"mask": ops.cast(ops.mean(image, axis=-1) < 0.5, "int32"), "logits": image}

        image = {"image": Spec(SHAPE, "float32", "image")}
        if model.name == "masks":
            outputs = {"mask": Spec(SHAPE[:2], "int32", "mask")}
            return [Signature("serving_default", image, mask, outputs=outputs)]
        outputs = {
            "boxes": Spec((3, 4), "float32", "boxes"),
            "labels": Spec((3,), "int32", "label"),
        }
        if model.name == "boxes":
            return [Signature("serving_default", image, boxes, outputs=outputs)]

        def instances(image):
            found, dark = boxes(image), ops.mean(image, axis=-1) < 0.5
            upper = np.arange(SHAPE[0])[:, None] < SHAPE[0] // 2
            masks = ops.stack([dark & upper, ~dark & ~upper, dark], axis=1)
            return found | {"masks": ops.cast(masks, "uint8")}

        outputs["masks"] = Spec((3, *SHAPE[:2]), "uint8", "instances")
        return [Signature("serving_default", image, instances, outputs=outputs)]


def write(task, model, folder):
    """A SavedModel and its card, as far as it is needed to ask it; returns the folder."""
    tokenizer = getattr(task, "tokenizer", None)
    endpoints = saved_model.traced(functions(task, model, "savedmodel", tokenizer))
    saved_model.write(endpoints, folder, tokenizer)
    (folder / "assets.extra").mkdir()
    card = {
        "model": task.run_recipe.model,
        "data": json.loads(task.info.to_json()),
        "interface": interface(task, model),
    }
    (folder / "assets.extra" / "card.json").write_text(json.dumps(card))
    return folder
