"""From a split to batches: stateless, in a seeded order, from any step on.

The order and the keys of an epoch are computed at its start, so a resumed run starts at its step
without reading what lies before it.
"""

import os

import tensorflow as tf

from kerasdl.columns import PIXELS
from kerasdl.data.images import to_float
from kerasdl.errors import UserError
from kerasdl.ops import noise

ORDER = 1 << 62  # sets the seed of the order apart from that of the examples' keys
LOW = 2**31 - 1
# Not tuned while it runs: what tunes, sleeps for up to a minute, and now and then TensorFlow 2.21
# fails to wake it when an iterator ends, which then waits for it.
PARALLEL = os.cpu_count() or 1  # examples or batches that are read at the same time
PREFETCHED = 4  # batches
# What is mapped has its conditions and loops as operations already: nothing of it is rewritten.
plain = tf.autograph.experimental.do_not_convert


def steps_per_epoch(split, batch_size: int) -> int:
    """Whole batches in a split; ValueError where there is none."""
    if batch_size > len(split):
        raise UserError(f"--batch-size {batch_size}: must be at most the {len(split)} examples")
    return len(split) // batch_size


def training_batches(
    split,
    columns,
    *,
    batch_size,
    seed,
    augment=None,
    start_step=0,
    stop_step,
    steps=None,
    shard=(0, 1),
):
    """Batches of the steps from `start_step` up to, without, `stop_step`.

    Args:
        split: A `Split`.
        columns: `{name: Column}` of it.
        batch_size: Examples per batch, `B`; what is left of an epoch is dropped.
        seed: Of order and augmentation.
        augment: An `Augment` or `Views`, or None.
        start_step: Of the first batch.
        stop_step: One after the last.
        steps: Batches per epoch; all whole ones if None.
        shard: `(i, n)`: the i-th of `n` equal parts of every batch; the rest of it is read only
            where examples are mixed or put together.

    Returns:
        A `tf.data.Dataset` of dicts: the split's columns (images and videos float32 in [0, 1],
        labels float32 `(B, K)` where mixed), those of views, and `index` int64 `(B,)`, `key` uint32
        `(B, 2)`, `weight` float32 `(B,)`, all 1.

    Raises:
        ValueError: The batch is larger than the split.
    """
    n, whole = len(split), steps_per_epoch(split, batch_size)
    steps = min(steps or whole, whole)
    mixes = augment is not None and augment.mixes
    couples = augment is not None and augment.couples
    if augment is not None:
        split, augment = augment.on_files(split)

    @plain
    def plan(epoch):
        # Random word above, number below: sorting gives a permutation, and no two are equal.
        number = tf.range(n, dtype=tf.int64)
        word = tf.cast(noise.keys(seed ^ ORDER, epoch, number)[:, 0], tf.int64)
        shuffled = tf.bitwise.bitwise_and(tf.sort(word * (LOW + 1) + number), LOW)
        first = tf.maximum(start_step - epoch * steps, 0)
        last = tf.minimum(stop_step - epoch * steps, steps)
        index = tf.reshape(shuffled[: steps * batch_size], (steps, batch_size))[first:last]
        index = index if couples else index[:, own]
        key = tf.reshape(noise.keys(seed, epoch, tf.reshape(index, [-1])), (-1, read, 2))
        return tf.data.Dataset.from_tensor_slices({"index": index, "key": key})

    def finish(batch):
        batch["weight"] = tf.ones((read,), tf.float32)
        if mixes:
            label, column = next((n, c) for n, c in columns.items() if c.kind == "label")
            batch[label] = tf.one_hot(batch[label], len(column.class_names), dtype=tf.float32)
        batch = augment(batch, columns) if augment is not None else batch
        return {name: value[own] for name, value in batch.items()} if couples else batch

    own = _part(batch_size, shard)
    read = batch_size if couples else own.stop - own.start
    epochs = tf.data.Dataset.range(start_step // steps, -(-stop_step // steps))
    batches = _read(split, columns, epochs.flat_map(plan), finish)
    return batches.apply(tf.data.experimental.assert_cardinality(max(stop_step - start_step, 0)))


def _part(batch_size, shard):
    """Which examples of a batch `shard` is, as a slice."""
    size = batch_size // shard[1]
    return slice(shard[0] * size, (shard[0] + 1) * size)


def evaluation_batches(split, columns, *, batch_size, views=None, limit_batches=None, shard=(0, 1)):
    """Every example once, in order; the last batch is filled up with examples of weight 0.

    Args:
        split: A `Split`.
        columns: `{name: Column}` of it.
        batch_size: Examples per batch, `B`.
        views: A task's `Views`, or None.
        limit_batches: Maximum number of batches, or None for all.
        shard: `(i, n)`: the i-th of `n` equal parts of every batch.

    Returns:
        A `tf.data.Dataset` of dicts with the keys of `training_batches`.
    """
    n = len(split)
    count = -(-n // batch_size)
    if limit_batches is not None:
        count = min(count, limit_batches)

    @plain
    def plan(batch):
        index = batch * batch_size + tf.range(own.start, own.stop, dtype=tf.int64)
        clipped = tf.minimum(index, n - 1)
        return {
            "index": clipped,
            "key": noise.keys(0, 0, clipped),
            "weight": tf.cast(index < n, tf.float32),
        }

    own = _part(batch_size, shard)
    plans = tf.data.Dataset.range(count).map(plan)

    def finish(batch):
        return batch if views is None else views(batch, columns)

    return _read(split, columns, plans, finish)


def _read(split, columns, plans, finish):
    """Read what `plans` names, with `finish` applied to every batch.

    Args:
        plans: A dataset of `{"index": (B,), "key": (B, 2), ...}`.
    """
    # Eager tensors are captured by reference: they are no constants of a graph.
    rows = {name: tf.constant(value) for name, value in split.columns().items()}

    @plain
    def read(batch):
        own = {name: tf.gather(value, batch["index"]) for name, value in rows.items()}
        batch = split.load({**batch, **own})
        for name, column in columns.items():
            if column.kind in PIXELS:
                batch[name] = to_float(batch[name])
        return finish(batch)

    batches = plans.map(read, num_parallel_calls=PARALLEL, deterministic=True)
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)
