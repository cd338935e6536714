"""What a generative model draws, judged: by its pixels, and by a classifier that it never met."""

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

from kerasdl import processes
from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly
from kerasdl.metrics import samples
from kerasdl.ops import noise
from kerasdl.recipe import flag
from kerasdl.training import runs
from kerasdl.training.loop import TrainingError

MODEL = "resnet20"
# Settings of the referee that are those of the judged run.
SAME = "dataset data_dir image_size val_split skip_bad_files output".split()
COUNTS = (400, 1000)  # drawn images that are judged by pixels, and by features
BATCH = 64
BYTES = 2**28  # of the real images of a split that are looked at, at most
REAL = 10_000  # of those that are read from files, or whose features are taken, at most
PIXELS = 4096  # more than so many numbers per image have no covariance worth the time
INCEPTION = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


# -- who judges -----------------------------------------------------------------------------------


@dataclass
class Referee:
    """A classifier that says what is drawn, and a layer whose outputs are compared.

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

        return _in_batches(look, images)


def referee_of(recipe, say=print) -> Referee:
    """The classifier of a run's data: an ordinary run beside it, which is trained only once.

    Args:
        recipe: The settings of the run that is judged.
        say: Where lines for the user go.

    Raises:
        TrainingError: It could not be trained.
    """
    from kerasdl.training import run

    given = {name: getattr(recipe, name) for name in SAME}
    given |= {"model": MODEL, "log": (), "export": ()}
    usual = run.resolve(given).experiment.removesuffix("-s0")
    size = "x".join(map(str, recipe.image_size))
    given["experiment"] = "-".join(filter(None, ("referee", usual, size, "s0")))
    folder = Path(recipe.output) / given["experiment"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of runs that end at the same time, one trains it and the others wait.
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _train(run.resolve(given), folder, lock, say)
    trained = runs.open_run(folder)
    model, _ = trained.restore(say=say)
    digest = hashlib.sha256()
    for path, array in sorted(trained.weights(trained.recipe.weights, say).items()):
        digest.update(path.encode() + np.ascontiguousarray(array).tobytes())
    return Referee(model, folder.name, trained.metrics()["test"]["top1"], digest.hexdigest())


def _train(recipe, folder, lock, say):
    """Train in a process of its own, or go on; nothing where it is finished."""
    command = [sys.executable, "-c", "from kerasdl.cli import run; run()"]
    command.append("--strategy=one_device")  # alone, also where this process is one of several
    for name in ("model", "experiment", "log", "export", *SAME):
        value = getattr(recipe, name)
        if value is not None:
            words = (value or ["none"]) if isinstance(value, tuple) else [value]
            command.append(f"--{flag(name)}={','.join(map(str, words))}")
    if (folder / runs.ARGS).exists():
        try:
            old = runs.open_run(folder)
            runs.refuse_changes(old.recipe, recipe)
            if (old.metrics() or {}).get("finished"):
                return
        except ValueError as error:
            say(f"referee: starts anew: {str(error).partition('; give')[0]}")
            command.append("--no-resume")
    say(f"referee: {folder}")
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
            pass_fds=[lock.fileno()],  # it is held as long as that process lives
        ) as process,
    ):
        try:
            for line in process.stdout:
                say(f"referee: {line.rstrip()}")
        except BaseException:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"status {process.returncode}"])[-1]
            raise TrainingError(f"the referee {folder} could not be trained: {last}")


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

        return None, _in_batches(look, images)[0]


def inception() -> Inception | None:
    """InceptionV3 where its weights are at hand; nothing is downloaded."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path = Path(home) / "models" / INCEPTION
    return Inception(path) if path.is_file() else None


def _in_batches(function, images):
    """The outputs of a function of `(B, H, W, C)`, put together; the last batch is filled up."""
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        full = np.concatenate([part, np.zeros((BATCH - len(part), *part.shape[1:]), part.dtype)])
        found.append([np.asarray(v)[: len(part)] for v in function(tf.constant(full))])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


