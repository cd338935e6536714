"""Texts of a run, a `.keras` file or an exported file: continuations and translations."""

import numpy as np

from kerasdl.errors import UserError
from kerasdl.inference import interface
from kerasdl.inference.artifact import open_artifact
from kerasdl.ops import decoding
from kerasdl.ops.text import Specials
from kerasdl.tasks.generate_text import GREEDY_TOKENS

# Of language models; each is a flag of `predict`.
SETTINGS = {"max_new_tokens": 100, "temperature": 0.8, "top_k": 0, "seed": 0}
LONG_PROMPTS = ("slide", "refuse")  # what is done where the context ends


def predict_texts(path, texts, settings=None) -> list[dict]:
    """Continue or translate texts.

    Args:
        path: What `open_artifact` takes.
        texts: Strings; none empty, or longer than the model takes.
        settings: Any of `SETTINGS`, of language models; a TFLite file takes none. Without
            `max_new_tokens`, fewer are written where the context of a text ends within it. And
            `long_prompts`, of language models: "slide", the default, writes each token after the
            last ones that fit, where a text and `max_new_tokens` are more than the context;
            "refuse" refuses them.

    Returns:
        Per text `input`; `output`, of a language model the text with its continuation; `score` of a
        translation; `unknown`, characters that the vocabulary lacks and are read as unknown; and
        `note` where the window slides.

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
    slides = out_name == text_name and _slides(given) and "next_token" in serving.signatures
    numbers = numbers_of(signature, given, "a TFLite file" if lite else serving.model)
    tokenizer = serving.tokenizer
    results = []
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode(texts), strict=True), 1):
        one = within_context(numbers, given, serving.context, len(ids))
        new = _beyond(given, serving.context, len(ids), lite) if slides else None
        length = {f"{ids_name}_length": np.array([len(ids)], "int32")}
        if new is not None:  # all limits but the context's
            length = {f"{ids_name}_length": np.array([min(len(ids), 1)], "int32")}
            one = one | {"max_new_tokens": np.array([min(new, 0)], "int32")}
        interface.check(signature, one | length, f"text {number}: ")
        if new is not None:
            specials = Specials.of(serving.info)
            whole = _continue_by_window(artifact, ids, new, numbers, serving.context, specials)
            answer, output = {}, tokenizer.decode(whole)
        elif lite:
            ids, continued = ids[None], out_name == ids_name
            if not continued and f"{text_name}_length" not in signature["inputs"]:
                end = tokenizer.specials.end[0]
                ids = np.append(ids, np.array([[end]], ids.dtype), axis=1)
            given_ids = {text_name: ids}
            if f"{text_name}_length" in signature["inputs"]:
                given_ids |= {f"{text_name}_length": np.array([ids.shape[1]], "int32")}
            answer = artifact.answer(name, given_ids)
            written = answer[out_name][0]
            output = tokenizer.decode(np.concatenate([ids[0], written]) if continued else written)
        else:
            inputs = {text_name: np.array([text.encode()], object), **one}
            answer = artifact.answer(name, inputs)
            output = answer[out_name][0].decode()
        one = {"input": text, "output": output, "unknown": tokenizer.unknown(text)}
        if new is not None:
            one["note"] = (
                f"{len(ids)} tokens and {new} new ones are more than the context of "
                f"{serving.context}: each follows from the last {serving.context} before it"
            )
        if "score" in answer:
            one["score"] = float(answer["score"][0])
        results.append(one)
    return results


def _slides(given: dict) -> bool:
    """Takes `long_prompts` out of settings; whether it is "slide"."""
    chosen = given.pop("long_prompts", "slide")
    if chosen not in LONG_PROMPTS:
        raise UserError(f"--long-prompts {chosen}: not one of {', '.join(LONG_PROMPTS)}")
    return chosen == "slide"


def _beyond(given: dict, context: int | None, length: int, lite: bool) -> int | None:
    """How many tokens follow a text of `length` where that is beyond the context, else None."""
    if "max_new_tokens" in given:
        new = given["max_new_tokens"]
        return new if context and length + max(new, 0) > context else None
    new = GREEDY_TOKENS if lite else SETTINGS["max_new_tokens"]
    return new if context and length >= context else None


def _continue_by_window(artifact, ids, new, numbers, context, specials):
    """A text and what follows, each token after the last ones before it that the context holds.

    Args:
        artifact: Of a language model with the signature `next_token`.
        ids: int32 `(N,)`.
        new: How many tokens are written.
        numbers: Of `numbers_of`; greedy without a temperature. Samples are those of the signature
            that writes texts, as far as the context reaches.
        context: Maximum number of tokens that the model reads.
        specials: The `Specials` of the tokenizer.

    Returns:
        int32 `(N + new,)`, fewer where the text ends.
    """
    zero = np.zeros(1, "int32")
    key = np.array([[*numbers.get("seed", zero).astype("uint32"), 0]], "uint32")
    temperature, top_k = numbers.get("temperature", zero), numbers.get("top_k", zero)
    whole = np.asarray(ids, "int32")
    for position in range(len(whole), len(whole) + new):
        window = {"token_ids": whole[None, -context:]}
        if "token_ids_length" in artifact.inputs("next_token"):
            window["token_ids_length"] = np.array([window["token_ids"].shape[1]], "int32")
        logits = artifact.answer("next_token", window)["logits"]
        logits = decoding.suppress(logits, specials.never)
        token = decoding.sample(logits, key, position, temperature.astype("float32"), top_k)
        whole = np.append(whole, np.asarray(token, "int32"))
        if whole[-1] in specials.end:
            break
    return whole


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
