"""After a sweep: one table, the best run by the rule stated before, one page, what is missing."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from glioma_xai.errors import GliomaXaiError, RunError
from glioma_xai.experiment.comparison import write_comparison
from glioma_xai.experiment.lifecycle import read_status
from glioma_xai.experiment.sweep_folds import write_pooled
from glioma_xai.experiment.sweep_objectives import read_objectives
from glioma_xai.experiment.sweep_plan import Sweep, labels
from glioma_xai.visualization.pooling import pareto_front

REPEATS = ("seed", "data.fold", "data.split_seed")
"""Keys in which runs of one setting may differ."""
TABLE = "sweep.csv"


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Args:
        name: Of its folder.
        folder: Of the run.
        label: Overrides in which it differs from the other jobs.
        state: Of its ``status.json``; ``missing`` if it never started.
        error: Why it failed.
        score: Validation score that chose its epoch; NaN if it did not finish.
        columns: Further numbers by name.
        objectives: Of a search, by name.
    """

    name: str
    folder: Path
    label: str
    state: str
    error: str = ""
    score: float = math.nan
    columns: Mapping[str, float] = field(default_factory=dict)
    objectives: Mapping[str, float] = field(default_factory=dict)

    @property
    def setting(self) -> str:
        """The label without what only repeats a setting."""
        words = self.label.split(" ")
        return " ".join(word for word in words if word.partition("=")[0].lstrip("+") not in REPEATS)


def conclude(sweep: Sweep, *, error: Exception | None) -> None:
    """Write and print what came of a sweep.

    Writes ``sweep.csv``, ``comparison/comparison.html`` and, of cross-validation, ``folds.json``
    and ``folds_predictions.csv`` into the sweep's folder.

    Args:
        sweep: All of its jobs are over.
        error: What ended the launcher, if anything did.

    Raises:
        RunError: If not all jobs finished; each is listed.
    """
    outcomes = outcomes_of(sweep)
    if not outcomes:
        _require_all(outcomes, sweep, error or RunError("nothing to do"))
    table = _table(outcomes, sweep)
    table.to_csv(sweep.folder / TABLE, index=False)
    print(table.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3f}"))
    print(f"table: {sweep.folder / TABLE}")
    finished = [outcome for outcome in outcomes if outcome.state == "finished"]
    if finished:
        print(best_run(finished, sweep))
        print(_front(finished), end="")
        print(write_pooled(sweep.folder, [(o.folder, o.setting) for o in finished]), end="")
        print(f"comparison: {write_comparison([sweep.folder], sweep.folder / 'comparison')}")
    _require_all(outcomes, sweep, error)


def outcomes_of(sweep: Sweep) -> list[Outcome]:
    """What became of every job, in the order of their numbers."""
    if not sweep.searches:
        return [_outcome(sweep.folder / str(job.number), job.label) for job in sweep.jobs]
    folders = sorted(
        (path.parent for path in sweep.folder.glob("*/status.json")),
        key=lambda folder: [int(part) for part in folder.name.split("_")],
    )
    words = [yaml.safe_load((f / ".hydra" / "overrides.yaml").read_text()) for f in folders]
    named = labels(words) if words else []
    return [_outcome(folder, label) for folder, label in zip(folders, named, strict=True)]


def _outcome(folder: Path, label: str) -> Outcome:
    status = read_status(folder)
    state = str(status.get("state", "missing"))
    if state != "finished":
        return Outcome(folder.name, folder, label, state, str(status.get("error") or ""))
    summary = json.loads((folder / "summary.json").read_text())
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    names = [str(name) for name in config.get("objectives") or []]
    return Outcome(
        folder.name,
        folder,
        label,
        state,
        score=_number(summary.get("selection_score")),
        columns=_columns(summary),
        objectives=dict(zip(names, read_objectives(folder, names), strict=True)),
    )


