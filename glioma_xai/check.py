"""List every problem of a cohort and a model before training: ``python -m glioma_xai.check``."""

import sys

from glioma_xai.experiment.commands import check
from glioma_xai.experiment.launch import run_command


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: check(sys.argv[1:])))


if __name__ == "__main__":
    main()
