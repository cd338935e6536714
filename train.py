"""Train a model by its name: `python train.py --help`."""

from kerasdl.cli import run

if __name__ == "__main__":
    run()
