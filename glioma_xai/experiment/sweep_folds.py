"""Cross-validation: the test patients of all folds together, each patient once."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import numpy as np
import pandas as pd
import yaml

from glioma_xai.errors import CohortError
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.experiment.scores import Scores, score_relevance, score_table, value_of

_SHOWN = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


def write_pooled(sweep: Path, runs: Sequence[tuple[Path, str]]) -> str:
    """Pool the folds of each setting, write ``folds.json`` and ``folds_predictions.csv``.

    Every prediction is of a network that has seen the patient neither in training nor in the choice
    of its epoch. Intervals are over patients; they do not hold how much the networks of the folds
    differ, which the range over the folds shows.

    Args:
        sweep: Folder for the files.
        runs: Folder and setting of each finished run.

    Returns:
        What to print, a line each; empty if the runs are no cross-validation.

    Raises:
        CohortError: If a patient is tested in two folds of one setting and seed.
    """
    groups = {name: found for name, found in _group(runs).items() if len(found) > 1}
    if not groups:
        return ""
    pooled, tables, lines = {}, [], []
    for name, found in groups.items():
        rows = pool_folds([folder for folder, _ in found])
        tables.append(rows.assign(setting=name))
        pooled[name] = _scores(rows, found[0][1])
        folds = found[0][1]["data"]["folds"]
        lines += [f"out of fold, {name}: {len(found)} of {folds} folds, {_words(pooled[name])}"]
    part = sweep / ".folds_predictions.part"
    pd.concat(tables, ignore_index=True).to_csv(part, index=False, float_format="%.9g")
    part.replace(sweep / "folds_predictions.csv")
    write_json(sweep / "folds.json", pooled)
    return "\n".join([*lines, f"folds: {sweep / 'folds.json'}"]) + "\n"


def _group(runs: Sequence[tuple[Path, str]]) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """Runs of one cross-validation each: the same setting, seed and draw of the folds."""
    found = []
    for folder, setting in runs:
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        if config["data"].get("folds") and config["data"].get("fold_split") == "test":
            found.append((folder, setting, config))
    draws = {config["data"].get("split_seed") for _, _, config in found}
    groups: defaultdict[str, list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for folder, setting, config in found:
        name = f"{setting} seed={config['seed']}".strip()
        if len(draws) > 1:
            name += f" data.split_seed={config['data'].get('split_seed')}"
        groups[name].append((folder, config))
    return groups


def pool_folds(folders: Sequence[Path]) -> pd.DataFrame:
    """The test slices of several folds, a row each, with the name of their fold's run.

    Raises:
        CohortError: If two folds share a patient.
    """
    tables = []
    for folder in folders:
        text = {"patient": str, "subject": str, "site": str}
        table = pd.read_csv(folder / "predictions.csv", dtype=cast("Any", text))
        rows = table[(table["level"] == "slice") & (table["split"] == "test")]
        tables.append(rows.assign(run=folder.name, site=rows["site"].fillna("")))
    pooled = pd.concat(tables, ignore_index=True)
    pooled["label"] = pooled["label"].astype(int)
    tested = pooled.groupby("patient")["run"].nunique()
    twice = sorted(tested[tested > 1].index)
    if twice:
        raise CohortError(
            f"cross-validation: expected every patient in the test split of one fold, found "
            f"{len(twice)} in several, such as {twice[0]}. Keep data.split_seed and data.folds the "
            "same in all folds."
        )
    return pooled


def _scores(rows: pd.DataFrame, config: dict[str, Any]) -> dict[str, Any]:
    classes = [str(name) for name in config["data"]["classes"]]
    resamples, seed = int(config["bootstrap"]), int(config["seed"])
    apart = [
        score_table(fold, classes=classes, resamples=2, seed=seed)["patient"]
        for _, fold in rows.groupby("run")
    ]
    scores: Scores = score_table(rows, classes=classes, resamples=resamples, seed=seed)
    return {
        "patients": int(rows["patient"].nunique()),
        "metrics": scores,
        "relevance": score_relevance(rows, resamples=resamples, seed=seed),
        "folds": {name: [value_of(fold[name]) for fold in apart] for name in scores["patient"]},
    }


def _words(pooled: dict[str, Any]) -> str:
    lines = [f"{pooled['patients']} patients, each once:"]
    for name in (n for n in _SHOWN if n in pooled["metrics"]["patient"]):
        v = pooled["metrics"]["patient"][name]
        values = [value for value in pooled["folds"][name] if np.isfinite(value)]
        apart = f"; folds {mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else ""
        lines.append(f"  {name:<20} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]{apart}")
    inside = pooled["relevance"].get("absolute_relevance_mass")
    if inside is not None:
        lines.append(
            f"  {'relevance in tumour':<20} {inside['value']:.3f} "
            f"[{inside['low']:.3f}, {inside['high']:.3f}]"
        )
    return "\n".join(lines)
