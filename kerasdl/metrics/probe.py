"""What frozen features say about classes: nearest neighbors, and a linear classifier of few labels.

Both are fitted to a reference, examples of the training part with their labels, and evaluated on
another part.

Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4 (weighted k-NN);
        Zhang et al. 2016, https://arxiv.org/abs/1603.08511, section 3.2 (linear probe).
"""

import numpy as np

from kerasdl.metrics.evaluator import Evaluator
from kerasdl.ops.labels import balanced

ROWS = 1024  # whose similarities to the whole reference are computed at a time
COLUMNS = {"features": np.float32, "label": np.int64, "index": np.int64}


class Probe(Evaluator):
    """Keeps the features of the reference and of the evaluated part.

    Its state may be merged in any order: examples are sorted by their number, and one that is given
    twice counts once.

    Args:
        num_classes: `K`.
        reference: How many examples of the training part it is to be given.
    """

    def __init__(self, num_classes: int, reference: int):
        self.num_classes = num_classes
        self.reference = reference
        names = [f"{part}_{column}" for part in ("reference", "evaluated") for column in COLUMNS]
        self.parts = {name: [] for name in names}

    def refer(self, outputs: dict, batch: dict) -> None:
        """Add a batch of the reference; see `update`."""
        self._add("reference", outputs, batch)

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch of the evaluated part.

        Args:
            outputs: `features`, numpy `(B, C)`.
            batch: `label` int `(B,)`, `index` int `(B,)`, and `weight` `(B,)`: examples of weight
                0 do not count.
        """
        self._add("evaluated", outputs, batch)

    def _add(self, part, outputs, batch):
        real = np.asarray(batch["weight"]) > 0
        values = {**batch, "features": outputs["features"]}
        for name, dtype in COLUMNS.items():
            self.parts[f"{part}_{name}"].append(np.asarray(values[name])[real].astype(dtype))

    def state(self) -> dict:
        """`{name: numpy array}` of everything given so far; {} where that is nothing."""
        return {name: np.concatenate(values) for name, values in self.parts.items() if values}

    def merge(self, state: dict) -> None:
        """Add what another one was given.

        Args:
            state: Its `state()`.
        """
        for name, value in state.items():
            self.parts[name].append(np.asarray(value))

    def result(self) -> dict:
        """`{"test": {metric: fraction of the evaluated examples whose class is predicted}}`.

        Raises:
            ValueError: No reference, or nothing to evaluate, was given.
        """
        state = self.state()
        parts = [_sorted(part, state) for part in ("reference", "evaluated")]
        (known, label), (features, true) = parts
        predicted = self.predict(known.astype(np.float64), label, features.astype(np.float64))
        return {"test": {self.metrics[0]: float(np.mean(predicted == true))}}

    def predict(self, known, label, features) -> np.ndarray:
        """Classes int `(N,)` of `features` `(N, C)`, of a reference `(M, C)`, `(M,)`."""
        raise NotImplementedError


def _sorted(part, state):
    """Features and labels of a part, in the order of the examples' numbers."""
    index = state.get(f"{part}_index", np.zeros(0))
    if not len(index):
        raise ValueError(f"a probe of features needs {part} examples: it was given none")
    order = np.unique(index, return_index=True)[1]
    return state[f"{part}_features"][order], state[f"{part}_label"][order]


class KNN(Probe):
    """Weighted vote of the `k` nearest reference examples: each counts `exp(cosine / tau)`.

    Of equal scores the lower class wins, of equally near examples the one of the lower number.

    Args:
        num_classes: `K`.
        k: Neighbors; all of the reference where it is smaller.
        temperature: `tau`.
        reference: How many examples of the training part it is to be given.
    """

    metrics = ("knn_top1",)

    def __init__(self, num_classes: int, k: int = 20, temperature: float = 0.07, reference=5000):
        super().__init__(num_classes, reference)
        self.k = k
        self.temperature = temperature

    def predict(self, known, label, features):
        known, features = _unit(known), _unit(features)
        k = min(self.k, len(known))
        votes = np.eye(self.num_classes)[label]  # (M, K)
        classes = []
        for start in range(0, len(features), ROWS):
            cosine = features[start : start + ROWS] @ known.T
            near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
            weight = np.exp(np.take_along_axis(cosine, near, axis=1) / self.temperature)
            classes.append(np.einsum("nk,nkc->nc", weight, votes[near]).argmax(1))
        return np.concatenate(classes)


def _unit(x):
    """Rows of length 1; rows of zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


class LinearProbe(Probe):
    """Multinomial logistic regression on few labeled examples.

    Features are standardized with mean and standard deviation of the reference, whose other labels
    stay unused. It minimizes the sum of the labeled examples' cross entropies plus
    `l2 / 2 |weights|^2`, without the biases.

    Args:
        num_classes: `K`.
        labels: How many labeled examples, as equally many of each class as there are: the first by
            number.
        l2: Regularization.
        reference: How many examples of the training part it is to be given.
    """

    metrics = ("linear_probe_top1",)

    def __init__(self, num_classes: int, labels: int = 50, l2: float = 1.0, reference=5000):
        super().__init__(num_classes, reference)
        self.labels = labels
        self.l2 = l2

    def predict(self, known, label, features):
        chosen = balanced(label, self.labels)
        return logistic_regression(known, label, chosen, self.l2)(features)


def logistic_regression(known, label, chosen, l2):
    """Multinomial logistic regression; see `LinearProbe`.

    Args:
        known: Features float `(M, C)`, of whose mean and deviation all are standardized.
        label: int `(M,)`.
        chosen: int `(n,)`, the examples whose labels are used.
        l2: Regularization.

    Returns:
        A function that gives the classes int `(N,)` of features `(N, C)`.
    """
    from sklearn.linear_model import LogisticRegression

    mean, std = known.mean(0), known.std(0)
    std[std < 1e-9 * (1 + abs(mean))] = 1.0  # constants say nothing
    if len(np.unique(label[chosen])) == 1:
        return lambda features: np.full(len(features), label[chosen[0]])
    model = LogisticRegression(C=1.0 / l2, max_iter=5000, tol=1e-6)
    model.fit((known[chosen] - mean) / std, label[chosen])
    return lambda features: model.predict((features - mean) / std)