def _columns(summary: Mapping[str, Any]) -> dict[str, float]:
    """The few numbers of a run that the table shows; the page has all."""
    patient = summary["metrics"]["test"]["patient"]
    accuracies = {
        name: _number(scores["patient"]["accuracy"]["value"])
        for name, scores in summary["behaviour"].items()
    }
    inside = summary["relevance"]["test"].get("absolute_relevance_mass", {})
    return {
        "test auc": _number(patient.get("auc", {}).get("value")),
        "test accuracy": _number(patient["accuracy"]["value"]),
        "lowest accuracy": min(accuracies.values(), default=math.nan),
        "relevance inside": _number(inside.get("value")),
        "seconds": _number(summary.get("wall_seconds")),
    }


def _number(value: object) -> float:
    return math.nan if value is None else float(str(value))


def _table(outcomes: Sequence[Outcome], sweep: Sweep) -> pd.DataFrame:
    score = sweep.monitor or "validation score"
    return pd.DataFrame(
        [
            {
                "job": outcome.name,
                "setting": outcome.label,
                "state": outcome.state,
                score: outcome.score,
                **{name: value for name, value in outcome.objectives.items() if name != score},
                **outcome.columns,
            }
            for outcome in outcomes
        ]
    )


def best_run(finished: Sequence[Outcome], sweep: Sweep) -> str:
    """The best run by the sweep's rule, in words."""
    if sweep.monitor is None:
        return f"best run: {sweep.rule}"
    sign = 1 if sweep.mode == "max" else -1
    scores: dict[str, list[float]] = {}
    for outcome in finished:
        value = outcome.score if math.isfinite(outcome.score) else -sign * math.inf
        scores.setdefault(outcome.setting, []).append(value)
    means = {setting: sum(values) / len(values) for setting, values in scores.items()}
    setting = max(means, key=lambda name: sign * means[name])
    runs = [outcome for outcome in finished if outcome.setting == setting]
    best = max(runs, key=lambda outcome: sign * outcome.score)
    of_runs = f"mean {means[setting]:.3f} of {len(runs)} runs; " if len(runs) > 1 else ""
    label = f" ({best.label})" if best.label else ""
    return (
        f"best run: {best.folder}{label}, {of_runs}{sweep.monitor} {best.score:.3f}\n"
        f"  chosen by: {sweep.rule}"
    )


def _front(finished: Sequence[Outcome]) -> str:
    """The Pareto front of a search with several objectives, one line a run."""
    judged = [outcome for outcome in finished if len(outcome.objectives) > 1]
    if not judged:
        return ""
    front = pareto_front({o.name: [*o.objectives.values()] for o in judged})
    lines = [f"Pareto front of {', '.join(judged[0].objectives)}: {len(front)} of {len(judged)}"]
    for outcome in judged:
        if outcome.name in front:
            values = ", ".join(f"{value:.3f}" for value in outcome.objectives.values())
            lines.append(f"  {outcome.name}: {values} ({outcome.label})")
    return "\n".join(lines) + "\n"


def _require_all(outcomes: Sequence[Outcome], sweep: Sweep, error: Exception | None) -> None:
    missing = [outcome for outcome in outcomes if outcome.state != "finished"]
    if not missing and error is None:
        return
    lines = [
        f"  {job.name}{f' ({job.label})' if job.label else ''}: {job.state}"
        f"{f': {job.error}' if job.error else ''}"
        for job in missing
    ]
    if error is not None:
        said = str(error).strip().splitlines() or [type(error).__name__]
        kind = "" if isinstance(error, GliomaXaiError) else f"{type(error).__name__}: "
        lines.append(f"  the launcher ended with {kind}{said[0]}")
    again = (
        f"the same command with hydra.sweep.dir={sweep.folder}"
        if sweep.searches
        else f"python -m glioma_xai.train -m resume={sweep.folder}"
    )
    raise RunError(
        f"the sweep: expected {len(outcomes)} finished jobs, found "
        f"{len(outcomes) - len(missing)}. Go on with {again}\n" + "\n".join(lines)
    )
