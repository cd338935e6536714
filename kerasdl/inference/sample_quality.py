"""Samples of a generative model, evaluated by pixels and by an independent classifier."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly
from kerasdl.errors import UserError
from kerasdl.inference import reference_classifier
from kerasdl.inference.reference_classifier import BATCH
from kerasdl.metrics import samples
from kerasdl.ops import noise

COUNTS = (400, 1000)  # samples that are evaluated by pixels, and by features
BYTES = 2**28  # maximum of the real images of a split
REAL = 10_000  # maximum of real images from files, and of those with features
PIXELS = 4096  # more than so many numbers per image have no covariance worth the time


@dataclass
class _Real:
    """The real images, and their statistics, computed once for all ways of sampling."""

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


def evaluate_samples(
    model,
    task,
    source,
    recipe,
    classifier=None,
    say=print,
    features: str = "auto",
    counts: tuple = COUNTS,
) -> dict:
    """Metrics of a model's samples, in each of the ways that its task names.

    Args:
        model: The model.
        task: Its task.
        source: Its data.
        recipe: Its run's settings; the seed decides the samples.
        classifier: What gives `(classes, features)` of images, a `ReferenceClassifier` say; None
            for that of `reference_classifier.of_recipe`, where the data have classes.
        say: Called with each line for the user.
        features: What is compared besides pixels: of "inception", of the "classifier", or "auto",
            of the first where it is at hand.
        counts: Samples for the metrics of pixels, and for those of features and classes.

    Returns:
        JSON values, {} where the task has no samples: `count`, `referee`, `features` (their network
        and its metrics of real training images), `notes`, and of every way in `ways`: `pixel`
        (`frechet` to the test set and `frechet_real`, the training images' own, and their `ratio`;
        `spread` within classes over that of training images, and its `spread_least` and
        `spread_most`; `nearest`, the median distance to the nearest training image, `nearest_test`,
        that of test images, and their `nearest_ratio`), `classes` (`shares`, `least_share`),
        `recognised`, the fraction that is classified as the requested class, and `features`
        (`frechet`, `frechet_real`, `precision`, `recall`, `density`, `coverage`).

    Raises:
        UserError: Features of Inception are requested, and its weights are missing.
        TrainingError: The reference classifier could not be trained.
    """
    ways = task.sampling_modes(model)
    if not ways:
        return {}
    notes, names = [], source.info.class_names
    network = reference_classifier.inception() if features != "classifier" else None
    if features == "inception" and network is None:
        raise UserError(
            f"features=inception needs the file {reference_classifier.INCEPTION} in Keras' folder"
        )
    if len(names) < 2:
        classifier = None
        notes.append("the data have fewer than two classes: no reference classifier")
    elif classifier is None:
        classifier = reference_classifier.of_recipe(recipe, say)
    network = network or classifier
    train, labels = _read(source.train)
    test, _ = _read(source.test)
    labels = labels if classifier else np.zeros_like(labels)
    real = _Real(train, labels, test, max(1, len(names)) if classifier else 1)
    evaluated = {}
    result = {
        "count": dict(zip(("pixel", "features"), counts, strict=True)),
        "referee": classifier and {k: getattr(classifier, k) for k in ("name", "top1", "sha256")},
    }
    if network:
        held = [network(images[evenly(len(images), REAL)])[1] for images in (test, train)]
        frechet_real = samples.frechet_distance(*held)
        of_train = held[1][evenly(len(held[1]), counts[1])]
        result["features"] = {
            "name": network.name,
            "sha256": network.sha256,
            "real": _feature_metrics(held[0], of_train, frechet_real),
        }
    for name, settings in ways.items():
        labeled = "guidance" in settings
        images, requested = _sample(
            task, model, settings, recipe.seed, max(counts), len(names) if labeled else 0
        )
        broken = int((~np.isfinite(images)).any((1, 2, 3)).sum())
        if broken:
            notes.append(f"{name}: {broken} of {len(images)} images are not finite: not evaluated")
            continue
        seen, compared = classifier(images) if classifier else (None, None)
        classes = seen if classifier else np.zeros(len(images), int)
        way = {"pixel": _pixel_metrics(images[: counts[0]], classes[: counts[0]], real)}
        if classifier:
            fractions = samples.class_shares(classes, real.num_classes)
            way["classes"] = {
                "shares": dict(zip(names, map(float, fractions), strict=True)),
                "least_share": float(fractions.min()),
            }
            if settings.get("guidance"):
                way["recognised"] = float((classes == requested).mean())
        if network:
            compared = compared if network is classifier else network(images)[1]
            way["features"] = _feature_metrics(held[0], compared[: counts[1]], frechet_real)
        evaluated[name] = way
        say(f"samples {name}: {_line(way)}")
    return result | {"notes": notes, "ways": evaluated}


def _sample(task, model, settings, seed, count, num_classes):
    """Images float32 `(count, H, W, C)`, and the requested classes, in turn; None of 0 classes."""

    @tf.function(autograph=False)
    def sample(key, **label):
        return tf.cast(task.sample(model, key, **label, **settings), "float32")

    total = -(-count // BATCH) * BATCH
    keys = noise.sample_keys(np.array([seed & 0xFFFFFFFF, seed >> 32], "uint32"), total)
    label = np.arange(total, dtype="int32") % num_classes if num_classes else None
    result = []
    for start in range(0, total, BATCH):
        part = slice(start, start + BATCH)
        given = {"label": tf.constant(label[part])} if num_classes else {}
        result.append(sample(keys[part], **given).numpy())
    return np.concatenate(result)[:count], label[:count] if num_classes else None


def _read(split):
    """Images of a split as floats in [0, 1], evenly spread where they are too many; and labels."""
    size = 4 * split.read([0])["image"].size
    maximum = max(1, min(BYTES // size, len(split) if split.arrays is not None else REAL))
    chosen = evenly(len(split), maximum)
    images, labels = [], []
    for rows in np.array_split(chosen, -(-len(chosen) // 256)):
        batch = split.read(rows)
        images.append(to_float(tf.constant(batch["image"])).numpy())
        labels.append(batch.get("label", np.zeros(len(rows), np.int32)))
    return np.concatenate(images), np.concatenate(labels)


def _flat(images):
    return images.reshape(len(images), -1)


def _pixel_metrics(images, classes, real):
    flat = _flat(images)
    nearest = float(np.median(samples.nearest_distances(flat, real.flat_train)))
    result = {
        "nearest": nearest,
        "nearest_test": float(real.nearest),
        "nearest_ratio": _over(nearest, real.nearest),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        spreads = samples.class_spreads(flat, classes, real.num_classes) / real.spreads
    spreads = spreads[np.isfinite(spreads)]
    if len(spreads):
        result["spread"] = float(spreads.mean())
        result["spread_least"] = float(spreads.min())
        result["spread_most"] = float(spreads.max())
    if real.frechet is not None:
        frechet = samples.frechet_distance(flat, real.flat_test)
        result["frechet"] = frechet
        result["frechet_real"] = real.frechet
        result["ratio"] = _over(frechet, real.frechet)
    return result


def _feature_metrics(test, sampled, frechet_real):
    result = {"frechet": samples.frechet_distance(sampled, test), "frechet_real": frechet_real}
    maximum = min(len(test), len(sampled)) - 1  # neighbors that there are
    pairs = {
        ("precision", "recall"): (samples.precision_recall, 3),
        ("density", "coverage"): (samples.density_coverage, 5),
    }
    for names, (function, k) in pairs.items():
        if maximum >= k:
            result |= dict(zip(names, function(test, sampled, k), strict=True))
    return result


def _over(a, b):
    return float(a / b) if b else None


def _line(way):
    """The main metrics, in one line."""
    shown = {
        "frechet": way["pixel"].get("frechet"),
        "frechet_ratio": way["pixel"].get("ratio"),
        "nearest_ratio": way["pixel"]["nearest_ratio"],
        "least_share": way.get("classes", {}).get("least_share"),
        "recognised": way.get("recognised"),
    }
    return " ".join(f"{k} {v:.4f}" for k, v in shown.items() if v is not None)
