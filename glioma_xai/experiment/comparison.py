"""The page that compares runs, with the tests that it needs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glioma_xai.metrics.functional.agreement import rank_correlation
from glioma_xai.metrics.functional.delong import delong_test
from glioma_xai.visualization.comparison import compare_runs


def write_comparison(folders: Sequence[Path], output: Path) -> Path:
    """Write ``comparison.html`` and ``comparison.csv`` about the finished runs in some folders.

    Args:
        folders: Run folders, sweep folders, or folders of either.
        output: Folder for the page; made if it is missing.

    Returns:
        The page.

    Raises:
        RunError: If a folder is missing or holds no finished run.
    """
    return compare_runs(folders, output, area_test=delong_test, similarity=_correlation)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank correlation of two batches of maps, (B, *spatial), one value a case, (B,)."""
    maps, others = (torch.from_numpy(values)[:, None] for values in (first, second))
    return rank_correlation(maps, others).double().numpy()
