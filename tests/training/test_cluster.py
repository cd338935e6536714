"""Which cluster the environment tells of, and how workers meet, without TensorFlow's own start."""

import json
import socket
import threading

import pytest

from kerasdl.launch.hosts import free_ports
from kerasdl.recipe import Recipe
from kerasdl.training import cluster, strategy

SLURM = {
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "CUDA_VISIBLE_DEVICES": "0",
}


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    for name in (*SLURM, "TF_CONFIG", "KUBERNETES_SERVICE_HOST", "JOB_NAME", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


def tf_config(index, **tasks):
    return json.dumps({"cluster": tasks, "task": {"type": "worker", "index": index}})


def test_a_process_alone(monkeypatch):
    assert cluster.find() is None
    monkeypatch.setenv("TF_CONFIG", tf_config(0, worker=["a:1"]))
    assert cluster.find() is None
    for text in ("{}", '{"cluster": {}}', '{"task": {"type": "worker", "index": 0}}'):
        monkeypatch.setenv("TF_CONFIG", text)
        assert cluster.find() is None
    with pytest.raises(ValueError, match="neither TF_CONFIG nor SLURM nor Kubernetes"):
        strategy.make(Recipe(strategy="multi_worker_mirrored"))


def test_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(1, worker=["a:1", "b:2"]))
    result = cluster.find()
    assert (result.addresses, result.index, result.size) == (["a:1", "b:2"], 1, 2)
    monkeypatch.setenv("TF_CONFIG", tf_config(1, chief=["c:3"], worker=["a:1", "b:2"]))
    result = cluster.find()
    assert (result.addresses, result.index) == (["c:3", "a:1", "b:2"], 2)


@pytest.mark.parametrize("text", ["{", "3", "[]", tf_config(5, worker=["a:1", "b:2"])])
def test_a_tf_config_that_means_nothing(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG: names no worker"):
        cluster.find()


def test_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    result = cluster.find()
    assert (result.addresses, result.index) == (["n1:8888", "n2:8888", "n3:8888"], 1)
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(ValueError, match="SLURM: .*SLURM_STEP_NODELIST"):
        cluster.find()


def test_kubernetes_without_its_package_or_server(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("JOB_NAME", "train")
    with pytest.raises(ValueError, match="Kubernetes: "):
        cluster.find()


# -- meeting ------------------------------------------------------------------------------------


def meet(metadata, monkeypatch, seconds="20", ports=None):
    """What each of several workers is told, `""` for well met."""
    ports = ports or free_ports(len(metadata))
    monkeypatch.setenv("KERASDL_START_TIMEOUT", seconds)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    result = {}

    def one(index):
        try:
            cluster.Cluster(None, addresses, index).rendezvous(metadata[index])
            result[index] = ""
        except ValueError as error:
            result[index] = str(error)

    present = [i for i, known in enumerate(metadata) if known is not None]
    threads = [threading.Thread(target=one, args=(i,)) for i in reversed(present)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [result.get(i) for i in range(len(metadata))]


def test_workers_that_agree_meet(monkeypatch):
    assert meet([{"--lr": 0.1}] * 3, monkeypatch) == ["", "", ""]


def test_all_are_told_what_differs(monkeypatch):
    metadata = [{"--lr": 0.1, "--seed": 1}, {"--lr": 0.1, "--seed": 1}, {"--lr": 0.2, "--seed": 1}]
    assert meet(metadata, monkeypatch) == ["workers 0 and 2 differ: --lr is 0.1 and 0.2"] * 3


def test_all_are_told_who_is_missing(monkeypatch):
    ports = free_ports(3)
    line = f"worker 2 (127.0.0.1:{ports[2]}) did not come within 1 s"
    assert meet([{}, {}, None], monkeypatch, "1", ports) == [line, line, None]
    line = f"worker 0 (127.0.0.1:{ports[0]}) did not answer within 1 s: Connection refused"
    assert meet([None, {}, {}], monkeypatch, "1", ports) == [None, line, line]


def test_a_port_in_use_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = meet([{}, None], monkeypatch, "1", [port, port + 1])
    assert result[0].startswith(f"worker 0 at 127.0.0.1:{port}: Address already in use")


# -- what auto picks ----------------------------------------------------------------------------


def test_auto_says_what_it_picked(monkeypatch):
    output = []
    made, result = strategy.make(Recipe(), output.append)
    assert result is None and made.num_replicas_in_sync == 1
    assert output == ["strategy auto: one_device on 1 CPU(s)"]
    assert strategy._pick(None, None, 4) == "mirrored"
    assert strategy._pick(None, "local", 1) == "tpu"
    assert strategy._pick(object(), None, 1) == "multi_worker_mirrored"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"devices": 3}, "--devices 3: this machine has 1 CPU"),
        ({"strategy": "tpu", "tpu": "nope"}, "--tpu nope: cannot be used: "),
    ],
)
def test_devices_that_are_not_there(settings, line):
    with pytest.raises(ValueError, match=line):
        strategy.make(Recipe(**settings))


def test_jit_is_refused_with_the_reason():
    class Two:
        num_replicas_in_sync = 2

    class Workers:
        size = 2

    strategy.check_jit(Recipe(jit=True), Two, Workers)
    with pytest.raises(ValueError, match="--jit: 2 replicas of one process"):
        strategy.check_jit(Recipe(jit=True), Two, None)
    with pytest.raises(ValueError, match="--jit: the statistics of --sync-batch-norm"):
        strategy.check_jit(Recipe(jit=True, sync_batch_norm=True), Two, Workers)
