"""What one request may cost a server, and how that is said."""

import math

MAX_BATCH = 8192  # examples of a request
ANY_MODEL = 32  # examples that every model takes, however large they are
MAX_NUMBERS = 2**25  # in the largest input or output of a request: 128 MiB of floats
# Of an encoded image, by its header: a picture of 8K, whose colors take 100 MB. With 16 bits per
# channel half as many.
MAX_PIXELS = 2**25
MAX_TEXT = 2**20  # bytes of a request's texts, each as long as the longest
MAX_TOKENS = 2**16  # likewise, of token ids: 64 texts of 1,024
WORDS = {
    "examples": "{} examples",
    "pixels_per_image": "{} pixels per encoded image",
    "text_bytes": "{} bytes of text, each text as long as the longest",
    "tokens": "{} tokens, each text as long as the longest",
}


def images(shape, count: int) -> int:
    """How many of `count` images a request may make.

    Args:
        shape: Of one, `(H, W, C)`.
        count: What is allowed where they are small.
    """
    return min(count, max(ANY_MODEL, MAX_NUMBERS // math.prod(shape)))


def of_request(signature, encoded=()) -> dict[str, int]:
    """The bounds of a request to a signature, by the names in `WORDS`.

    Args:
        signature: A `kerasdl.tasks.task.Signature`; its inputs and outputs say how large an example
            is.
        encoded: Names of its inputs that are encoded images.
    """
    inputs = signature.inputs.values()
    bounds = {}
    if any(spec.batched for spec in inputs):
        shapes = [s.shape for s in (*inputs, *signature.outputs.values()) if s.batched]
        fixed = [shape for shape in shapes if not any(isinstance(n, str) for n in shape)]
        bounds["examples"] = images(max(fixed, key=math.prod, default=()), MAX_BATCH)
    if encoded:
        bounds["pixels_per_image"] = MAX_PIXELS
    if signature.text_inputs:
        bounds["text_bytes"] = MAX_TEXT
    elif any(spec.kind == "tokens" for spec in inputs):
        bounds["tokens"] = MAX_TOKENS
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
