"""Random numbers of a key: known answers, moments, independence, and independence of the batch."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdl.ops import noise

MASK = 0xFFFFFFFF


def plain_threefry(key, counter, rounds):
    """Threefry-2x32 as Random123's header writes it, in Python integers."""
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    schedule = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x = [(counter[0] + key[0]) & MASK, (counter[1] + key[1]) & MASK]
    for i in range(rounds):
        x[0] = (x[0] + x[1]) & MASK
        r = rotations[i % 8]
        x[1] = ((x[1] << r) & MASK | x[1] >> (32 - r)) ^ x[0]
        if i % 4 == 3:
            j = (i + 1) // 4
            x[0] = (x[0] + schedule[j % 3]) & MASK
            x[1] = (x[1] + schedule[(j + 1) % 3] + j) & MASK
    return x


def run(key, counter, rounds):
    words = noise.threefry(
        ops.convert_to_tensor(np.array(key, "uint32")),
        ops.convert_to_tensor(np.array(counter, "uint32")),
        rounds,
    )
    return ops.convert_to_numpy(words).tolist()


def sampling_modes(n=4000, seed=0, epoch=0):
    return noise.keys(seed, epoch, ops.arange(n, dtype="int64"))


@pytest.mark.parametrize(
    "rounds,expected", [(13, [0x9D1C5EC6, 0x8BD50731]), (20, [0x6B200159, 0x99BA4EFE])]
)
def test_threefry_gives_random123_known_answers(rounds, expected):
    assert run([0, 0], [0, 0], rounds) == expected


@pytest.mark.parametrize("rounds", [13, 20])
def test_threefry_agrees_with_plain_python(rounds):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**32, (20, 2))
    counters = rng.integers(0, 2**32, (20, 2))
    keys[0] = counters[0] = MASK
    expected = [
        plain_threefry(k, c, rounds) for k, c in zip(keys.tolist(), counters.tolist(), strict=True)
    ]
    assert run(keys, counters, rounds) == expected


def test_keys_are_of_seed_epoch_and_index():
    key = ops.convert_to_numpy(noise.keys(5 + (7 << 32), 3, ops.convert_to_tensor([11])))
    assert key[0].tolist() == plain_threefry((5, 3), (11, 7), 13)
    many = [ops.convert_to_numpy(sampling_modes(50, s, e)) for s in (0, 1, 2**32) for e in (0, 1)]
    assert len({tuple(row) for rows in many for row in rows.tolist()}) == 300


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_uniform_is_flat_in_zero_to_one(dtype):
    u = noise.uniform(sampling_modes(), (5,), dtype=dtype)
    assert keras.backend.standardize_dtype(u.dtype) == dtype
    u = ops.convert_to_numpy(ops.cast(u, "float64"))
    assert u.min() >= 0 and u.max() < 1
    counts = np.histogram(u, 16, (0, 1))[0]
    assert ((counts - u.size / 16) ** 2 / (u.size / 16)).sum() < 44  # chi2(15), p = 1e-4
    assert ops.convert_to_numpy(noise.uniform(sampling_modes(3), (2, 3))).shape == (3, 2, 3)


def test_uniform_never_rounds_up_to_one():
    top = ops.convert_to_tensor(np.array([[MASK]], "uint32"))
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        assert float(ops.cast(noise._to_unit(top, dtype), "float64")[0, 0]) < 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_normal_has_the_moments_of_the_normal_law(dtype):
    z = ops.convert_to_numpy(noise.normal(sampling_modes(), (3, 5), dtype=dtype))
    assert z.dtype == dtype and z.shape == (4000, 3, 5) and np.isfinite(z).all()
    deviation = 1 / np.sqrt(z.size)
    assert abs(z.mean()) < 4 * deviation
    assert abs(z.std() - 1) < 4 * deviation
    assert abs((z**3).mean()) < 4 * np.sqrt(15) * deviation
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96) * deviation
    assert 3.5 < abs(z).max() < 7


def test_float64_and_float32_draw_the_same_numbers():
    for sample in (noise.uniform, noise.normal):
        a, b = (
            ops.convert_to_numpy(sample(sampling_modes(50), (7,), dtype=d))
            for d in ("float64", "float32")
        )
        np.testing.assert_allclose(a, b, atol=3e-4 if sample is noise.normal else 1e-7)


def test_examples_positions_streams_and_epochs_are_uncorrelated():
    key = sampling_modes()
    z = ops.convert_to_numpy(noise.normal(key, (64,), dtype="float64"))
    others = {
        "next example": (z[:-1], z[1:]),
        "next position": (z[:, :-1], z[:, 1:]),
        "half of Box-Muller": (z[:, :32], z[:, 32:]),
        "stream": (z, ops.convert_to_numpy(noise.normal(key, (64,), 1, dtype="float64"))),
        "epoch": (
            z,
            ops.convert_to_numpy(noise.normal(sampling_modes(epoch=1), (64,), dtype="float64")),
        ),
        "seed": (
            z,
            ops.convert_to_numpy(noise.normal(sampling_modes(seed=1), (64,), dtype="float64")),
        ),
    }
    for name, (a, b) in others.items():
        for f in (np.asarray, np.square):
            r = np.corrcoef(f(a).ravel(), f(b).ravel())[0, 1]
            assert abs(r) < 4.5 / np.sqrt(a.size), name


@pytest.mark.parametrize("count", [1, 3, 17, 192])
def test_draws_depend_on_the_key_alone_not_on_the_batch(count):
    key = sampling_modes(13)
    for sample in (noise.uniform, noise.normal):
        for dtype in ("float32", "float64"):
            whole = ops.convert_to_numpy(sample(key, (count,), dtype=dtype))
            for rows in ([12], [3, 1, 2], list(range(5, 12))):
                part = ops.convert_to_numpy(
                    sample(ops.take(key, rows, axis=0), (count,), dtype=dtype)
                )
                np.testing.assert_array_equal(whole[rows], part)


def test_randint_is_flat_and_within_bounds():
    k = ops.convert_to_numpy(noise.randint(sampling_modes(), (4,), -3, 4))
    assert k.dtype == np.int32 and k.min() == -3 and k.max() == 3
    counts = np.bincount((k + 3).ravel())
    assert ((counts - k.size / 7) ** 2 / (k.size / 7)).sum() < 28  # chi2(6), p = 1e-4
