"""What one request may cost a server, and how that is said."""

import math

MAX_BATCH = 8192  # examples of a request
ANY_MODEL = 64  # examples that every model takes, however large they are
MAX_NUMBERS = 2**25  # in the largest input or output of a request: 128 MiB of floats
# Of an encoded image, by its header: a picture of 8K, whose colors take 100 MB. With 16 bits per
# channel half as many.
MAX_PIXELS = 2**25
MAX_TEXT = 2**20  # bytes of a request's texts, each as long as the longest
MAX_TOKENS = 2**16  # likewise, of token ids: `ANY_MODEL` texts of 1,024
WORDS = {
    "examples": "{} examples",
    "pixels_per_image": "{} pixels per encoded image",
    "text_bytes": "{} bytes of text, each text as long as the longest",
    "tokens": "{} tokens, each text as long as the longest",
}


def examples(shape, count: int, numbers: int = MAX_NUMBERS) -> int:
    """How many of `count` examples a request may have.

    Args:
        shape: Of one.
        count: What is allowed where they are small.
        numbers: How many numbers all of them may have together.
    """
    return min(count, max(ANY_MODEL, numbers // math.prod(shape)))


def tokens(max_length: int | None) -> int:
    """How many tokens a request may have: of long texts as many as of `ANY_MODEL` of them.

    Args:
        max_length: Of the texts that the model was trained on, or None.
    """
    return max(MAX_TOKENS, ANY_MODEL * (max_length or 0))


def of_request(signature, encoded=(), max_length=None) -> dict[str, int]:
    """The bounds of a request to a signature, by the names in `WORDS`.

    Args:
        signature: A `kerasdl.tasks.task.Signature`; its inputs and outputs say how large an example
            is.
        encoded: Names of its inputs that are encoded images.
        max_length: As `tokens` takes it.
    """
    inputs = signature.inputs.values()
    bounds = {}
    if any(spec.batched for spec in inputs):
        shapes = [s.shape for s in (*inputs, *signature.outputs.values()) if s.batched]
        fixed = [shape for shape in shapes if not any(isinstance(n, str) for n in shape)]
        bounds["examples"] = examples(max(fixed, key=math.prod, default=()), MAX_BATCH)
    if encoded:
        bounds["pixels_per_image"] = MAX_PIXELS
    if signature.text_inputs:
        bounds["text_bytes"] = MAX_TEXT
        if max_length:  # what is written may be as long
            bounds["examples"] = examples((max_length,), bounds["examples"], MAX_TOKENS)
    elif any(spec.kind == "tokens" for spec in inputs):
        bounds["tokens"] = tokens(max_length)
    return bounds


def sentence(described: dict) -> str:
    """What a signature refuses, as its `interface` says it, in words; "" where that is nothing.

    Args:
        described: One signature of `kerasdl.inference.signatures.interface`.
    """
    bounds = [WORDS[name].format(f"{n:,}") for name, n in described.get("bounds", {}).items()]
    ranges = [
        f"{name} from {one['min']:,.10g} to {one['max']:,.10g}"
        for name, one in described.get("inputs", {}).items()
        if "min" in one and not one.get("encoded")
    ]
    refused = [limit["message"] for limit in described.get("limits", ())]
    parts = [f"at most {'; '.join(bounds)}"] * bool(bounds) + ranges
    parts += [f"refused with: {', '.join(refused)}"] * bool(refused)
    return "; ".join(parts)