# -- what is judged -------------------------------------------------------------------------------


@dataclass
class _Real:
    """The real images, and what is found of them once for all ways of drawing."""

    train: np.ndarray  # (N, H, W, C)
    classes: np.ndarray  # of them, (N,)
    test: np.ndarray
    num_classes: int

    def __post_init__(self):
        self.flat_train, self.flat_test = _flat(self.train), _flat(self.test)
        self.nearest = np.median(samples.nearest_distances(self.flat_test, self.flat_train))
        self.spreads = samples.class_spreads(self.flat_train, self.classes, self.num_classes)
        self.frechet = None
        if self.flat_test.shape[1] <= PIXELS:
            self.frechet = samples.frechet_distance(self.flat_train, self.flat_test)


def judge_samples(
    model,
    task,
    source,
    recipe,
    referee=None,
    say=print,
    features: str = "auto",
    counts: tuple = COUNTS,
) -> dict:
    """Figures of what a model draws, in each of the ways that its task names.

    Args:
        model: The model.
        task: Its task.
        source: Its data.
        recipe: Its run's settings; the seed decides what is drawn.
        referee: What gives `(classes, features)` of images, a `Referee` say; None for that of
            `referee_of`, where the data have classes to tell apart.
        say: Where lines for the user go.
        features: What is compared besides pixels: of "inception", of the "classifier", or "auto",
            of the first where it is at hand.
        counts: Images drawn for the figures of pixels, and for those of features and classes.

    Returns:
        JSON values, {} where the task draws nothing: `count`, `referee`, `features` (their network
        and its figures of real training images), `notes`, and of every way in `ways`: `pixel`
        (`frechet` to the test set and `frechet_real`, the training images' own, and their `ratio`;
        `spread` within classes over that of training images, and its `spread_least` and
        `spread_most`; `nearest`, the median distance to the nearest training image, `nearest_test`,
        that of test images, and their `nearest_ratio`), `classes` (`shares`, `least_share`),
        `recognised`, the share that is taken for the class that was asked for, and `features`
        (`frechet`, `frechet_real`, `precision`, `recall`, `density`, `coverage`).

    Raises:
        ValueError: Features of Inception are wanted, and its weights are not there.
        TrainingError: The referee could not be trained.
    """
    ways = task.draws(model)
    if not ways:
        return {}
    notes, names = [], source.info.class_names
    network = inception() if features != "classifier" else None
    if features == "inception" and network is None:
        raise ValueError(f"features of inception: there is no {INCEPTION} in Keras' folder")
    if len(names) < 2:
        referee = None
        notes.append("the data have no classes to tell apart: no referee")
    elif referee is None:
        referee = referee_of(recipe, say)
    network = network or referee
    train, labels = _read(source.train)
    test, _ = _read(source.test)
    labels = labels if referee else np.zeros_like(labels)
    real = _Real(train, labels, test, max(1, len(names)) if referee else 1)
    judged = {}
    found = {
        "count": dict(zip(("pixel", "features"), counts, strict=True)),
        "referee": referee and {k: getattr(referee, k) for k in ("name", "top1", "sha256")},
    }
    if network:
        held = [network(images[evenly(len(images), REAL)])[1] for images in (test, train)]
        frechet_real = samples.frechet_distance(*held)
        of_train = held[1][evenly(len(held[1]), counts[1])]
        found["features"] = {
            "name": network.name,
            "sha256": network.sha256,
            "real": _feature_figures(held[0], of_train, frechet_real),
        }
    for name, settings in ways.items():
        labelled = "guidance" in settings
        images, asked = _draw(
            task, model, settings, recipe.seed, max(counts), len(names) if labelled else 0
        )
        broken = int((~np.isfinite(images)).any((1, 2, 3)).sum())
        if broken:
            notes.append(f"{name}: {broken} of {len(images)} images are not finite: not judged")
            continue
        seen, compared = referee(images) if referee else (None, None)
        classes = seen if referee else np.zeros(len(images), int)
        way = {"pixel": _pixel_figures(images[: counts[0]], classes[: counts[0]], real)}
        if referee:
            shares = samples.class_shares(classes, real.num_classes)
            way["classes"] = {
                "shares": dict(zip(names, map(float, shares), strict=True)),
                "least_share": float(shares.min()),
            }
            if settings.get("guidance"):
                way["recognised"] = float((classes == asked).mean())
        if network:
            compared = compared if network is referee else network(images)[1]
            way["features"] = _feature_figures(held[0], compared[: counts[1]], frechet_real)
        judged[name] = way
        say(f"samples {name}: {_line(way)}")
    return found | {"notes": notes, "ways": judged}


