"""Images and their captions in one space: each is told from all others by its counterpart.

Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, sections 2.3 and 3.1.
"""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.metrics.retrieval import Retrieval, ZeroShot
from kerasdl.ops.gather import gather, offset
from kerasdl.ops.losses import image_text, unit
from kerasdl.ops.text import Pieces, Specials
from kerasdl.tasks import bounds
from kerasdl.tasks.task import Limit, Signature, Task

CANDIDATES = 10  # texts of one image in files with fixed sizes, where the data have no classes
LARGEST_SCALE = 100.0  # that cosines are ever multiplied by; section 2.5
NAME = "{}"  # what a template has where the name of a class goes


class ContrastTexts(Task):
    """Images, and captions `caption_ids` `(B, N)` with the tokens that begin and end them, padded.

    The loss is the symmetric cross entropy of all replicas' images and captions;
    `contrast_top1` is how often what is nearest is right, where captions that are equal are all
    right; of the loss they are negatives, as in the paper, see `image_text`. The scale of the
    cosines is kept at 100 at most. Models have `encode_image`, `encode_text`, `features`, `project`
    and `logits`.

    Where the data have classes, an image is also told by the nearest of their names, each written
    into every one of the `templates` (`["a photo of a {}"]`), whose embeddings are averaged; they
    are embedded anew with each batch. Retrieval is evaluated among 100 candidates.
    """

    inputs = {
        "image": Spec(("H", "W", "C"), "float32", "image"),
        "caption_ids": Spec(("N",), "int32", "tokens"),
    }
    targets = {"label": Spec((), "int32", "label"), "labels": Spec(("M",), "int32", "label")}
    optional = tuple(targets)
    settings = {"templates": ("a photo of a {}",)}
    coupled = True
    metrics = ("loss", "contrast_top1")
    monitor = "-loss"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.inputs = {**self.inputs, "image": Spec(tuple(info.image_shape), "float32", "image")}
        self.specials = Specials.of(info)
        if not self.specials.end:
            raise UserError("captions: the tokenizer has no token that ends a text")
        templates = self.settings["templates"]
        self.templates = (templates,) if isinstance(templates, str) else tuple(templates)
        for template in self.templates or ("",):
            if not isinstance(template, str) or NAME not in template:
                raise UserError(
                    f"--task-kwargs templates={template}: must be texts with {NAME} in each, where "
                    "the name of a class goes"
                )
        self.class_names = self._class_names()
        if info.tokenizer:
            self.texts = tuple(
                template.replace(NAME, name)
                for name in self.class_names
                for template in self.templates
            )

    def _class_names(self):
        """Of the label, or else of the objects' labels; () where the data have neither."""
        columns = (self.info.columns.get(name) for name in self.targets)
        return next((c.class_names for c in columns if c and c.class_names), ())

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
            "vocab_size": self.info.vocab_size,
            "max_length": self.info.max_length,
            "eos_id": self.specials.end[0],
        }

    def sizes(self):
        return {"N": self.info.max_length, "K": self.candidates}

    @property
    def candidates(self):
        """Texts of one image, where their number must be fixed."""
        return len(self.class_names) or CANDIDATES

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        image, text = outputs["image_embeds"], outputs["text_embeds"]
        ids = ops.cast(batch["caption_ids"], image.dtype)  # the same on all replicas: exact
        same = ops.all(ids[:, None] == gather(ids)[None], axis=-1)
        weight = None if training else gather(batch["weight"])  # what fills the last batch up
        loss, top1 = image_text(
            *(image, text, gather(image), gather(text), ops.exp(model.logit_scale)),
            *(offset(image), weight, same),
        )
        return loss, {"contrast_top1": top1}

    def after_update(self, model, carry):
        largest = np.log(LARGEST_SCALE)
        model.logit_scale.assign(ops.minimum(model.logit_scale, largest))

    def predict(self, model, batch):
        features = model.features(batch["image"])
        image_embeds = model.project(features)  # in at least float32
        outputs = {
            "features": ops.cast(features, image_embeds.dtype),
            "image_embeds": image_embeds,
            "text_embeds": model.encode_text(batch["caption_ids"]),
        }
        if self.text_ids is not None:
            logits = model.logits(image_embeds, self.class_embeds(model))
            outputs["probabilities"] = ops.softmax(logits, axis=-1)
            outputs["label"] = ops.cast(ops.argmax(logits, axis=-1), "int32")
        return outputs

    def class_embeds(self, model):
        """Embeddings `(K, P)` of length 1 of the classes: means over the templates (section 3.1.4).

        Of names that are too long the beginning counts.
        """
        texts = [ids[: self.info.max_length - 2] for ids in self.text_ids]
        lengths = np.array([len(ids) for ids in texts], "int32")
        rows = np.full((len(texts), lengths.max()), self.specials.pad, "int32")
        for row, ids in zip(rows, texts, strict=True):
            row[: len(ids)] = ids
        ids = self.framed(ops.convert_to_tensor(rows), ops.convert_to_tensor(lengths))
        embeds = model.encode_text(ids)  # (K T, P)
        embeds = ops.reshape(embeds, (-1, len(self.templates), embeds.shape[-1]))
        return unit(ops.mean(embeds, axis=1))

    def framed(self, ids, length):
        """Texts as captions have them: begun and ended, where their tokenizer does not do so.

        Args:
            ids: int32 `(B, N)`.
            length: int32 `(B,)`, how many of them are of the text, 1 or more.

        Returns:
            int32 `(B, N + 2)`, padded.
        """
        pad, begin, end = self.specials.pad, self.specials.begin, self.specials.end[0]
        length = ops.cast(length, "int32")[:, None]
        wide = ops.pad(ops.cast(ids, "int32"), ((0, 0), (0, 2)), constant_values=pad)
        place = ops.arange(ops.shape(wide)[1], dtype="int32")[None]
        if begin is not None:
            begun = wide[:, :1] == begin
            wide = ops.where(begun | (place > length), wide, ops.roll(wide, 1, axis=1))
            wide = ops.where(~begun & (place == 0), begin, wide)
            length = length + ops.cast(~begun, "int32")
        last = ops.take_along_axis(wide, length - 1, axis=1)
        length = length + ops.cast(last != end, "int32")
        wide = ops.where(place == length - 1, end, wide)
        return ops.where(place < length, wide, pad)

    def evaluators(self):
        named = [ZeroShot(self.class_names)] if self.text_ids is not None else []
        return [Retrieval(), *named]

    def signatures(self, model):
        def classify(image, candidate_ids, candidate_ids_length):
            texts = model.encode_text(self.framed(candidate_ids, candidate_ids_length))
            logits = model.logits(model.encode_image(image), texts)
            return {"probabilities": ops.softmax(logits, axis=-1)}

        def classify_each(image, candidate_ids):  # each image has its own
            _, count, width = ops.shape(candidate_ids)
            texts = model.encode_text(ops.reshape(candidate_ids, (-1, width)))
            texts = ops.reshape(texts, (-1, count, texts.shape[-1]))
            image_embeds = model.encode_image(image)
            scores = ops.matmul(texts, image_embeds[:, :, None])[..., 0]
            return {"probabilities": ops.softmax(ops.exp(model.logit_scale) * scores, axis=-1)}

        def encode_image(image):
            return {"image_embeds": model.encode_image(image)}

        def encode_text(caption_ids, caption_ids_length=None):
            if caption_ids_length is not None:
                caption_ids = self.framed(caption_ids, caption_ids_length)
            return {"text_embeds": model.encode_text(caption_ids)}

        image = {"image": self.inputs["image"]}
        caption = {"caption_ids": self.inputs["caption_ids"]}
        shared = Spec(("K", "N"), "int32", "tokens", batched=False)
        each = Spec(("K", "N"), "int32", "tokens")
        # Of ids as the data have them, with their end; without a tokenizer all files take these.
        formats = ("tflite",) if self.info.tokenizer else ("savedmodel", "tflite")
        of_ids = [
            Signature("classify", image | {"candidate_ids": each}, classify_each, formats),
            Signature("encode_image", image, encode_image),
            Signature("encode_text", caption, encode_text, formats),
        ]
        if not self.info.tokenizer:
            return of_ids
        served = {"formats": ("savedmodel",)}
        return [
            Signature(
                "classify",
                image | {"candidate_ids": shared},
                classify,
                cases=tuple(self._cases()),
                **self._texts("candidate_ids", "candidates"),
                **served,
            ),
            *of_ids,
            Signature(
                "encode_text", caption, encode_text, **self._texts("caption_ids", "text"), **served
            ),
        ]

    def _texts(self, ids, name):
        """What lets a signature take texts for token ids."""
        length, room = (f"{ids}_length",), self.info.max_length - 2
        together = bounds.tokens(self.info.max_length)
        line = f"{name}, each as long as the longest, are over {together} tokens"
        limits = (
            Limit(length, f"{name}: a text is empty", min=1),
            Limit(length, f"{name}: a text has more than {room} tokens", max=room),
            Limit(length, line, max=together, together=True),
        )
        return {"text_inputs": {ids: name}, "limits": limits}

    def _cases(self):
        """Whole requests to classify: one image and three, each among another number of texts."""
        rng, texts = np.random.default_rng(0), [b"a", b"b", b"a b"]
        for images, count in ((1, 3), (3, 2)):
            image = rng.random((images, *self.inputs["image"].shape)).astype("float32")
            yield {"image": image, "candidates": np.array(texts[:count], object)}

    def served(self, columns):
        ids, end = np.array(columns["caption_ids"][:, : self.info.max_length]), self.specials.end[0]
        ids[~np.any(ids == end, axis=1), -1] = end  # of made-up ids, which may have none
        place = np.arange(len(ids))[:, None] + np.arange(self.candidates)  # its own comes first
        served = {**columns, "caption_ids": ids, "candidate_ids": ids[place % len(ids)]}
        if not self.info.tokenizer:
            return served
        pieces, room = Pieces(self.info.tokenizer), self.info.max_length - 2
        texts = [pieces.decode(row[:room]) for row in ids]
        # What is decoded may be encoded in more tokens, and of random ids nothing may be left.
        return served | {"text": np.array([text.encode() or b"a" for text in texts], object)}


TASK = ContrastTexts
