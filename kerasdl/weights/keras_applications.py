"""Weights of `keras.applications` for our ResNets, DenseNets and VGGs.

Source: https://keras.io/api/applications; its networks are He et al. 2015's with a bias in every
        convolution, Huang et al. 2016's, and Simonyan and Zisserman 2014's, trained on ImageNet.
"""

import contextlib
import itertools
import math
import socket

import keras

from kerasdl.errors import UserError
from kerasdl.system.names import nearest
from kerasdl.weights.rename import backbone_of

# Names in `keras.applications`, and the models that they fit
RESNETS = {"ResNet50": "resnet50", "ResNet101": "resnet101", "ResNet152": "resnet152"}
DENSENETS = {
    "DenseNet121": "densenet121",
    "DenseNet169": "densenet169",
    "DenseNet201": "densenet201",
}
VGGS = {"VGG16": "vgg16", "VGG19": "vgg19"}
NAMES = {**RESNETS, **DENSENETS, **VGGS}
BGR = (*RESNETS, *VGGS)  # in the Caffe way
# (input_mean, input_std) of images in [0, 1]. The Caffe way's are of 0..255 and not divided; its
# BGR order is undone in the first convolution's kernel.
INPUT = {
    **{n: ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3) for n in BGR},
    **{n: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) for n in DENSENETS},
}
HEAD = ("head", "predictions")
TIMEOUT = 10.0  # seconds without a byte, after which a download has failed


def load(name, model, weights="imagenet"):
    """Give `model` the weights that `keras.applications` has under `name`.

    Images then have to be normalized by `INPUT[name]`: make the model with
    `input_mean, input_std = INPUT[name]`.

    Args:
        name: A key of `NAMES`, such as "ResNet50".
        model: A built model of the same architecture, or its backbone, for images of 3 channels.
        weights: "imagenet" or the path of a weights file.

    Returns:
        Whether all dense layers were assigned: those of a model of 1000 classes, and of VGGs for
        images of 224x224 pixels.

    Raises:
        ValueError: An unknown name, another architecture, or weights that cannot be loaded.
    """
    if name not in NAMES:
        raise UserError(
            f"keras:{name}: no weights of that name{nearest(name, NAMES)}; "
            f"available: {', '.join(f'keras:{n}' for n in NAMES)}"
        )
    try:
        with _timeout(TIMEOUT):
            source = getattr(keras.applications, name)(weights=weights)
    except Exception as error:  # get_file raises a bare Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"keras:{name}: its weights cannot be loaded: {reason}") from error
    try:
        return copy_weights(model, source, bgr=name in BGR)
    except ValueError as error:
        raise UserError(f"keras:{name}: {error}; it fits {NAMES[name]}") from error


def copy_weights(model, source, bgr=False):
    """Assign the weights of a `keras.applications` model to ours, each exactly once.

    Biases of convolutions are folded into the moving means of the batch norms that follow, and
    the difference of the two epsilons into the moving variances: answers stay the same.

    Args:
        model: A built ResNet with bottlenecks, DenseNet for ImageNet or VGG, or its backbone.
        source: The model of `keras.applications`, with its top.
        bgr: Whether `source` takes BGR images; ours then takes RGB ones.

    Returns:
        Whether the head was assigned too, which it is where the numbers of classes agree. Of a
        VGG's dense layers those are assigned that stand before the first that does not fit.

    Raises:
        ValueError: The models differ in anything but the dense layers; nothing is assigned then.
    """
    backbone = backbone_of(model)
    if type(backbone).__module__ == "kerasdl.models.cnn.vgg":
        pairs, dense = _vgg(backbone), (("fc1", "fc1"), ("fc2", "fc2"), HEAD)
    else:
        pairs = _densenet(backbone) if hasattr(backbone, "transitions") else _resnet(backbone)
        dense = (HEAD,)
    layers = [(getattr(model, ours, None), _layer(source, theirs)) for ours, theirs in dense]
    fitting = list(itertools.takewhile(lambda pair: _fits(*pair), layers))
    pairs += [(ours, theirs.name, None) for ours, theirs in fitting]
    left_out = layers[len(fitting) :]

    values = {}  # {path: (ours, value)}
    unused = {v.path for v in source.weights} - {v.path for _, t in left_out for v in t.weights}
    for layer, name, conv in pairs:
        new, read = _values(layer, name, conv, source)
        unused -= {v.path for v in read}
        for ours, value in new:
            if ours.path in values:
                raise UserError(f"{ours.path} is assigned twice")
            if tuple(ours.shape) != value.shape:
                raise UserError(
                    f"{ours.path} needs the shape {tuple(ours.shape)}, but {name} has {value.shape}"
                )
            values[ours.path] = (ours, value)

    skipped = {v.path for ours, _ in left_out if ours is not None for v in ours.weights}
    missing = {v.path for v in model.weights} - set(values) - skipped
    if missing or unused:
        left = f"{len(missing)} weights of the model and {len(unused)} of the source are left over"
        raise UserError(f"{left}, such as {min(missing or unused)}")
    if bgr:
        kernel = pairs[0][0].kernel  # the stem's
        values[kernel.path] = (kernel, values[kernel.path][1][:, :, ::-1])
    for ours, value in values.values():
        ours.assign(value)
    return not left_out


