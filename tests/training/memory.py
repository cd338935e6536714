"""One training step of much memory, in a process of its own: `memory.py MODEL on|off OUT.npz`."""

import sys

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


def main(name, on, out):
    np.savez(out, loss=train(*MODELS[name], on == "on")())


if __name__ == "__main__":
    main(*sys.argv[1:])
