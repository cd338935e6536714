"""What the paper of 2015, and the layout that became common, promise."""

import keras
import numpy as np
import pytest

from kerasdl.models.generative import dcgan


def counts(part, weights="trainable_weights"):
    return sum(int(np.prod(w.shape)) for w in getattr(part, weights))


def test_parameters_of_the_common_layout():
    with keras.StatelessScope(initialize_variables=False):
        model = dcgan.dcgan()
    assert counts(model.generator) == 3_576_704
    assert counts(model.generator, "weights") == 3_578_624
    assert counts(model.discriminator) == 2_765_568
    assert counts(model.discriminator, "weights") == 2_767_360


def test_layout_of_the_paper():
    """Figure 1: 100 to 4x4x1024, 512, 256 and 128 channels, then 64x64x3, with 5x5 kernels."""
    with keras.StatelessScope(initialize_variables=False):
        generator = dcgan.dcgan(base_filters=128, kernel_size=5).generator
    assert generator.project.kernel.shape == (100, 4 * 4 * 1024)
    kernels = [up.kernel.shape for up in (*generator.ups, generator.head)]
    assert kernels == [(5, 5, 512, 1024), (5, 5, 256, 512), (5, 5, 128, 256), (5, 5, 3, 128)]


@pytest.mark.parametrize(
    ("side", "smallest", "maps"),
    [(8, 4, 1), (8, 2, 2), (16, 4, 2), (32, 4, 3), (64, 4, 4), (12, 3, 2)],
)
def test_sizes(rng, side, smallest, maps):
    shape = (side, side, 2)
    model = dcgan.dcgan(image_shape=shape, base_filters=2, smallest=smallest)
    assert len(model.discriminator.convs) == len(model.generator.norms) == maps
    x = {"image": rng.random((3, *shape)), "latent": rng.normal(size=(3, 100))}
    answer = model(x)
    assert answer["image"].shape == (3, *shape)
    assert answer["real"].shape == answer["fake"].shape == (3,)
    image = np.asarray(answer["image"])
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize(
    ("shape", "nearest"),
    [
        ((4, 4, 1), "8x8;"),
        ((28, 28, 1), "16x16, 32x32;"),
        ((33, 33, 3), "32x32, 64x64;"),
        ((32, 16, 3), "32x32;"),
        ((100, 64, 3), "64x64, 128x128;"),
    ],
)
def test_other_sizes_are_refused(shape, nearest):
    with pytest.raises(ValueError, match=rf"square images of 4 \* 2\^n .* nearest are {nearest}"):
        dcgan.dcgan(image_shape=shape)


def test_bad_arguments():
    with pytest.raises(ValueError, match="needs .side, side, channels."):
        dcgan.dcgan(image_shape=(8, 8))
    with pytest.raises(ValueError, match="norm 'layer': not one of batch, none"):
        dcgan.dcgan(norm="layer")
    with pytest.raises(ValueError, match="base_filters 0"):
        dcgan.dcgan(base_filters=0)


def test_a_discriminator_without_batch_norm_judges_every_image_by_itself(rng):
    shape = (16, 16, 1)
    images = rng.random((4, *shape)).astype("float32")
    for norm, alone in (("none", True), ("batch", False)):
        model = dcgan.dcgan(image_shape=shape, base_filters=4, norm=norm)
        together = np.asarray(model.discriminate(images, training=True))
        first = np.asarray(model.discriminate(images[:1], training=True))
        assert np.allclose(together[:1], first, rtol=1e-4, atol=1e-6) == alone


def test_minibatch_statistics_tell_of_a_batch_that_is_all_alike(rng):
    model = dcgan.dcgan(image_shape=(8, 8, 1), base_filters=4, norm="none", minibatch_std=True)
    images = rng.random((4, 8, 8, 1)).astype("float32")
    alike = np.repeat(images[:1], 4, axis=0)
    varied = np.asarray(model.discriminate(images, training=True))[0]
    assert abs(varied - np.asarray(model.discriminate(alike, training=True))[0]) > 1e-5
