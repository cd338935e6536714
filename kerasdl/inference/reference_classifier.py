"""The classifier that samples are evaluated with, and Keras' InceptionV3: classes and features."""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.errors import TrainingError
from kerasdl.recipe import flag
from kerasdl.store import runs
from kerasdl.store.settings import resolve
from kerasdl.system import processes

MODEL = "resnet20"
# Its settings that are those of the evaluated run.
SAME = "dataset data_dir image_size val_split skip_bad_files output".split()
BATCH = 64
INCEPTION = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclass
class ReferenceClassifier:
    """A classifier of samples, and a layer of it whose outputs are compared.

    Args:
        model: A `kerasdl.layers.classifier.Classifier`.
        name: Its run's folder.
        top1: Its accuracy on the test set.
        sha256: Of its weights.
    """

    model: object
    name: str
    top1: float
    sha256: str

    def __call__(self, images):
        """Classes `(N,)` and pooled features `(N, D)` of images `(N, H, W, C)`."""

        @tf.function(autograph=False)
        def look(image):
            pooled = self.model.pool(self.model.backbone(image, training=False))
            return tf.argmax(self.model.head(pooled), -1), pooled

        return in_batches(look, images)


def of_recipe(recipe, say=print) -> ReferenceClassifier:
    """The classifier of a run's data: an ordinary run beside it, which is trained only once.

    Args:
        recipe: The settings of the run that is evaluated.
        say: Called with each line for the user.

    Raises:
        TrainingError: It could not be trained.
    """

    given = {name: getattr(recipe, name) for name in SAME}
    given |= {"model": MODEL, "log": (), "export": ()}
    usual = resolve(given).experiment.removesuffix("-s0")
    size = "x".join(map(str, recipe.image_size))
    given["experiment"] = "-".join(filter(None, ("reference", usual, size, "s0")))
    folder = Path(recipe.output) / given["experiment"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of runs that end at the same time, one trains it and the others wait.
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _train(resolve(given), folder, lock, say)
    trained = runs.open_run(folder)
    model, _ = trained.restore(say=say)
    digest = hashlib.sha256()
    for path, array in sorted(trained.weights(trained.recipe.weights, say).items()):
        digest.update(path.encode() + np.ascontiguousarray(array).tobytes())
    return ReferenceClassifier(
        model, folder.name, trained.metrics()["test"]["top1"], digest.hexdigest()
    )


def _train(recipe, folder, lock, say):
    """Train in a process of its own, or go on; nothing where it is finished."""
    command = [sys.executable, "-c", "from kerasdl.cli import run; run()"]
    command.append("--strategy=one_device")  # alone, also where this process is one of several
    for name in ("model", "experiment", "log", "export", *SAME):
        value = getattr(recipe, name)
        if value is not None:
            values = (value or ["none"]) if isinstance(value, tuple) else [value]
            command.append(f"--{flag(name)}={','.join(map(str, values))}")
    if (folder / runs.ARGS).exists():
        try:
            old = runs.open_run(folder)
            runs.refuse_changes(old.recipe, recipe)
            if old.finished:
                return
        except ValueError as error:
            say(f"reference classifier: starts anew: {str(error).partition('; give')[0]}")
            command.append("--no-resume")
    say(f"reference classifier: {folder}")
    environment = processes.environment(
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_FORCE_GPU_ALLOW_GROWTH="true",  # this process has most of its memory
    )
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            pass_fds=[lock.fileno()],  # held as long as that process lives
        ) as process,
    ):
        try:
            for line in process.stdout:
                say(f"reference classifier: {line.rstrip()}")
        except BaseException:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"status {process.returncode}"])[-1]
            raise TrainingError(f"the reference classifier {folder} could not be trained: {last}")


@dataclass
class Inception:
    """The features of Keras' InceptionV3, trained on ImageNet, of images resized to 299 pixels.

    Args:
        path: Its file of weights without the last layer.
    """

    path: Path
    name = "InceptionV3"

    def __post_init__(self):
        import keras

        with runs.dtype_policy("float32"):
            self.model = keras.applications.InceptionV3(
                include_top=False, weights=str(self.path), pooling="avg"
            )
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def __call__(self, images):
        """Nothing, as it knows other classes, and features `(N, 2048)`."""

        @tf.function(autograph=False)
        def look(image):
            image = tf.image.resize(image, (299, 299), "bilinear", antialias=True)
            image = image if image.shape[-1] == 3 else tf.repeat(image[..., :1], 3, -1)
            return (self.model(2 * image - 1, training=False),)

        return None, in_batches(look, images)[0]


def inception() -> Inception | None:
    """InceptionV3 where its weights are at hand; nothing is downloaded."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path = Path(home) / "models" / INCEPTION
    return Inception(path) if path.is_file() else None


def in_batches(function, images):
    """The outputs of a function of `(B, H, W, C)`, put together; the last batch is filled up."""
    result = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        full = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), part.dtype)])
        result.append([np.asarray(v)[: len(part)] for v in function(tf.constant(full))])
    return [np.concatenate(parts) for parts in zip(*result, strict=True)]
