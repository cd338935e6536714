"""Where it is computed: one device, or several that hold the same weights."""

import tensorflow as tf


def make(name: str, logical_devices: int | None = None):
    """The `tf.distribute` strategy of a name.

    Args:
        name: "one_device" or "mirrored".
        logical_devices: Split the CPU into so many devices; before TensorFlow is first used.
    """
    if logical_devices and not tf.config.list_physical_devices("GPU"):
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * logical_devices
        tf.config.set_logical_device_configuration(cpu, parts)
    if name == "one_device":
        return tf.distribute.get_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([d.name for d in gpus])
    cpus = [d.name for d in tf.config.list_logical_devices("CPU")]
    # The default collectives break many steps per call on CPUs, and a second strategy.
    reduce = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(cpus, cross_device_ops=reduce)


def check_batch(batch_size: int, replicas: int, micro: int, updates: int = 1) -> None:
    """Refuse a global batch that replicas, micro-batches and updates cannot share evenly."""
    part = replicas * micro * updates
    if batch_size % part:
        low = batch_size // part * part
        near = f"{low} or {low + part}" if low else f"{part}"
        raise ValueError(
            f"--batch-size {batch_size}: {replicas} replica(s) x {micro} micro-batch(es) "
            f"{f'x {updates} updates ' if updates > 1 else ''}cannot share it evenly; "
            f"the nearest that work: {near}"
        )
