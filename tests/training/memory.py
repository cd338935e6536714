"""The memory of one training step, in a process of its own: `memory.py MODEL on|off OUT.npz`."""

import sys
from pathlib import Path

import numpy as np

from kerasdl.bench.remat import train

# As large as their values outweigh TensorFlow and the graph.
MODELS = {
    "vit": ("vit_ti16", 128, 112, {"drop_rate": 0.1}),
    "unet": (
        "ddpm_unet",
        288,
        32,
        {"dim": 32, "multipliers": (1, 2), "depth": 3, "attention_levels": ()},
    ),
}


def peak():
    """MiB that this process has held at most; `getrusage` would count what started it, too."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def main(name, on, out):
    run = train(*MODELS[name], on == "on")
    start = peak()
    loss = run()
    np.savez(out, start=start, loss=loss, peak=peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
