"""The signature `sample` of models that sample images."""

import numpy as np

from kerasdl.columns import Spec
from kerasdl.ops import noise
from kerasdl.tasks import bounds
from kerasdl.tasks.task import Limit, Signature

MAX_IMAGES = 1024  # images per request
CASES = ((1, (0, 0)), (3, (1, 2)))  # number and seed of the requests that prove it


def sample_signature(sample, shape, num_classes=None, guidance=False) -> Signature:
    """`sample`: so many images, the same for the same request on every load.

    Its inputs are `num`, an int32 scalar; `seed`, an int32 pair; where `num_classes` is given
    `label`, int32 `(num,)`; with `guidance` also that, a float scalar. Its output is `image`,
    float `(num, H, W, C)` in [0, 1].

    Args:
        sample: `(key, label, guidance) -> image`, with the inputs that there are.
        shape: Of an image, `(H, W, C)`; of large ones a request makes fewer than `MAX_IMAGES`.
        num_classes: How many labels there are, or None.
        guidance: Whether it can be guided.
    """
    inputs = {
        "num": Spec((), "int32", batched=False),
        "seed": Spec((2,), "int32", batched=False),
    }
    if num_classes:
        inputs["label"] = Spec(("num",), "int32", "label", batched=False)
    if guidance:
        inputs["guidance"] = Spec((), "float32", batched=False)

    def serve(num, seed, **conditions):
        return {"image": sample(key=noise.sample_keys(seed, num), **conditions)}

    count = bounds.examples(shape, MAX_IMAGES)
    limits = [Limit(("num",), f"num must be at least 1 and at most {count}", 1, count)]
    if num_classes:
        line = f"labels must be at least 0 and at most {num_classes - 1}"
        limits.append(Limit(("label",), line, 0, num_classes - 1))
    if guidance:
        limits.append(Limit(("guidance",), "guidance must be 0 or more", 0))

    def case(num, seed):
        result = {"num": np.int32(num), "seed": np.array(seed, "int32")}
        if num_classes:
            result["label"] = np.arange(num, dtype="int32") % num_classes
        if guidance:
            result["guidance"] = np.float32(num)
        return result

    return Signature(
        "sample",
        inputs,
        serve,
        formats=("savedmodel",),
        outputs={"image": Spec(("H", "W", "C"), "float32", "image")},
        limits=tuple(limits),
        cases=tuple(case(*one) for one in CASES),
    )