def _draw(task, model, settings, seed, count, num_classes):
    """Images float32 `(count, H, W, C)`, and the classes asked for, in turn; None of 0 classes."""

    @tf.function(autograph=False)
    def draw(key, **label):
        return tf.cast(task.draw(model, key, **label, **settings), "float32")

    total = -(-count // BATCH) * BATCH
    keys = noise.sample_keys(np.array([seed & 0xFFFFFFFF, seed >> 32], "uint32"), total)
    label = np.arange(total, dtype="int32") % num_classes if num_classes else None
    found = []
    for start in range(0, total, BATCH):
        part = slice(start, start + BATCH)
        given = {"label": tf.constant(label[part])} if num_classes else {}
        found.append(draw(keys[part], **given).numpy())
    return np.concatenate(found)[:count], label[:count] if num_classes else None


def _read(split):
    """Images of a split as floats in [0, 1], evenly spread where they are too many; and labels."""
    size = 4 * split.read([0])["image"].size
    most = max(1, min(BYTES // size, len(split) if split.arrays is not None else REAL))
    chosen = evenly(len(split), most)
    images, labels = [], []
    for rows in np.array_split(chosen, -(-len(chosen) // 256)):
        batch = split.read(rows)
        images.append(to_float(tf.constant(batch["image"])).numpy())
        labels.append(batch.get("label", np.zeros(len(rows), np.int32)))
    return np.concatenate(images), np.concatenate(labels)


def _flat(images):
    return images.reshape(len(images), -1)


def _pixel_figures(images, classes, real):
    flat = _flat(images)
    nearest = float(np.median(samples.nearest_distances(flat, real.flat_train)))
    found = {
        "nearest": nearest,
        "nearest_test": float(real.nearest),
        "nearest_ratio": _over(nearest, real.nearest),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = samples.class_spreads(flat, classes, real.num_classes) / real.spreads
    spreads = spreads[np.isfinite(spreads)]
    if len(spreads):
        found["spread"] = float(spreads.mean())
        found["spread_least"] = float(spreads.min())
        found["spread_most"] = float(spreads.max())
    if real.frechet is not None:
        frechet = samples.frechet_distance(flat, real.flat_test)
        found["frechet"] = frechet
        found["frechet_real"] = real.frechet
        found["ratio"] = _over(frechet, real.frechet)
    return found


def _feature_figures(test, drawn, frechet_real):
    found = {"frechet": samples.frechet_distance(drawn, test), "frechet_real": frechet_real}
    most = min(len(test), len(drawn)) - 1  # neighbours that there are
    pairs = {
        ("precision", "recall"): (samples.precision_recall, 3),
        ("density", "coverage"): (samples.density_coverage, 5),
    }
    for names, (function, k) in pairs.items():
        if most >= k:
            found |= dict(zip(names, function(test, drawn, k), strict=True))
    return found


def _over(a, b):
    return float(a / b) if b else None


def _line(way):
    """The figures that are looked at first, in one line."""
    shown = {
        "frechet": way["pixel"].get("frechet"),
        "frechet_ratio": way["pixel"].get("ratio"),
        "nearest_ratio": way["pixel"]["nearest_ratio"],
        "least_share": way.get("classes", {}).get("least_share"),
        "recognised": way.get("recognised"),
    }
    return " ".join(f"{k} {v:.4f}" for k, v in shown.items() if v is not None)
