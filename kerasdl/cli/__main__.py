"""`python -m kerasdl.cli`: the same as the console script."""

from kerasdl.cli import run

if __name__ == "__main__":
    run()
