"""Several runs side by side: ``python -m glioma_xai.compare <dir>... [--output <dir>]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glioma_xai.experiment.comparison import write_comparison
from glioma_xai.experiment.launch import run_command


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m glioma_xai.compare",
        description="Compare finished runs: one page with table, Pareto front, tests and curves.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or sweep folders")
    parser.add_argument(
        "--output", type=Path, help="folder for the page; default: comparison/ in the first folder"
    )
    return parser.parse_args(arguments)


def compare(arguments: Sequence[str]) -> None:
    """Compare the runs that a command line names and print where the page is."""
    options = parse(arguments)
    output = options.output or options.runs[0] / "comparison"
    print(write_comparison(options.runs, output))


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: compare(sys.argv[1:])))


if __name__ == "__main__":
    main()
