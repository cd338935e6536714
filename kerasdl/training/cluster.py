"""Several processes that train as one: which they are, and how they meet and part.

The end is a barrier of the coordination service that `MultiWorkerMirroredStrategy` starts; it is
not public, but the version pinned in `setup.py` has it.
"""

import contextlib
import json
import os
import shutil
import socket
import time

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from kerasdl.errors import UserError

START_SECONDS = 300  # that workers wait for each other, where KERASDL_START_TIMEOUT does not say
FINISH_SECONDS = 24 * 3600  # that they wait for the chief to evaluate and to export
SILENT_SECONDS = 20  # after which a worker counts as dead


def find():
    """The cluster that the environment tells of, or None where this process stands alone.

    TF_CONFIG, else SLURM's variables, else those of a Kubernetes job; TensorFlow's own resolvers
    read them.

    Raises:
        ValueError: TF_CONFIG cannot be read, or a resolver fails.
    """
    if text := os.environ.get("TF_CONFIG"):
        try:
            if not json.loads(text).get("cluster"):
                return None
            return _of(tf.distribute.cluster_resolver.TFConfigClusterResolver())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"TF_CONFIG: names no worker of its cluster: {error}") from error
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        return _of(_slurm())
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_NAME" in os.environ:
        return _of(_kubernetes())
    return None


def is_chief(cluster) -> bool:
    """Whether this process writes: it trains alone, or is the first of its cluster."""
    return not cluster or cluster.index == 0


def _of(resolver):
    """The cluster that a resolver knows, the chief first; None where this task is the only one."""
    spec = resolver.cluster_spec().as_dict()
    tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(spec.get(kind, ())))]
    index = tasks.index((resolver.task_type, resolver.task_id))
    addresses = [spec[kind][i] for kind, i in tasks]
    return Cluster(resolver, addresses, index) if len(tasks) > 1 else None


def _slurm():
    try:
        known = shutil.which("nvidia-smi") or "CUDA_VISIBLE_DEVICES" in os.environ
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=None if known else 0  # without the program it fails
        )
        resolver.cluster_spec()  # sets its task
        return resolver
    except Exception as error:  # it runs programs of SLURM
        raise UserError(f"SLURM: {type(error).__name__}: {error}") from error


def _kubernetes():
    """Pods of the job JOB_NAME; this one is that with the address POD_IP."""
    name, address = os.environ["JOB_NAME"], os.environ.get("POD_IP")
    try:
        resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
            {"worker": [f"job-name={name}"]}
        )
        workers = resolver.cluster_spec().as_dict()["worker"]
    except Exception as error:  # it needs a package, and asks a server
        raise UserError(f"Kubernetes: {type(error).__name__}: {error}") from error
    hosts = [worker.rpartition(":")[0] for worker in workers]
    if address not in hosts:
        raise UserError(f"POD_IP {address}: is none of the pods of JOB_NAME {name}")
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

    @property
    def size(self) -> int:
        return len(self.addresses)

    def rendezvous(self, metadata: dict) -> None:
        """Wait until all workers are there, and see that they agree.

        The chief listens where TensorFlow will; the others tell it what they know.

        Args:
            metadata: `{name: JSON value}`, the same on all.

        Raises:
            ValueError: A port is in use, a worker does not come in time, or facts differ.
        """
        limit = float(os.environ.get("KERASDL_START_TIMEOUT") or START_SECONDS)
        with contextlib.closing(self._own_port()) as server:
            if self.index:
                answer = self._ask(metadata, limit)
            else:
                answer = self._gather(server, metadata, limit)
        if answer:
            raise UserError(answer)

    def _own_port(self):
        """A server at this worker's address; all its interfaces where it has a name."""
        address = self.addresses[self.index]
        host, _, port = address.rpartition(":")
        try:
            return socket.create_server((host if host == "127.0.0.1" else "", int(port)))
        except (OSError, ValueError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"worker {self.index} at {address}: {why}") from error

    def _gather(self, server, metadata, limit):
        """The chief's side: what is wrong, or an empty text."""
        end, came = time.monotonic() + limit, {}
        with contextlib.ExitStack() as stack:
            while len(came) < self.size - 1:
                server.settimeout(max(end - time.monotonic(), 0.001))
                try:
                    peer = stack.enter_context(server.accept()[0])
                    peer.settimeout(5)
                    index, theirs = _read(peer)
                    came[index] = peer, theirs
                except TimeoutError:
                    if time.monotonic() > end:
                        break
                except (OSError, ValueError):
                    continue  # nobody of ours
            answer = self._missing(came, limit) or _differences(metadata, came)
            for peer, _ in came.values():
                with contextlib.suppress(OSError):
                    _write(peer, answer)
        return answer

    def _missing(self, came, limit):
        late = [f"{i} ({self.addresses[i]})" for i in range(1, self.size) if i not in came]
        return f"worker {', '.join(late)} did not come within {limit:g} s" if late else ""

    def _ask(self, metadata, limit):
        """The others' side: what the chief says is wrong, or an empty text."""
        host, _, port = self.addresses[0].rpartition(":")
        end, why = time.monotonic() + limit, ""
        while time.monotonic() < end:
            left = end - time.monotonic()
            try:
                with socket.create_connection((host, int(port)), timeout=min(left, 5)) as chief:
                    _write(chief, (self.index, metadata))
                    chief.settimeout(limit + 5)
                    return _read(chief)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                time.sleep(0.1)
        return f"worker 0 ({self.addresses[0]}) did not answer within {limit:g} s: {why}"

    def start(self):
        """A `MultiWorkerMirroredStrategy` of the workers that have met."""
        jobs = self.resolver.cluster_spec()
        leader = "chief" if "chief" in jobs.jobs else "worker"
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader=f"/job:{leader}/replica:0/task:0",
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
        return tf.distribute.MultiWorkerMirroredStrategy(self.resolver, options)

    def barrier(self) -> None:
        """Wait until all workers are here: the chief comes once it has evaluated and exported."""
        context.context().wait_at_barrier("kerasdl/finished", 1000 * FINISH_SECONDS)


def _differences(metadata, came):
    """What of the chief's facts another worker knows otherwise."""
    for index, (_, theirs) in sorted(came.items()):
        wrong = [k for k in metadata if metadata[k] != theirs.get(k)]
        if wrong:
            what = "; ".join(f"{k} is {metadata[k]} and {theirs.get(k)}" for k in wrong)
            return f"workers 0 and {index} differ: {what}"
    return ""


def _write(peer, value):
    peer.sendall(json.dumps(value).encode() + b"\n")


def _read(peer):
    with peer.makefile("rb") as lines:
        return json.loads(lines.readline())
