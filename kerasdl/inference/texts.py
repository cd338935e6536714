"""Texts of a run, a `.keras` file or an exported file: continuations and translations."""

import numpy as np
from keras import ops

from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.inference import interface
from kerasdl.inference.artifact import open_artifact
from kerasdl.ops import decoding
from kerasdl.ops.text import EOS
from kerasdl.tasks.generate_text import GREEDY_TOKENS, SPECIALS

# Of language models; each is a flag of `predict`.
SETTINGS = {"max_new_tokens": 100, "temperature": 0.8, "top_k": 0, "seed": 0}
LONG_PROMPTS = ("slide", "refuse")


def predict_texts(path, texts, settings=None, long_prompts=None) -> list[dict]:
    """Continue or translate texts.

    Args:
        path: What `open_artifact` takes.
        texts: Strings; none empty, or, of a translator, longer than the model takes.
        settings: Any of `SETTINGS`, of language models; a TFLite file takes none.
        long_prompts: Of language models, where a text and what is written are more than the
            context: "slide", the default, makes each new token from the last ones that fit;
            "refuse" is an error, and without `max_new_tokens` fewer are written where the context
            ends.

    Returns:
        Per text `input`; `output`, of a language model the text with its continuation; `score` of a
        translation; `unknown`, characters that the vocabulary lacks and are read as unknown; and
        `note` where the window slid.

    Raises:
        UserError: A text or setting that the model does not accept.
    """
    artifact = open_artifact(path)
    serving = artifact.interface
    name = writer(serving)
    if name is None:
        raise UserError(f"{serving.model} takes {serving.takes(SETTINGS)} and does not make texts")
    signature, lite = serving.signatures[name], artifact.kind == "tflite"
    (text_name,) = serving.data(name, SETTINGS).values()
    ids_name = signature["inputs"][text_name].get("ids", text_name)
    out_name = _written(signature)
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    numbers = numbers_of(signature, given, "a TFLite file" if lite else serving.model)
    tokenizer = Tokenizer.from_json(serving.info.tokenizer)
    context, slides = serving.context, continues(artifact, name)
    if long_prompts not in (None, *LONG_PROMPTS):
        raise UserError(f"--long-prompts {long_prompts}: not one of {', '.join(LONG_PROMPTS)}")
    if long_prompts is not None and not slides:
        raise UserError(f"--long-prompts does not apply to {serving.model}")
    slides = slides and context and long_prompts != "refuse"
    new = int(numbers["max_new_tokens"][0]) if "max_new_tokens" in numbers else GREEDY_TOKENS
    results = []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode(texts), strict=True), 1):
        slid = slides and len(ids) + new > context
        one = within_context(numbers, given, None if slides else context, len(ids))
        length = {f"{ids_name}_length": np.array([min(len(ids), 1) if slid else len(ids)], "int32")}
        fitting = {"max_new_tokens": np.minimum(new, [context - 1])} if slid and not lite else {}
        interface.check(signature, one | length | fitting, f"text {number}: ")
        if slid:
            answer, output = {}, tokenizer.decode(_slide(artifact, ids, new, one, context))
        elif lite:
            ids, continued = ids[None], out_name == ids_name
            if not continued:
                ids = np.append(ids, np.array([[EOS]], ids.dtype), axis=1)
            answer = artifact.answer(name, {text_name: ids})
            written = answer[out_name][0]
            output = tokenizer.decode(np.concatenate([ids[0], written]) if continued else written)
        else:
            inputs = {text_name: np.array([text.encode()], object), **one}
            answer = artifact.answer(name, inputs)
            output = answer[out_name][0].decode()
        one = {"input": text, "output": output, "unknown": tokenizer.unknown(text)}
        if "score" in answer:
            one["score"] = float(answer["score"][0])
        if slid:
            one["note"] = (
                f"{len(ids)} tokens and {new} new ones are more than the context of {context}; "
                f"each new one follows from the last {context} before it"
            )
        results.append(one)
    return results


def continues(artifact, name) -> bool:
    """Whether a signature goes on with a text, and `next_token` tells how.

    Args:
        artifact: An `Artifact`.
        name: Of the signature.
    """
    signature = artifact.interface.signatures[name]
    going_on = "max_new_tokens" in signature["inputs"] or _written(signature) in signature["inputs"]
    return going_on and bool(artifact.inputs("next_token"))


def _slide(artifact, ids, new, numbers, context):
    """The tokens `ids` `(N,)` and `new` more, each from the last `context` tokens before it."""
    seed = ops.convert_to_tensor(numbers.get("seed", [0]), "int32")
    key = ops.stack([ops.cast(seed, "uint32"), ops.zeros_like(ops.cast(seed, "uint32"))], -1)
    temperature = ops.convert_to_tensor(numbers.get("temperature", [0.0]), "float32")
    top_k = ops.convert_to_tensor(numbers.get("top_k", [0]), "int32")
    tokens = [int(k) for k in ids]
    for place in range(len(tokens), len(tokens) + new):
        window = np.array([tokens[-context:]], "int32")
        logits = artifact.answer("next_token", {"token_ids": window})["logits"]
        logits = decoding.suppress(ops.convert_to_tensor(logits, "float32"), SPECIALS)
        tokens.append(int(decoding.sample(logits, key, place, temperature, top_k)[0]))
    return np.array(tokens, "int32")


def writer(serving) -> str | None:
    """The signature that takes a text alone and writes another, or None.

    Args:
        serving: An `Interface`.
    """
    for name, signature in serving.signatures.items():
        if serving.data(name, SETTINGS) and set(serving.data(name, SETTINGS)) == {"tokens"}:
            if _written(signature):
                return name
    return None


def numbers_of(signature, given: dict, owner: str) -> dict:
    """The settings of a signature, `{input: array (1,)}`: those given, or those of `SETTINGS`.

    Raises:
        UserError: One is given that the signature does not take, or a number that is too large.
    """
    names = [name for name in signature["inputs"] if name in SETTINGS]
    for name in given:
        if name not in names:
            raise UserError(f"--{name.replace('_', '-')} does not apply to {owner}")
    numbers = {}
    for name in names:
        value = {**SETTINGS, **given}[name]
        try:
            numbers[name] = np.array([value], signature["inputs"][name]["dtype"])
        except OverflowError:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {value}: must be below 2^31") from None
    return numbers


def within_context(numbers: dict, given: dict, context: int | None, length: int) -> dict:
    """The settings, with fewer new tokens where the context of a text of `length` ends."""
    if not context or "max_new_tokens" not in numbers or "max_new_tokens" in given:
        return numbers
    room = min(SETTINGS["max_new_tokens"], context - length)
    return {**numbers, "max_new_tokens": np.array([max(room, 0)], "int32")}


def _written(signature):
    """The output that is text."""
    outputs = signature["outputs"].items()
    return next((name for name, one in outputs if one["kind"] == "tokens"), None)
