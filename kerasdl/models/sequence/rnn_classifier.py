"""Recurrent classifiers that read an image row by row.

Paper:   Finding Structure in Time, Elman 1990 (`rnn_classifier`); Long Short-Term Memory,
         Hochreiter and Schmidhuber 1997 (`lstm_classifier`); Learning Phrase Representations using
         RNN Encoder-Decoder, Cho et al. 2014, https://arxiv.org/abs/1406.1078 (`gru_classifier`);
         Framewise Phoneme Classification with Bidirectional LSTM, Graves and Schmidhuber 2005
         (`bilstm_classifier`).
Differs: the sequence is an image's rows and has one label; forget gates; the reset gate comes after
         the product; cross entropy, dropout. On a GPU the layers are not compared with cuDNN's.
"""

from keras import ops

from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import register
from kerasdl.layers.recurrent import RecurrentStack


@register
class RecurrentBackbone(Backbone):
    """Recurrent layers on the rows of an image: `T = H` steps of `D = W C` numbers.

    Any sequence `(T, D)` is an image `(T, D, 1)`.

    Args:
        image_shape: `(H, W, C)`.
        kind: `rnn`, `lstm` or `gru`.
        units: Of each layer and direction, `U`.
        num_layers: Layers.
        drop_rate: Dropout between layers.
        bidirectional: Whether each layer reads from both ends.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether to drop.

    Returns:
        `{"final": (B, U), "stage1": (B, T, U)}`: the last layer after its last step, and after each
        step; `2 U` of both directions, each after its own last step.
    """

    def __init__(
        self,
        image_shape,
        kind,
        units=128,
        num_layers=1,
        drop_rate=0.0,
        bidirectional=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 1, self.name)
        self.stage1 = RecurrentStack(
            kind, units, num_layers, drop_rate, bidirectional, name="stage1"
        )
        self.channels = {"stage1": self.stage1.width}

    def build(self, input_shape):
        height, width, channels = self.image_shape
        self.normalize.build(input_shape)
        self.stage1.build((None, height, width * channels))

    def call(self, x, training=False):
        height, width, channels = self.image_shape
        rows = ops.reshape(self.normalize(x), (-1, height, width * channels))
        y, state = self.stage1(rows, training=training)
        return {"final": self.stage1.final_outputs(state), "stage1": y}


@register
class RecurrentClassifier(Classifier):
    """A `RecurrentBackbone` and a dense layer on what it ends with; dropout after every layer."""

    backbone_class = RecurrentBackbone
    drops = ("backbone", "head")

    def pool(self, features):
        return features["final"]


def rnn_classifier(image_shape=(28, 28, 1), num_classes=10, **kwargs):
    """One simple recurrent layer of 128 units."""
    kind = {"kind": "rnn"}
    return make(RecurrentClassifier, "rnn_classifier", image_shape, num_classes, kind, kwargs)


def lstm_classifier(image_shape=(28, 28, 1), num_classes=10, **kwargs):
    """One LSTM layer of 128 units."""
    kind = {"kind": "lstm"}
    return make(RecurrentClassifier, "lstm_classifier", image_shape, num_classes, kind, kwargs)


def gru_classifier(image_shape=(28, 28, 1), num_classes=10, **kwargs):
    """One GRU layer of 128 units."""
    kind = {"kind": "gru"}
    return make(RecurrentClassifier, "gru_classifier", image_shape, num_classes, kind, kwargs)


def bilstm_classifier(image_shape=(28, 28, 1), num_classes=10, **kwargs):
    """Two LSTM layers of 128 units, one from each end."""
    kind = {"kind": "lstm", "bidirectional": True}
    return make(RecurrentClassifier, "bilstm_classifier", image_shape, num_classes, kind, kwargs)


_TINY = {
    "image_shape": (6, 7, 1),
    "num_classes": 7,
    "drop_rate": 0.1,
    "input_mean": 0.4,
    "input_std": 0.3,
}
TINY = {
    "rnn_classifier": {**_TINY, "units": 12, "num_layers": 2},
    "lstm_classifier": {**_TINY, "units": 10, "num_layers": 2},
    "gru_classifier": {**_TINY, "units": 9, "num_layers": 2, "bidirectional": True},
    "bilstm_classifier": {**_TINY, "units": 8, "num_layers": 2},
}
_RECIPE = {
    "epochs": 120,
    "lr": 0.004,
    "warmup_epochs": 3.0,
    "weight_decay": 0.01,
    "drop_rate": 0.5,
    "clip_grad": 1.0,
    "augment": ("shift", "noise"),
    "weights": "last",
}
RECIPE = {name: _RECIPE for name in TINY}
