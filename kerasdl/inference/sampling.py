"""Samples of a run, a `.keras` file or an exported model: images."""

from pathlib import Path

import numpy as np

from kerasdl.errors import UserError
from kerasdl.inference import interface
from kerasdl.inference.artifact import open_artifact
from kerasdl.ops import noise
from kerasdl.store import pictures
from kerasdl.system.names import nearest
from kerasdl.tasks.sampling import MAX_IMAGES

# Each is a flag of `predict`.
SETTINGS = {"num": 16, "seed": 0, "label": None, "guidance": None}


def sample_images(path, settings=None) -> np.ndarray:
    """Sample images with the signature `sample`; a TFLite file is given the same seed's noise.

    Args:
        path: What `open_artifact` takes.
        settings: Any of `SETTINGS`: how many; the seed; a class by its name, all in turn if it is
            not given; and the guidance, 2 if it is not given.

    Returns:
        float32 `(num, H, W, C)` in [0, 1].

    Raises:
        UserError: The model samples no images, or does not take a setting or value.
    """
    given = {k: v for k, v in (settings or {}).items() if v is not None}
    artifact = open_artifact(path)
    serving = artifact.interface
    num, seed = given.get("num", SETTINGS["num"]), given.get("seed", SETTINGS["seed"])
    if not 1 <= num <= MAX_IMAGES:
        raise UserError(f"--num {num}: must be at least 1 and at most {MAX_IMAGES}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: must be at least 0 and below 2^32")
    name = sampler(serving)
    if name is None:
        raise UserError(f"{path}: {serving.model} samples no images")
    if not artifact.inputs(name):
        raise UserError(f"{path}: this file of {serving.model} has no signature {name}")
    described = serving.signatures[name]["inputs"]
    inputs = _start(described, num, np.array([0, seed], "uint32").view("int32"))
    names = serving.info.class_names
    if "label" in given and "label" not in described:
        raise UserError(
            f"--label {given['label']} needs a conditional model; {serving.model} is unconditional"
        )
    if "label" in described:
        label = given.get("label")
        if label is not None and label not in names:
            raise UserError(
                f"--label {label}: not one of {', '.join(names)}{nearest(label, names)}"
            )
        labels = np.arange(num) % len(names) if label is None else np.full(num, names.index(label))
        inputs["label"] = labels.astype("int32")
    if "guidance" in given and "guidance" not in described:
        why = "was trained without dropping labels" if "label" in described else "is unconditional"
        raise UserError(f"--guidance {given['guidance']} cannot be used: {serving.model} {why}")
    if "guidance" in described:
        guidance = given.get("guidance", 2.0)
        if not guidance >= 0:
            raise UserError(f"--guidance {guidance}: must be 0 or more")
        inputs["guidance"] = np.float32(guidance)
    interface.check(serving.signatures[name], inputs)
    return artifact.answer(name, inputs)["image"]


def sampler(serving) -> str | None:
    """The signature that samples images, of a number and a seed, or else of noise; or None.

    Args:
        serving: An `Interface`.
    """
    for wanted in (lambda inputs: {"num", "seed"} <= set(inputs), _noise):
        for name, signature in serving.signatures.items():
            image = signature["outputs"].get("image", {}).get("kind") == "image"
            if image and wanted(signature["inputs"]):
                return name
    return None


def _noise(inputs):
    return {name: one["noise"] for name, one in inputs.items() if "noise" in one}


def _start(inputs, num, seed):
    """What decides the images: their number and the seed, or the noise that follows from them."""
    made = _noise(inputs)
    if not made:
        return {"num": np.int32(num), "seed": seed}
    key = noise.sample_keys(seed, num)
    return {
        name: np.asarray(
            noise.standardized(
                key, tuple(inputs[name]["shape"]), one["distribution"], one["stream"]
            ),
            "float32",
        )
        for name, one in made.items()
    }


def write_images(path, file, settings=None) -> Path:
    """Sample images as `sample_images` does, and write them as one PNG.

    Returns:
        The file's path.

    Raises:
        UserError: See `sample_images`; or the file cannot be written.
    """
    pictures.check_output(file)
    return pictures.write_output(file, sample_images(path, settings))
