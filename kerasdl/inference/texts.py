"""Ask a run, a `.keras` file or an exported file for texts: continuations and translations."""

import numpy as np

from kerasdl.errors import UserError
from kerasdl.inference.artifact import open_artifact, task_of
from kerasdl.inference.signatures import tokenizer_of
from kerasdl.ops.text import EOS
from kerasdl.store import load

# Of language models; a flag of `predict` each.
SETTINGS = {"max_new_tokens": 100, "temperature": 0.8, "top_k": 0, "seed": 0}


def predict_texts(path, texts, settings=None) -> list[dict]:
    """Continue or translate texts.

    Args:
        path: What `open_artifact` takes.
        texts: Strings; none empty, or longer than the model takes.
        settings: Any of `SETTINGS`, of language models; a TFLite file takes none. Without
            `max_new_tokens`, fewer are written where the context ends.

    Returns:
        Per text `input`; `output`, of a language model the text with its continuation; `score` of a
        translation; and `unknown`, characters that the vocabulary lacks and are read as unknown.

    Raises:
        ValueError: A text or setting that the model does not take.
    """
    artifact, task = open_artifact(path), task_of(load.load_info(path))
    model = load.load(path)
    signature = task.signatures(model)[0]
    lite = artifact.kind == "tflite"
    accepted = [] if lite else [n for n in signature.inputs if n not in signature.text_inputs]
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    for name in given:
        if name not in accepted:
            what = "a TFLite file" if lite else task.run_recipe.model
            raise UserError(f"--{name.replace('_', '-')}: {what} takes no such setting")
    numbers = {name: _number(name, {**SETTINGS, **given}[name], signature) for name in accepted}
    tokenizer = tokenizer_of(task)
    ids_name, text_name = next(iter(signature.text_inputs.items()))
    out_ids, out_text = next(iter(signature.text_outputs.items()))
    result, context = [], model.context
    for number, (text, ids) in enumerate(zip(texts, tokenizer.encode(texts), strict=True), 1):
        ids = ids[None]
        if context and "max_new_tokens" in numbers and "max_new_tokens" not in given:
            room = min(SETTINGS["max_new_tokens"], context - ids.shape[1])
            numbers["max_new_tokens"] = np.array([max(room, 0)], "int32")
        length = {f"{ids_name}_length": np.array([ids.shape[1]], "int32")}
        limits = dict.fromkeys(signature.inputs, np.zeros(1))
        for right, message in signature.requires(**limits | numbers | length | {ids_name: ids}):
            if not bool(np.all(right)):
                raise UserError(f"text {number}: {message}")
        if lite:
            if out_text == "target":
                ids = np.append(ids, np.array([[EOS]], ids.dtype), axis=1)
            answer = artifact.answer("greedy", {ids_name: ids})
            written = answer[out_ids][0]
            if out_text == "text":
                written = np.concatenate([ids[0], written])
            output = tokenizer.decode(written)
        else:
            inputs = {text_name: np.array([text.encode()], object), **numbers}
            answer = artifact.answer("serving_default", inputs)
            output = answer[out_text][0].decode()
        one = {"input": text, "output": output, "unknown": tokenizer.unknown(text)}
        if "score" in answer:
            one["score"] = float(answer["score"][0])
        result.append(one)
    return result


def _number(name, value, signature):
    """A setting as the signature takes it, `(1,)`."""
    try:
        return np.array([value], signature.inputs[name].dtype)
    except OverflowError:
        raise UserError(f"--{name.replace('_', '-')} {value}: must be below 2^31") from None
