"""Train a model by its name: `python train.py --help`."""

import sys

from kerasdl.cli import main

if __name__ == "__main__":
    sys.exit(main())
