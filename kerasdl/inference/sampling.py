"""Ask a run, a `.keras` file or an exported model for images that it draws."""

from pathlib import Path

import numpy as np

from kerasdl.errors import UserError
from kerasdl.inference.artifact import open_artifact, task_of
from kerasdl.ops import noise
from kerasdl.store import load, pictures
from kerasdl.system.names import nearest
from kerasdl.tasks.sampling import MOST

# A flag of `predict` each.
SETTINGS = {"num": 16, "seed": 0, "label": None, "guidance": None}


def draw_images(path, settings=None) -> np.ndarray:
    """Draw images with the signature `sample`; with a TFLite file of the same seed's noise.

    Args:
        path: What `open_artifact` takes.
        settings: Any of `SETTINGS`: how many; the seed; a class by its name, all in turn if it is
            not given; and the guidance, 2 if it is not given.

    Returns:
        float32 `(num, H, W, C)` in [0, 1].

    Raises:
        ValueError: The model draws no images, or takes no such setting or value.
    """
    given = {k: v for k, v in (settings or {}).items() if v is not None}
    artifact, metadata = open_artifact(path), load.load_info(path)
    num, seed = given.get("num", SETTINGS["num"]), given.get("seed", SETTINGS["seed"])
    if not 1 <= num <= MOST:
        raise UserError(f"--num {num}: must be at least 1 and at most {MOST}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: must be at least 0 and below 2^32")
    signature, inputs = _asked(artifact, metadata, num, seed)
    accepted = artifact.inputs(signature)
    if not accepted:
        lacks = "draws no images" if signature == "sample" else f"has no {signature} in this file"
        raise UserError(f"{path}: {metadata.model} {lacks}")
    names = metadata.info.class_names
    if "label" in given and "label" not in accepted:
        raise UserError(f"--label {given['label']}: the model is unconditional")
    if "label" in accepted:
        label = given.get("label")
        if label is not None and label not in names:
            raise UserError(
                f"--label {label}: not one of {', '.join(names)}{nearest(label, names)}"
            )
        result = np.arange(num) % len(names) if label is None else np.full(num, names.index(label))
        inputs["label"] = result.astype("int32")
    if "guidance" in given and "guidance" not in accepted:
        why = "trained without dropping labels" if "label" in accepted else "unconditional"
        raise UserError(f"--guidance {given['guidance']}: the model is {why}")
    if "guidance" in accepted:
        guidance = given.get("guidance", 2.0)
        if not guidance >= 0:
            raise UserError(f"--guidance {guidance}: must be 0 or more")
        inputs["guidance"] = np.float32(guidance)
    return artifact.answer(signature, inputs)["image"]


def _asked(artifact, metadata, num, seed):
    """The signature that draws, and the inputs that decide what."""
    seed = np.array([0, seed], "uint32").view("int32")
    if artifact.kind == "tflite":
        task, model = task_of(metadata), load.load(artifact.path)
        if task.sampling_modes(model):
            signature, inputs = task.sampling_inputs(model, noise.sample_keys(seed, num))
            return signature, {k: np.asarray(v, "float32") for k, v in inputs.items()}
    return "sample", {"num": np.int32(num), "seed": seed}


def write_images(path, file, settings=None) -> Path:
    """Draw images as `draw_images` does, and write them as one PNG.

    Returns:
        The file's path.

    Raises:
        ValueError: See `draw_images`; or the file cannot be written.
    """
    file = Path(file)
    if file.suffix.lower() != ".png":
        raise UserError(f"--output {file}: must end in .png")
    if not file.parent.is_dir():
        raise UserError(f"--output {file}: there is no folder {file.parent}")
    images = draw_images(path, settings)
    try:
        pictures.write_picture(file, images)
    except OSError as error:
        raise UserError(f"--output {file}: cannot be written: {error.strerror}") from None
    return file
