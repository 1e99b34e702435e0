"""Evaluate a finished run, on its own or on other data: ``glioma_xai.evaluate run=...``."""

import sys

from glioma_xai.experiment.commands import evaluate
from glioma_xai.experiment.launch import run_command


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: evaluate(sys.argv[1:])))


if __name__ == "__main__":
    main()
