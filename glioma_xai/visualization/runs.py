"""Run folders as they lie on disk: what was set, what came out, which pictures there are."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from glioma_xai.errors import RunError
from glioma_xai.visualization.contents import Estimate

PRIVATE = ("seed", "paths", "logger", "overlays", "data.fold", "data.split_seed")
"""Parts of a config in which two runs of one setting may differ."""

DROP = "behaviour/largest_drop"
"""Path of a score that is worked out here: accuracy as trained less that where it is lowest."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Where it lies.
        seed: Of the run; None if the config has none.
        settings: Key of the config, with dots, to value, without the seed and where things lie.
        scores: Path in ``summary.json``, such as ``metrics/test/patient/auc``, to estimate.
        history: Column of ``metrics.csv`` to values by epoch.
        pictures: Name of an overlay of the test split to its file.
        maps: Archive of relevance maps of the test split; None if there is none.
        fold: Which split of the patients, in words; empty where the seed draws it.
    """

    folder: Path
    seed: int | None
    settings: Mapping[str, str]
    scores: Mapping[str, Estimate]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    maps: Path | None = None
    fold: str = ""

    def patient_probabilities(self, split: str = "test") -> dict[str, tuple[int, float]]:
        """Patient to label and probability of the second class; empty for other than two classes.

        Args:
            split: Of ``predictions.csv``.
        """
        path = self.folder / "predictions.csv"
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if row["level"] == "patient" and row["split"] == split
            ]
        columns = [name for name in (rows[0] if rows else ()) if name.startswith("probability_")]
        if len(columns) != 2:
            return {}
        return {row["patient"]: (int(row["label"]), float(row[columns[1]])) for row in rows}


def find_runs(folders: Iterable[Path]) -> tuple[list[Run], dict[Path, str]]:
    """Every run in or below some folders, each once.

    Args:
        folders: Run folders, sweep folders, or folders of either.

    Returns:
        The finished runs in the order of their paths, and for each other folder why it is not among
        them. Of runs that differ in nothing, as after the same command twice, the last one counts.

    Raises:
        RunError: If a folder is missing, or nothing finished is found.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunError(
                f"{folder}: expected a run folder or a sweep folder, found none. Give a folder "
                "under runs/."
            )
        found |= {run.resolve(): run for run in _runs_below(folder)}
    runs, others = [], {}
    for folder in found.values():
        run = _read(folder)
        if isinstance(run, Run):
            runs.append(run)
        else:
            others[folder] = run
    if not runs:
        names = ", ".join(str(folder) for folder in folders)
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in others.items())
        raise RunError(
            f"{names}: expected at least one finished run (a folder with summary.json), found "
            f"none{': ' + reasons if others else ''}. Let a run finish first."
        )
    last = {_identity(run): run for run in runs}
    for run in runs:
        other = last[_identity(run)]
        if other is not run:
            others[run.folder] = f"the same settings, seed and patients as {other.folder.name}"
    return [run for run in runs if run.folder not in others], others


def _identity(run: Run) -> tuple[object, ...]:
    """What tells a run from others, each of which says something new."""
    return (run.seed, run.fold, *sorted(run.settings.items()))


def _runs_below(folder: Path) -> list[Path]:
    """The folder if it is a run; else the runs below. A run's own evaluations are not runs."""
    if (folder / "status.json").is_file() or (folder / "summary.json").is_file():
        return [folder]
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [run for path in inner for run in _runs_below(path)]


def _read(folder: Path) -> Run | str:
    """The run, or why it cannot be compared."""
    state = "without status.json"
    try:
        if (folder / "status.json").is_file():
            status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
            state = str(status.get("state"))
            if state != "finished":
                reason = f": {status['error']}" if status.get("error") else ""
                return f"{state}{reason}"
        if not (folder / "summary.json").is_file():
            return f"{state}, but without summary.json"
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / ".hydra/config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (ValueError, yaml.YAMLError) as error:
        return f"cannot be read ({str(error).splitlines()[0]})"
    flat = flatten(config)
    return Run(
        folder=folder,
        seed=config.get("seed"),
        settings={key: _text(value) for key, value in flat.items() if not _private(key)},
        scores=with_drop(estimates(summary)),
        history=_history(folder / "metrics.csv"),
        pictures={path.stem: path for path in sorted(folder.glob("relevance/test/*.png"))},
        maps=next(iter(folder.glob("relevance/test/maps.npz")), None),
        fold=_fold(flat),
    )


def _private(key: str) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in PRIVATE)


def _fold(settings: Mapping[str, object]) -> str:
    """Which split of the patients a run had, where it is not the one that its seed draws."""
    words = []
    if settings.get("data.folds") is not None:
        words.append(f"fold {settings.get('data.fold')}")
    if settings.get("data.split_seed") is not None:
        words.append(f"split {settings['data.split_seed']}")
    return ", ".join(words)


def flatten(node: object, prefix: str = "", separator: str = ".") -> dict[str, object]:
    """Leaves of nested mappings by the path to them.

    Args:
        node: Nested mappings.
        prefix: Put before every path.
        separator: Between the parts of a path.

    Returns:
        Path to leaf; lists are leaves.
    """
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{separator}{key}" if prefix else str(key), separator)
    return flat


def estimates(summary: Mapping[str, Any], prefix: str = "") -> dict[str, Estimate]:
    """Every number of a summary by its path; a value with its interval is one number.

    Args:
        summary: Content of ``summary.json``.
        prefix: Put before every path.

    Returns:
        Path such as ``metrics/test/patient/auc`` to estimate; None is read as NaN.
    """
    found: dict[str, Estimate] = {}
    for key, value in summary.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping) and "value" in value:
            number, low, high = (_number(value.get(name)) for name in ("value", "low", "high"))
            found[path] = Estimate(number, low, high, str(value.get("method", "")))
        elif isinstance(value, Mapping):
            found |= estimates(value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[path] = Estimate(float(value))
    return found


def with_drop(scores: dict[str, Estimate]) -> dict[str, Estimate]:
    """Add the largest drop: accuracy as trained less that under the worst condition.

    Args:
        scores: Of :func:`estimates`.

    Returns:
        The same with :data:`DROP`, if any condition was measured.
    """
    accuracies = {
        path.split("/")[1]: estimate.value
        for path, estimate in scores.items()
        if path.startswith("behaviour/") and path.endswith("/patient/accuracy")
    }
    trained = accuracies.pop("as_trained", math.nan)
    if accuracies:
        scores[DROP] = Estimate(trained - min(accuracies.values()))
    return scores


def _history(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _text(value: object) -> str:
    return "null" if value is None else str(value)
