"""Where it is computed: one device, several that hold the same weights, or several machines."""

import glob
import os

import tensorflow as tf

from kerasdl.errors import UserError
from kerasdl.system.names import nearest_multiples
from kerasdl.training import cluster as clusters


def make(recipe, say=print, metadata=None):
    """The `tf.distribute` strategy that the settings ask for; before TensorFlow is first used.

    Args:
        recipe: `strategy`, `devices`, `logical_devices` and `tpu` of it are looked at.
        say: Told what `auto` picked.
        metadata: `{name: JSON value}` that all workers of a cluster must share.

    Returns:
        `(strategy, cluster)`; the `cluster.Cluster` is None where one process trains.

    Raises:
        ValueError: The machine has not what is requested.
    """
    name, cluster = recipe.strategy, None
    if name in ("auto", "multi_worker_mirrored"):
        cluster = clusters.find()  # first, as SLURM's tells which GPUs are this process's
    gpus = tf.config.list_physical_devices("GPU")
    if recipe.logical_devices and not gpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * recipe.logical_devices
        tf.config.set_logical_device_configuration(cpu, parts)
    kind = "GPU" if gpus else "CPU"
    there = len(gpus) or recipe.logical_devices or 1
    count = recipe.devices or there
    if count > there:
        more = "" if gpus else "; --logical-devices splits the CPU for trying out"
        raise UserError(f"--devices {count}: this machine has {there} {kind}(s){more}")
    if gpus:
        tf.config.set_visible_devices(gpus[:count], "GPU")
    if name == "auto":
        name = _pick(cluster, recipe.tpu, count)
        where = f"{cluster.size} workers" if cluster else f"{count} {kind}(s)"
        if clusters.is_chief(cluster):
            say(f"strategy auto: {name}{'' if name == 'tpu' else f' on {where}'}")
    if name == "tpu":
        return _tpu(recipe.tpu), None
    if name == "multi_worker_mirrored":
        if cluster is None:
            raise UserError(
                "--strategy multi_worker_mirrored: neither TF_CONFIG nor SLURM nor Kubernetes "
                "names more than one worker; `launch` starts them"
            )
        cluster.rendezvous(metadata or {})
        return cluster.start(), cluster
    if name == "one_device":
        return tf.distribute.get_strategy(), None
    devices = [d.name for d in tf.config.list_logical_devices(kind)[:count]]
    # The default collectives break many steps per call on CPUs, and a second strategy.
    reduce = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduce), None


def _pick(cluster, tpu, count):
    if cluster:
        return "multi_worker_mirrored"
    if tpu or os.environ.get("TPU_NAME") or glob.glob("/dev/accel*"):
        return "tpu"
    return "mirrored" if count > 1 else "one_device"


def _tpu(name):
    name = name or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # of many kinds, some of a network
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--tpu {name}: cannot be used: {line}") from error


def check_jit(recipe, strategy, cluster, coupled=False) -> None:
    """Refuse `--jit` where XLA programs cannot be.

    Args:
        recipe: The settings.
        strategy: The `tf.distribute` strategy.
        cluster: Its `cluster.Cluster`, or None.
        coupled: Whether the task's loss couples the examples of a batch.

    Raises:
        ValueError: Says why not.
    """
    if not recipe.jit or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    workers = cluster.size if cluster else 1
    if strategy.num_replicas_in_sync > workers:
        raise UserError(
            f"--jit: {strategy.num_replicas_in_sync // workers} replicas of one process cannot be "
            "compiled; `launch` starts a process for each"
        )
    if recipe.sync_batch_norm and workers > 1:
        raise UserError("--jit: the statistics of --sync-batch-norm leave the compiled part")
    if coupled and workers > 1:
        raise UserError("--jit: the loss of this task gathers the examples of all workers")


def check_batch(batch_size: int, replicas: int, micro: int, updates: int = 1) -> None:
    """Refuse a global batch that replicas, micro-batches and updates cannot share evenly."""
    part = replicas * micro * updates
    if batch_size % part:
        near = " or ".join(nearest_multiples(batch_size, part))
        raise UserError(
            f"--batch-size {batch_size}: {replicas} replica(s) x {micro} micro-batch(es) "
            f"{f'x {updates} updates ' if updates > 1 else ''}cannot share it evenly; "
            f"the nearest that work: {near}"
        )
