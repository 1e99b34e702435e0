"""Several runs side by side: ``python -m glioma_xai.compare <dir>... [--output <dir>]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glioma_xai.experiment.launch import run_command
from glioma_xai.metrics.functional.agreement import rank_correlation
from glioma_xai.metrics.functional.delong import delong_test
from glioma_xai.visualization.comparison import compare_runs


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
    print(compare_runs(options.runs, output, area_test=delong_test, similarity=_correlation))


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank correlation of two batches of maps, (B, *spatial), one value a case, (B,)."""
    maps, others = (torch.from_numpy(values)[:, None] for values in (first, second))
    return rank_correlation(maps, others).double().numpy()


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: compare(sys.argv[1:])))


if __name__ == "__main__":
    main()
