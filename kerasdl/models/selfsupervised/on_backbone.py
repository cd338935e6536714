"""Models on a backbone that one of their arguments names."""

import keras

from kerasdl import catalog
from kerasdl.layers.classifier import pooled_last
from kerasdl.layers.core import Model


class OnBackbone(Model):
    """A backbone of the catalogue, and a `head` on what stands for an image.

    Subclasses call `set_backbone` in their constructors.

    Attributes:
        classifier: `(row, arguments)` of the catalogue's classifier on the same backbone, besides
            those that the data decide.
    """

    def set_backbone(self, backbone, image_shape, **backbone_args):
        """Make `self.backbone`, which comes built.

        Args:
            backbone: Name of a vision model of the catalogue.
            image_shape: `(H, W, C)`.
            **backbone_args: Further arguments of its builder.
        """
        given = {k: v for k, v in backbone_args.items() if k not in ("input_mean", "input_std")}
        self.classifier = (backbone, given)
        with keras.name_scope(self.name, caller=self):  # its weights' paths begin with our name
            self.backbone = catalog.build(
                backbone, features=True, image_shape=tuple(image_shape), **backbone_args
            )

    def features(self, x, training=False):
        """The representation of images `(B, H, W, C)`, float `(B, D)`: what is kept for other uses,
        the mean over all places of the backbone's last map."""
        return pooled_last(self.backbone(x, training=training))

    def build(self, input_shape):
        self.head.build((None, self.backbone.width))

    def symbolic_inputs(self):
        return self.backbone.symbolic_inputs()
