"""What a job hands to a sweeper that searches: one validation score, or several."""

import csv
import json
import math
from pathlib import Path

from omegaconf import DictConfig

from glioma_xai.errors import RunError

Score = float | tuple[float, ...]


def objectives_of(config: DictConfig, score: float, folder: Path) -> Score | None:
    """The scores of a finished run by which a search judges it.

    Args:
        config: Of the run; ``objectives`` names validation scores, null takes ``score``.
        score: The validation score that chose the epoch.
        folder: The run's.

    Returns:
        ``score``; or the objectives in their order, at the epoch that validation chose. None if one
        is not finite, which a search counts as a failure of this job.
    """
    names = [str(name) for name in config.get("objectives") or []]
    if not names:
        return score if math.isfinite(score) else None
    values = read_objectives(folder, names)
    return values if all(math.isfinite(value) for value in values) else None


def read_objectives(folder: Path, names: list[str]) -> tuple[float, ...]:
    """Validation scores of a finished run at the epoch that it chose.

    Args:
        folder: The run's.
        names: Columns of ``metrics.csv``.

    Returns:
        In the order of the names; NaN where the epoch has no value.

    Raises:
        RunError: If training did not log a score of this name.
    """
    epoch = json.loads((folder / "summary.json").read_text())["selected_epoch"]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
    unknown = [name for name in names if name not in rows[epoch]]
    if unknown:
        raise RunError(
            f"objectives: expected columns of {folder / 'metrics.csv'}, found "
            f"{', '.join(unknown)}. Choose scores that training logs."
        )
    return tuple(float(rows[epoch][name] or "nan") for name in names)
