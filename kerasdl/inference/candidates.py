"""Images told by the likeliest of some texts."""

import numpy as np

from kerasdl.data.text.captions import caption_ids
from kerasdl.errors import UserError
from kerasdl.inference import interface

OUTPUT = "probabilities"


def chooser(serving) -> tuple | None:
    """The signature that takes images and candidate texts, one of encoded images first, and the
    names of the two inputs; None where there is none.

    Args:
        serving: An `Interface`.
    """
    found = []
    for name, signature in serving.signatures.items():
        inputs = signature["inputs"]
        images = [k for k, one in inputs.items() if one["kind"] == "image" and one["batched"]]
        texts = [k for k, one in inputs.items() if _of_candidates(one)]
        if len(inputs) == 2 and images and texts:
            encoded = inputs[images[0]].get("encoded", False)
            found.append((not encoded, name, images[0], texts[0]))
    return min(found)[1:] if found else None


def _of_candidates(one) -> bool:
    return one["kind"] == "tokens" and len(one["shape"]) == 2


def choose(artifact, images, texts) -> list[np.ndarray]:
    """How likely each text is for each image, float `(K,)`, which sums to 1.

    Args:
        artifact: An `Artifact` whose interface has a `chooser`.
        images: `[array (1, ...)]` as that signature takes them.
        texts: Strings.

    Raises:
        UserError: More texts, or longer ones, than it takes.
    """
    serving = artifact.interface
    name, image, text = chooser(serving)
    signature = serving.signatures[name]
    one, ids = signature["inputs"][text], serving.tokenizer.encode(texts)
    for number, row in enumerate(ids, 1):
        length = {f"{one.get('ids', text)}_length": np.array([len(row)], "int32")}
        interface.check(signature, length, f"text {number}: ")
    if one.get("encoded"):
        given = np.array([text.encode() for text in texts], object)
    else:
        given = _filled(serving.tokenizer, texts, one["shape"])
    answers = [artifact.answer(name, {image: x, text: given})[OUTPUT][0] for x in images]
    some = [answer[: len(texts)] for answer in answers]  # of a fixed number of texts
    return [answer / answer.sum() for answer in some]


def _filled(tokenizer, texts, shape):
    """Token ids as a file of fixed sizes takes them `(1, K, N)`: the first text fills them up."""
    count, width = (n if isinstance(n, int) else None for n in shape)
    if count is not None and len(texts) > count:
        raise UserError(f"{len(texts)} texts: this file takes at most {count}")
    texts = [*texts, *[texts[0]] * ((count or 0) - len(texts))]
    ids = caption_ids(tokenizer, {"": texts})[""]
    if width is not None:
        if ids.shape[1] > width:
            raise UserError(f"a text must have at most {width} tokens, with its beginning and end")
        more = ((0, 0), (0, width - ids.shape[1]))
        ids = np.pad(ids, more, constant_values=tokenizer.specials.pad)
    return ids[None]
