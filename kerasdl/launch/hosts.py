"""Where workers run: hosts, ports, TF_CONFIG, and the command that starts one there."""

import contextlib
import json
import os
import random
import shlex
import socket
import threading
from collections import Counter
from dataclasses import dataclass

from kerasdl.errors import UsageError
from kerasdl.launch import guard
from kerasdl.system import processes

LOOPBACK = "127.0.0.1"
RESOLVE_SECONDS = 5
PORTS = (10_000, 32_000)
# No questions, and an end in seconds where a host does not answer, or no longer does.
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"


@dataclass(frozen=True)
class Host:
    """A machine and the port of its worker.

    Attributes:
        name: What ssh is told: an address, or user@address.
        port: Where the worker listens.
    """

    name: str
    port: int

    @property
    def address(self) -> str:
        """What the other workers connect to."""
        return f"{self.name.rpartition('@')[2]}:{self.port}"


@dataclass(frozen=True)
class Start:
    """How a worker is started.

    Attributes:
        rank: Its number.
        command: The words, a guard's first.
        environment: All of it.
        addresses: Of all workers.
        host: The machine that it is started on through ssh; None is this one.
    """

    rank: int
    command: list[str]
    environment: dict
    addresses: list[str]
    host: str | None = None


def parse(text: str, port: int) -> list[Host]:
    """The hosts of `a,b:2223,user@c`; those that share a machine get one port after the other.

    Raises:
        UsageError: One is empty, has a wrong port or stands there twice.
    """
    result, used = [], Counter()
    for word in text.split(","):
        name, colon, own = word.strip().partition(":")
        if not name.rpartition("@")[2] or name.startswith("-") or any(c.isspace() for c in name):
            raise UsageError(f"--hosts {text}: {word.strip()!r} is no host; write a,b or a:2222,b")
        if colon and not own.isdecimal():
            raise UsageError(f"--hosts {text}: {own!r} is no port")
        number = int(own) if colon else port + used[name]
        used[name] += not colon
        check_range(number)
        result.append(Host(name, number))
    for address, times in Counter(h.address for h in result).items():
        if times > 1:
            raise UsageError(f"--hosts {text}: {address} stands there {times} times")
    return result


def check_range(port: int) -> None:
    """Refuse what is no port's number."""
    if not 1 <= port <= 65535:
        raise UsageError(f"port {port}: must be at least 1 and at most 65535")


def check_free(port: int) -> None:
    """Refuse a port of this machine that another process listens on."""
    check_range(port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(f"port {port} of this machine: {error.strerror.lower()}") from error


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody uses, below those that outgoing connections take."""
    result = []
    for port in random.SystemRandom().sample(range(*PORTS), PORTS[1] - PORTS[0]):
        with contextlib.suppress(UsageError):
            check_free(port)
            result.append(port)
            if len(result) == count:
                return result
    raise UsageError(f"this machine has no {count} free ports between {PORTS[0]} and {PORTS[1]}")


def check_names(hosts) -> None:
    """Refuse a host whose name has no address, within seconds."""
    failed = {}

    def resolve(name):
        try:
            socket.getaddrinfo(name, None)
            failed[name] = None
        except (OSError, UnicodeError) as error:
            failed[name] = getattr(error, "strerror", None) or str(error)

    names = [h.address.rpartition(":")[0] for h in hosts]
    threads = [threading.Thread(target=resolve, args=(n,), daemon=True) for n in names]
    for thread in threads:
        thread.start()
    for thread, name in zip(threads, names, strict=True):
        thread.join(RESOLVE_SECONDS)
        why = failed.get(name, f"no answer in {RESOLVE_SECONDS} s")
        if why:
            raise UsageError(f"host {name} cannot be found: {why}")


def variables(addresses, rank: int, start_timeout: float | None = None) -> dict:
    """What a worker finds in its environment."""
    cluster = {"worker": list(addresses)}
    result = {
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}}),
        "PYTHONUNBUFFERED": "1",  # its lines come when it writes them
    }
    return result | ({"KERASDL_START_TIMEOUT": f"{start_timeout:g}"} if start_timeout else {})


def here(command, addresses, rank: int, start_timeout: float | None = None) -> Start:
    """Start a worker on this machine."""
    environment = processes.environment(**variables(addresses, rank, start_timeout))
    return Start(rank, guard.wrap(command), environment, list(addresses))


def over_ssh(command, hosts, rank: int, start_timeout: float | None = None) -> Start:
    """Start a worker on another machine, which has this folder and this Python at these paths."""
    addresses, name = [h.address for h in hosts], hosts[rank].name
    remote = {"PYTHONPATH": processes.environment()["PYTHONPATH"]}
    remote |= variables(addresses, rank, start_timeout)
    words = [f"{key}={value}" for key, value in remote.items()] + guard.wrap(command)
    line = f"cd {shlex.quote(os.getcwd())} && exec env {shlex.join(words)}"
    return Start(rank, [*SSH.split(), name, line], dict(os.environ), addresses, name)
