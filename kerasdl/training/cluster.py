"""Several processes that train as one: which they are, and what they tell each other.

Texts and barriers go through the coordination service that `MultiWorkerMirroredStrategy` starts; it
is not public, but what is pinned in `setup.py` has it.
"""

import contextlib
import json
import os
import socket

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

START_SECONDS = 300  # that workers wait for each other, where KERASDL_START_TIMEOUT does not say
FINISH_SECONDS = 24 * 3600  # that they wait for the chief to judge and to export
SILENT_SECONDS = 20  # after which a worker counts as dead


def find():
    """The cluster that the environment tells of, or None where this process stands alone.

    TF_CONFIG, else SLURM's variables, else those of a Kubernetes job; TensorFlow's own resolvers
    read them.

    Raises:
        ValueError: TF_CONFIG cannot be read, or a resolver fails.
    """
    if os.environ.get("TF_CONFIG"):
        try:
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            spec, kind = resolver.cluster_spec().as_dict(), resolver.task_type
            addresses = _addresses(spec)
            where = list(addresses).index((kind, resolver.task_id))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"TF_CONFIG: names no worker of its cluster: {error}") from error
    elif int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        resolver = _slurm()
        addresses = _addresses(resolver.cluster_spec().as_dict())
        where = list(addresses).index((resolver.task_type, resolver.task_id))
    elif "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_NAME" in os.environ:
        resolver = _kubernetes()
        addresses = _addresses(resolver.cluster_spec().as_dict())
        where = resolver.task_id
    else:
        return None
    return Cluster(resolver, list(addresses.values()), where) if len(addresses) > 1 else None


def _addresses(spec):
    """`{(type, number): address}` of the tasks that train, the chief first."""
    return {(kind, i): a for kind in ("chief", "worker") for i, a in enumerate(spec.get(kind, ()))}


def _slurm():
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
        resolver.cluster_spec()  # sets its task
        return resolver
    except Exception as error:  # it runs programs of SLURM
        raise ValueError(f"SLURM: {type(error).__name__}: {error}") from error


def _kubernetes():
    """Pods of the job JOB_NAME; this one is that with the address POD_IP."""
    name, address = os.environ["JOB_NAME"], os.environ.get("POD_IP")
    try:
        resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
            {"worker": [f"job-name={name}"]}
        )
        workers = resolver.cluster_spec().as_dict()["worker"]
    except Exception as error:  # it needs a package, and asks a server
        raise ValueError(f"Kubernetes: {type(error).__name__}: {error}") from error
    hosts = [worker.rpartition(":")[0] for worker in workers]
    if address not in hosts:
        raise ValueError(f"POD_IP {address}: is none of the pods of JOB_NAME {name}")
    resolver.task_type, resolver.task_id = "worker", hosts.index(address)
    return resolver


class Cluster:
    """Workers and their places.

    Args:
        resolver: A TensorFlow cluster resolver.
        addresses: `host:port` of every worker, the chief's first.
        index: Which this one is.
    """

    def __init__(self, resolver, addresses, index):
        self.resolver = resolver
        self.addresses = addresses
        self.index = index
        self._agreed = 0  # times

    @property
    def size(self) -> int:
        return len(self.addresses)

    def start(self):
        """A `MultiWorkerMirroredStrategy`, once all workers are there.

        Raises:
            ValueError: A host is unknown, the port is in use, or a worker did not come.
        """
        self._check_addresses()
        seconds = float(os.environ.get("KERASDL_START_TIMEOUT") or START_SECONDS)
        jobs = self.resolver.cluster_spec()
        leader = "chief" if "chief" in jobs.jobs else "worker"
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader=f"/job:{leader}/replica:0/task:0",
            cluster_register_timeout_in_ms=int(1000 * seconds),
            heartbeat_timeout_in_ms=1000 * SILENT_SECONDS,
            coordinated_jobs=[
                coordination_config_pb2.CoordinatedJob(name=job, num_tasks=jobs.num_tasks(job))
                for job in ("chief", "worker")
                if job in jobs.jobs
            ],
        )
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        kinds = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=kinds.AUTO if on_gpu else kinds.RING
        )
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(self.resolver, options)
        except tf.errors.OpError as error:
            line = str(error).strip().splitlines()[0]
            raise ValueError(
                f"worker {self.index}: not all of {', '.join(self.addresses)} came within "
                f"{seconds:g} s: {line}"
            ) from error

    def _check_addresses(self):
        for i, address in enumerate(self.addresses):
            host, _, port = address.rpartition(":")
            try:
                found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except (OSError, ValueError) as error:
                raise ValueError(f"worker {i} at {address}: {error}") from error
            if i != self.index:
                continue
            family, kind, protocol, _, where = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(where)
                except OSError as error:
                    raise ValueError(f"worker {i} at {address}: {error.strerror}") from error

    def agree(self, facts: dict, hint: str = "") -> None:
        """Tell the others some facts, and see that theirs are the same.

        Args:
            facts: `{name: JSON value}`.
            hint: What to do where they are not.

        Raises:
            ValueError: Names those that differ.
        """
        self._agreed += 1
        names = [f"kerasdl/{self._agreed}/{i}" for i in range(self.size)]
        context.context().set_config_key_value(names[self.index], json.dumps(facts))
        for i, name in enumerate(names):
            # Every worker looks at the chief's, and the chief at all.
            if i == self.index or (i and self.index):
                continue
            theirs = json.loads(context.context().get_config_key_value(name))
            wrong = [k for k in facts if facts[k] != theirs.get(k)]
            if wrong:
                low, high = sorted([(self.index, facts), (i, theirs)], key=lambda p: p[0])
                what = "; ".join(f"{k} is {low[1].get(k)} and {high[1].get(k)}" for k in wrong)
                hint = f"; {hint}" if hint else ""
                raise ValueError(f"workers {low[0]} and {high[0]} differ: {what}{hint}")

    @contextlib.contextmanager
    def finish(self):
        """What the chief does alone in the end; the others wait for it at the end of the block."""
        yield
        context.context().wait_at_barrier("kerasdl/finished", 1000 * FINISH_SECONDS)
