"""Random numbers as pure functions of a key, a stream and a position: Threefry-2x32.

An example's key comes from (seed, epoch, index), so its random numbers depend neither on its
place in the batch, nor on the number of replicas, nor on earlier ones.

Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (table 2; 13 rounds pass
        BigCrush); Box and Muller 1958.
"""

import math

import keras
import numpy as np
from keras import ops

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
LANES = 16  # floats in the widest vector register


def threefry(key, counter, rounds=13):
    """Threefry-2x32: a bijection of `counter`, another one for every `key`.

    Args:
        key: uint32 `(..., 2)`.
        counter: uint32 `(..., 2)`, broadcast against `key`.
        rounds: 20 in Random123's default, at least 13 for good statistics.

    Returns:
        uint32 `(..., 2)`.
    """
    x0, x1 = _block(key[..., 0], key[..., 1], counter[..., 0], counter[..., 1], rounds)
    return ops.stack([x0, x1], axis=-1)


def _block(k0, k1, x0, x1, rounds=13):
    """Threefry on separate 32-bit halves, which broadcast."""
    schedule = (k0, k1, ops.bitwise_xor(ops.bitwise_xor(k0, k1), _u32(PARITY)))
    x0, x1 = x0 + k0, x1 + k1
    for i in range(rounds):
        x0 = x0 + x1
        r = ROTATIONS[i % 8]
        x1 = ops.bitwise_or(ops.left_shift(x1, _u32(r)), ops.right_shift(x1, _u32(32 - r)))
        x1 = ops.bitwise_xor(x1, x0)
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = x0 + schedule[j % 3]
            x1 = x1 + (schedule[(j + 1) % 3] + _u32(j))
    return x0, x1


def _u32(value):
    if isinstance(value, int):
        return ops.convert_to_tensor(np.uint32(value & 0xFFFFFFFF))
    return ops.cast(value, "uint32")


def keys(seed, epoch, index):
    """One key per example.

    Args:
        seed: int of at most 64 bits.
        epoch: int, or an integer tensor that broadcasts against `index`.
        index: integer `(B,)`, below 2^32: the example's number in its data set.

    Returns:
        uint32 `(B, 2)`.
    """
    x0, x1 = _block(_u32(seed), _u32(epoch), _u32(index), _u32(seed >> 32))
    return ops.stack([x0, x1], axis=-1)


def sample_keys(seed, num):
    """The keys of samples, as `keys` are those of examples.

    Args:
        seed: integer `(2,)`.
        num: int, or int scalar tensor.

    Returns:
        uint32 `(num, 2)`; the first of more keys are the same.
    """
    seed = _u32(ops.convert_to_tensor(seed))
    number = ops.cast(ops.arange(num, dtype="int32"), "uint32")
    x0, x1 = _block(seed[0], seed[1], number, ops.zeros_like(number))
    return ops.stack([x0, x1], axis=-1)


def bits(key, count, stream=0):
    """`count` random 32-bit numbers per example.

    Args:
        key: uint32 `(B, 2)`.
        count: An int.
        stream: int or integer scalar; other streams of a key are independent. Those from 2^16 on
            belong to `kerasdl.data`.

    Returns:
        uint32 `(B, count)`.
    """
    half = (count + 1) // 2
    counter = ops.cast(ops.arange(half, dtype="int32"), "uint32")
    words = _block(key[:, :1], key[:, 1:], counter, _u32(stream))
    return ops.concatenate(words, axis=-1)[:, :count]


def uniform(key, shape, stream=0, dtype=None):
    """Uniform numbers in [0, 1).

    Args:
        key: uint32 `(B, 2)`.
        shape: Static shape of one example's numbers.
        stream: See `bits`.
        dtype: A float type; `keras.config.floatx()` by default. float64 has the resolution 2^-32.

    Returns:
        `(B, *shape)`.
    """
    dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    words = bits(key, math.prod(shape), stream)
    return ops.reshape(_to_unit(words, dtype), (-1, *shape))


def _to_unit(words, dtype):
    """The highest bits of uint32 numbers as floats in [0, 1), none of which rounds to 1."""
    keep = {"float64": 32, "float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    wide = "float64" if dtype == "float64" else "float32"
    words = ops.right_shift(words, _u32(32 - keep)) if keep < 32 else words
    return ops.cast(ops.cast(words, wide) * 2.0**-keep, dtype)


def normal(key, shape, stream=0, dtype=None):
    """Standard normal numbers, all finite.

    Args:
        key: uint32 `(B, 2)`.
        shape: Static shape of one example's numbers.
        stream: See `bits`.
        dtype: A float type; `keras.config.floatx()` by default.

    Returns:
        `(B, *shape)`.
    """
    dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    wide = "float64" if dtype == "float64" else "float32"
    count = math.prod(shape)
    # Logarithm and cosine differ in the last bit between the vectorized part of an array and the
    # rest at its end. Whole vectors per example keep an example's numbers the same in any batch.
    half = -(-count // (2 * LANES)) * LANES
    words = bits(key, 2 * half, stream)
    u = _to_unit(words, wide)
    radius = ops.sqrt(-2.0 * ops.log(1.0 - u[:, :half]))  # 1 - u is in (0, 1]
    angle = (2.0 * math.pi) * u[:, half:]
    z = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=-1)
    return ops.cast(ops.reshape(z[:, :count], (-1, *shape)), dtype)


def standardized(key, shape, distribution, stream=0):
    """Random numbers of mean 0 and variance 1.

    Args:
        key: uint32 `(B, 2)`.
        shape: Static shape of one example's numbers.
        distribution: "normal" or "uniform".
        stream: See `bits`.

    Returns:
        `(B, *shape)`.

    Raises:
        ValueError: Another distribution.
    """
    if distribution == "normal":
        return normal(key, shape, stream)
    if distribution != "uniform":
        raise ValueError(f"distribution {distribution!r}: not one of normal, uniform")
    return math.sqrt(3.0) * (2.0 * uniform(key, shape, stream) - 1.0)


def randint(key, shape, low, high, stream=0):
    """Integers in [low, high), equally likely up to `(high - low) / 2^32`.

    Args:
        key: uint32 `(B, 2)`.
        shape: Static shape of one example's numbers.
        low: The smallest.
        high: One more than the largest.
        stream: See `bits`.

    Returns:
        int32 `(B, *shape)`.
    """
    words = bits(key, math.prod(shape), stream)
    sampled = ops.cast(ops.mod(words, _u32(high - low)), "int32") + low
    return ops.reshape(sampled, (-1, *shape))
