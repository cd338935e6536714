"""How much of an image each value of a network sees: its receptive field, from the graph, and how
much of that counts: its effective receptive field, by gradients.

Along a path of windows of `k` places, `d` apart, at strides `s`, the field grows by
`(k - 1) d j` pixels, where `j` is the product of the strides before. Where paths meet, the larger
one counts.

Source: Araujo et al. 2019, Computing Receptive Fields of Convolutional Neural Networks,
        https://distill.pub/2019/computing-receptive-fields;
        Luo et al. 2016, https://arxiv.org/abs/1701.04128 (effective ones, section 3).
"""

import math

import numpy as np
import tensorflow as tf

WINDOWS = ("Conv2D", "DepthwiseConv2dNative", "MaxPool", "MaxPoolV2", "AvgPool")
REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod")
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "XlaEinsum")
RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")
WHOLE = (math.inf, math.inf)
ONE = ((1, 1), (1.0, 1.0))  # field and stride of a pixel
COUNTS = 1 - 0.9545  # of the largest gradient: what a pixel that counts has


def fields(operations, start) -> dict:
    """The receptive fields of what a graph computes from an image.

    Args:
        operations: Of the graph, in order.
        start: The name of the tensor that is the image, `(1, H, W, C)`.

    Returns:
        `{tensor name: (height, width)}` in pixels, `inf` where it is the whole image whatever its
        size; of tensors that depend on the image.
    """
    known = {start: ONE}
    for op in operations:
        given = [known[x.name] for x in op.inputs if x.name in known]
        if not given or start in [y.name for y in op.outputs]:
            continue
        field = tuple(max(one[0][a] for one in given) for a in (0, 1))
        stride = tuple(max(one[1][a] for one in given) for a in (0, 1))
        result = _after(op, field, stride)
        known |= {y.name: result for y in op.outputs}
    return {
        name: tuple(int(n) if n < math.inf else n for n in one[0]) for name, one in known.items()
    }


def effective(function, image_shape, examples: int = 8, seed: int = 0) -> dict:
    """The effective receptive fields of maps: how many pixels count for what is in their middle.

    The gradient of the middle, with a random sign for each channel, is averaged over images of
    noise; a pixel counts where it is more than 4.55 % of the largest.

    Args:
        function: Of images `(B, H, W, C)` to `{name: (B, h, w, c)}`, in graph operations.
        image_shape: `(H, W, C)`.
        examples: How many images, and seed of them.
        seed: See `examples`.

    Returns:
        `{name: side}` in pixels, of the square of as many pixels; 0 where none counts.
    """

    @tf.function(autograph=False)
    def gradients(x, key):
        found = {}
        for name, value in function(x).items():
            middle = value[:, value.shape[1] // 2, value.shape[2] // 2]
            signs = tf.random.stateless_uniform(tf.shape(middle), key, 0, 2, tf.int32) * 2 - 1
            (gradient,) = tf.gradients(middle, [x], tf.cast(signs, middle.dtype))
            gradient = tf.zeros_like(x) if gradient is None else gradient
            found[name] = tf.reduce_sum(tf.abs(gradient), (0, -1))
        return found

    total = {}
    for number in range(examples):
        key = tf.constant([seed, number])
        x = tf.random.stateless_uniform((1, *image_shape), key)
        for name, gradient in gradients(x, key).items():
            total[name] = total.get(name, 0.0) + gradient.numpy()
    return {name: math.sqrt(np.sum(g > COUNTS * g.max())) for name, g in total.items()}


def _after(op, field, stride):
    """Field and stride of what an operation gives, of those of what it gets."""
    shape = op.inputs[0].shape
    if op.type in WINDOWS:
        window = _window(op)
        steps, dilations = _of(op, "strides"), _of(op, "dilations")
        grown = zip(field, window, dilations, stride, strict=True)
        field = tuple(r + (k - 1) * d * j for r, k, d, j in grown)
        return field, tuple(j * s for j, s in zip(stride, steps, strict=True))
    if op.type == "Conv2DBackpropInput":  # transposed: of each output, k / s places of the input
        window, steps = tuple(op.inputs[1].shape)[:2], _of(op, "strides")
        grown = zip(field, window, steps, stride, strict=True)
        field = tuple(r + (math.ceil(k / s) - 1) * j for r, k, s, j in grown)
        return field, tuple(j / s for j, s in zip(stride, steps, strict=True))
    if op.type in RESIZES:
        before, after = tuple(shape)[1:3], tuple(op.outputs[0].shape)[1:3]
        reach = 0 if op.type == "ResizeNearestNeighbor" else 1
        field = tuple(r + reach * j for r, j in zip(field, stride, strict=True))
        grown = zip(stride, before, after, strict=True)
        return field, tuple(j * b / a for j, b, a in grown)
    if op.type in ("SpaceToBatchND", "BatchToSpaceND"):  # how some dilate
        block = np.atleast_1d(tf.get_static_value(op.inputs[1]))
        power = 1 if op.type == "SpaceToBatchND" else -1
        return field, tuple(j * float(b) ** power for j, b in zip(stride, block, strict=True))
    if op.type == "StridedSlice" and shape.rank == 4:
        steps = np.abs(tf.get_static_value(op.inputs[3]))
        wide = [*steps, *[1] * 4][:4]
        return field, tuple(j * float(s) for j, s in zip(stride, wide[1:3], strict=True))
    if _mixes(op, shape):
        return WHOLE, stride
    return field, stride


def _mixes(op, shape) -> bool:
    """Whether each value that an operation gives depends on all places of what it gets."""
    if op.type in PRODUCTS:
        return True
    if op.type in REDUCTIONS and shape.rank == 4:
        axes = np.atleast_1d(tf.get_static_value(op.inputs[1])) % 4
        return bool({1, 2} & set(axes.tolist()))
    return False


def _window(op):
    if op.type in ("Conv2D", "DepthwiseConv2dNative"):
        return tuple(op.inputs[1].shape)[:2]
    return _of(op, "ksize")


def _of(op, name):
    """The height's and the width's number of an attribute, 1 where there is none."""
    try:
        return tuple(op.get_attr(name))[1:3]
    except ValueError:
        return (1, 1)
