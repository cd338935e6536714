"""The memory of one training step, in a process of its own: `memory.py MODEL on|off OUT.npz`."""

import resource
import sys

import numpy as np

from kerasdl.bench.remat import train

# As large as their values outweigh TensorFlow and the graph.
MODELS = {
    "vit": ("vit_ti16", 128, 112, {"drop_rate": 0.1}),
    "unet": (
        "ddpm_unet",
        192,
        32,
        {"dim": 32, "multipliers": (1, 2), "depth": 3, "attention_levels": ()},
    ),
}


def peak():
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(name, on, out):
    run = train(*MODELS[name], on == "on")
    start = peak()
    loss = run()
    np.savez(out, start=start, loss=loss, peak=peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
