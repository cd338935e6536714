"""How much memory there is to use."""

from pathlib import Path

LIMITS = (  # of a container, and what it has used
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available() -> int | None:
    """Bytes that this process could take without swapping, or None where that is not known."""
    free = [_of_system(), *(_within(*files) for files in LIMITS)]
    return min((n for n in free if n is not None), default=None)


def _of_system():
    for line in (_text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _within(limit, used):
    limit, used = _text(limit), _text(used)
    if limit is None or used is None or not limit.strip().isdigit():
        return None  # no container, or one without a limit
    return max(0, int(limit) - int(used))


def _text(path):
    try:
        return Path(path).read_text()
    except OSError:
        return None
