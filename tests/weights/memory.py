"""How much memory an import takes: `memory.py SMALL LARGE`, two folders of published weights."""

import os
import sys
from pathlib import Path

import kerasdl


def peak():
    """The most memory that this process had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


small, large = sys.argv[1:]
kerasdl.from_pretrained(small)  # what TensorFlow itself needs
before = peak()
model = kerasdl.from_pretrained(large)
print((peak() - before) / os.path.getsize(Path(large) / "model.safetensors"))
