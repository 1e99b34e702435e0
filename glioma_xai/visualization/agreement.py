"""How alike the relevance maps of the same test cases are between the seeds of a setting."""

import itertools
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from glioma_xai.errors import RunError
from glioma_xai.visualization.contents import Estimate
from glioma_xai.visualization.pooling import Setting

Maps = NDArray[np.float32]
Similarity = Callable[[Maps, Maps], NDArray[np.float64]]
"""Two batches of maps of the same cases, (B, *spatial), to one value a case, (B,)."""


def agreement_of_seeds(setting: Setting, similarity: Similarity) -> Estimate | None:
    """Mean similarity of the maps of every two runs on the test cases that both stored.

    Runs of other seeds may have other test patients: only what two runs share is compared.

    Args:
        setting: Runs that differ in their seed.
        similarity: Of two batches of maps.

    Returns:
        The mean over pairs of runs, the lowest and highest as its ends where there are several, and
        what was compared as the note; None if no two runs share a case.
    """
    archives = [read_maps(run.maps) for run in setting.runs if run.maps is not None]
    means: list[float] = []
    compared = 0
    for first, second in itertools.combinations(archives, 2):
        shared = sorted(
            name for name in first.keys() & second if first[name].shape == second[name].shape
        )
        if not shared:
            continue
        values = similarity(
            np.stack([first[name] for name in shared]), np.stack([second[name] for name in shared])
        )
        if np.isfinite(values).any():
            means.append(float(np.nanmean(values)))
            compared += len(shared)
    if not means:
        return None
    pairs = "1 pair of runs" if len(means) == 1 else f"{len(means)} pairs of runs"
    low, high = (min(means), max(means)) if len(means) > 1 else (np.nan, np.nan)
    note = f"{pairs}, {compared} pairs of maps"
    return Estimate(float(np.mean(means)), low, high, note, share=False)


def read_maps(path: Path) -> dict[str, Maps]:
    """Maps by subject and slice, (*spatial) each, as a run stored them.

    Args:
        path: A run's ``relevance/test/maps.npz``.

    Raises:
        RunError: If it is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in archive.files}
    except (BadZipFile, ValueError, OSError) as error:
        raise RunError(
            f"{path}: expected an archive of relevance maps, found one that cannot be read "
            f"({error}). Evaluate the run again, or delete the file."
        ) from error
