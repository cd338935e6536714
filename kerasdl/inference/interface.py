"""The inputs and outputs of a model, and its data: all that inference needs."""

from dataclasses import dataclass

import numpy as np

from kerasdl.columns import DataInfo
from kerasdl.data.images import MODES, Fit
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.data.wanted import MADE
from kerasdl.errors import UserError
from kerasdl.inference import signatures
from kerasdl.store import load
from kerasdl.tasks.task import Limit

INPUTS = {"image": "an image file", "tokens": "a text"}  # inputs that users have


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a model.

    Attributes:
        model: Its name in the catalogue.
        info: Of the data that it was trained on.
        context: Maximum number of tokens that it reads, or None.
        signatures: `{name: {"inputs", "outputs", "limits"}}`; see `signatures.interface`.
        fit: How images of any size come to that of the model.
    """

    model: str
    info: DataInfo
    context: int | None
    signatures: dict
    fit: Fit = Fit()

    def data(self, name: str, settings=()) -> dict | None:
        """The inputs of a signature that are given as files and texts, `{kind: input}`.

        Args:
            name: Of the signature.
            settings: Names of inputs that have a value of their own.

        Returns:
            None where it takes anything else besides, but what is made of the image, or the length
            of a text.
        """
        inputs, result = self.signatures[name]["inputs"], {}
        lengths = {f"{key}_length" for key in inputs}
        for key, one in inputs.items():
            single = one["batched"] and (one["kind"] != "tokens" or len(one["shape"]) == 1)
            if one["kind"] in INPUTS and one["kind"] not in result and single:
                result[one["kind"]] = key
            elif key not in settings and one["kind"] not in MADE and key not in lengths:
                return None
        return result

    @property
    def tokenizer(self) -> Tokenizer:
        """That of its texts.

        Raises:
            UserError: It has none.
        """
        if not self.info.tokenizer:
            raise UserError(f"{self.model} has no tokenizer: it takes token ids, and no texts")
        return Tokenizer.from_json(self.info.tokenizer)

    def takes(self, settings=()) -> str:
        """The accepted inputs, in words."""
        ways = {}
        for name in self.signatures:
            if data := self.data(name, settings):
                ways[" and ".join(INPUTS[kind] for kind in INPUTS if kind in data)] = None
        return ", or ".join(ways) or "neither files nor texts"


def of_model(task, model, target: str = "savedmodel") -> Interface:
    """The interface of a Keras model."""
    described = signatures.interface(task, model)
    fit = signatures.fit_of(task)
    return Interface(task.run_recipe.model, task.info, described["context"], described[target], fit)


def of_card(path, target: str) -> Interface:
    """The interface of an exported file, by the `card.json` beside it, and by nothing else.

    Args:
        path: What `load.find` takes.
        target: "savedmodel" or "tflite".

    Raises:
        UserError: There is no card, or one that cannot be used.
    """
    card = load.card_of(*load.find(path))
    try:
        described = card["interface"]
        info = DataInfo.from_dict(card["data"])
        fit = Fit(described.get("resize", "squash"), float(described.get("crop_fraction", 1.0)))
        if fit.mode not in MODES or not 0 < fit.fraction <= 1:
            raise ValueError(f"{fit} is no way to resize")
        result = Interface(card["model"], info, described["context"], described[target], fit)
        for signature in result.signatures.values():
            kinds = [
                one["kind"] for part in ("inputs", "outputs") for one in signature[part].values()
            ]
            limits = [Limit(**one) for one in signature["limits"]]
            if not all(isinstance(kind, str) for kind in kinds + [one.message for one in limits]):
                raise TypeError("kinds and messages must be texts")
        result.takes()
        return result
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: its card.json does not describe its inputs ({error}); export it again"
        ) from None


def check(signature: dict, values: dict, prefix: str = "") -> None:
    """Refuse inputs that a signature does not accept.

    Args:
        signature: Of `Interface.signatures`.
        values: `{input: array}`; of texts `<ids>_length`.
        prefix: Of the message.

    Raises:
        UserError: With the message of the first limit that is not met.
    """
    values = {k: np.asarray(v) for k, v in values.items()}
    values = {k: v.astype("int64") if v.dtype.kind in "iu" else v for k, v in values.items()}
    for one in signature["limits"]:
        limit = Limit(**one)
        if not all(np.all(right) for right in limit.met(values)):
            raise UserError(f"{prefix}{limit.message}")
