"""Relevance of one subject: ``python -m glioma_xai.explain run=<run dir> subject=<id>``."""

import sys

from glioma_xai.experiment.explaining import explain
from glioma_xai.experiment.launch import run_command


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: explain(sys.argv[1:])))


if __name__ == "__main__":
    main()