def _fits(ours, theirs):
    """Whether a dense layer of ours, or a convolution in its place, is of the size of theirs."""
    if ours is None:
        return False
    *inputs, units = ours.kernel.shape
    return (math.prod(inputs), units) == tuple(theirs.kernel.shape)


def _values(layer, name, conv, source):
    """`[(our weight, its value)]` of one layer, and the weights of the source that were read."""
    theirs = _layer(source, name)
    if not isinstance(layer, keras.layers.BatchNormalization):  # convolution or dense
        kernel = theirs.kernel.numpy()
        if isinstance(theirs, keras.layers.Dense):  # ours may be a convolution over a whole map
            kernel = kernel.reshape(layer.kernel.shape)
        new = [(layer.kernel, kernel)]
        read = [theirs.kernel]
        if layer.use_bias:
            new.append((layer.bias, theirs.bias.numpy()))
            read.append(theirs.bias)
        return new, read
    read = list(theirs.weights)
    mean = theirs.moving_mean.numpy()
    variance = theirs.moving_variance.numpy() + (theirs.epsilon - layer.epsilon)
    if conv is not None:
        bias = _layer(source, conv).bias
        if bias is not None:
            mean = mean - bias.numpy()  # (Wx + b) - m = Wx - (m - b)
            read.append(bias)
    return [
        (layer.gamma, theirs.gamma.numpy()),
        (layer.beta, theirs.beta.numpy()),
        (layer.moving_mean, mean),
        (layer.moving_variance, variance),
    ], read


def _resnet(backbone):
    """`[(our layer, name of theirs, name of the convolution whose bias it takes)]`."""
    blocks = getattr(backbone, "blocks", [])
    if not blocks or not hasattr(blocks[0], "conv3"):
        raise UserError(
            "the model must be a ResNet with bottlenecks, a DenseNet for ImageNet or a VGG"
        )
    if any(tuple(block.conv1.conv.strides) != (block.stride,) * 2 for block in blocks):
        raise UserError("the weights are for strides in the first 1x1 convolutions (v1)")
    pairs = _conv_norm(backbone.stem, "conv1")
    count = {}
    for stage, block in zip(backbone.stage_of, blocks, strict=True):
        count[stage] = count.get(stage, 0) + 1
        name = f"conv{stage.removeprefix('stage')}_block{count[stage]}"
        for i, part in enumerate((block.project, block.conv1, block.conv2, block.conv3)):
            if part is not None:
                pairs += _conv_norm(part, f"{name}_{i}")
    return pairs


def _densenet(backbone):
    """Like `_resnet`; no convolution has a bias there."""
    if backbone.small:
        raise UserError("the model must be a DenseNet for ImageNet")
    pairs = _conv_norm(backbone.stem, "conv1")
    layers = iter(backbone.dense_layers)
    for s, stage in enumerate(backbone.stages):
        number = stage.removeprefix("stage")
        for i in range(backbone.depths[s]):
            layer, name = next(layers), f"conv{number}_block{i + 1}"
            pairs += [
                (layer.norm1, f"{name}_0_bn", None),
                (layer.conv1, f"{name}_1_conv", None),
                (layer.norm2, f"{name}_1_bn", None),
                (layer.conv2, f"{name}_2_conv", None),
            ]
        if s < len(backbone.transitions):
            pairs.append((backbone.norms[s], f"pool{number}_bn", None))
            pairs.append((backbone.transitions[s].conv, f"pool{number}_conv", None))
        else:
            pairs.append((backbone.norms[s], "bn", None))
    return pairs


def _vgg(backbone):
    """Like `_resnet`; every convolution has a bias, which it keeps."""
    count, pairs = {}, []
    for block in backbone.blocks:
        stage = block.name.split("_")[0]
        count[stage] = count.get(stage, 0) + 1
        name = f"block{stage.removeprefix('stage')}_conv{count[stage]}"
        pairs.append((block.conv, name, None))
    return pairs


def _conv_norm(layer, name):
    conv = f"{name}_conv"
    return [(layer.conv, conv, None), (layer.norm, f"{name}_bn", conv)]


def _layer(source, name):
    try:
        return source.get_layer(name)
    except ValueError:
        raise UserError(f"{source.name} has no layer {name}") from None


@contextlib.contextmanager
def _timeout(seconds):
    """Bound how long a socket may be silent: `keras.utils.get_file` waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
