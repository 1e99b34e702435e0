"""A run's results as files, predictions.csv and summary.json, and what is read back from them."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.behaviour import drift_of, flagged_epochs
from glioma_xai.experiment.evaluation import patient_table
from glioma_xai.experiment.lifecycle import versions, write_json
from glioma_xai.experiment.results import RunResults
from glioma_xai.experiment.verdict import judge


def predictions(results: RunResults, classes: tuple[str, ...]) -> pd.DataFrame:
    """All rows of ``predictions.csv``: slices and patients of every split.

    The reliability is that of the judged split; the rows that it was learnt from have none.
    """
    frames = []
    for split, table in results.tables.items():
        for level, rows in (("slice", table), ("patient", patient_table(table, classes))):
            frame = rows.copy()
            frame.insert(0, "level", level)
            frame.insert(1, "split", split)
            judged = split == results.split
            frame["reliability"] = results.reliability[level].values if judged else np.nan
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def read_validation(run: Path) -> pd.DataFrame | None:
    """The validation samples of a run's ``predictions.csv``; None if it has none.

    Args:
        run: The run's folder.
    """
    path = run / "predictions.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={"patient": str, "subject": str, "site": str})
    rows = table[(table["level"] == "slice") & (table["split"] == "validation")]
    rows = rows.assign(site=rows["site"].fillna(""), label=rows["label"].astype(int))
    return rows.reset_index(drop=True) if len(rows) else None


def read_iou_threshold(run: Path) -> float:
    """The threshold of the overlap that a run's validation chose; NaN if it has none.

    Args:
        run: The run's folder.
    """
    path = run / "summary.json"
    value = json.loads(path.read_text()).get("iou_threshold") if path.is_file() else None
    return math.nan if value is None else float(value)


def summary(
    results: RunResults, config: DictConfig, *, data: GliomaDataModule, run: Path
) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        results: Of the run.
        config: Of the run.
        data: That was evaluated.
        run: The run's folder, whose ``metrics.csv`` tells the drift over its epochs.
    """
    behaviour, drift = results.behaviour, drift_of(run / "metrics.csv")
    relevance = results.relevance[results.split]
    return {
        "name": config.name,
        "seed": config.seed,
        "classes": list(data.classes),
        "modalities": list(data.modalities),
        "selected_epoch": results.epoch,
        **results.training,
        "samples": {
            split: {"slices": len(t), "patients": int(t["patient"].nunique())}
            for split, t in results.tables.items()
        },
        "metrics": results.metrics,
        "relevance": results.relevance,
        "behaviour": behaviour.scores,
        "gaps": behaviour.gaps,
        "without_tumour": behaviour.without_tumour,
        "conditions_left_out": behaviour.left_out,
        "verdict": asdict(
            judge(behaviour.scores, behaviour.gaps, relevance, behaviour.without_tumour)
        ),
        "drift": None if drift is None else asdict(drift),
        "fairwashing_epochs": flagged_epochs(run / "metrics.csv"),
        "decision": asdict(results.decision) | {results.split: results.decided},
        "calibration_bins": results.bins,
        "iou_threshold": results.iou_threshold,
        "groups": results.groups,
        "reliability": {
            level: {"errors": r.errors, "rows": r.rows, "reason": r.reason, **r.scores}
            for level, r in results.reliability.items()
        },
        "faithfulness": None if results.faithfulness is None else asdict(results.faithfulness),
        "left_out": [str(problem) for problem in data.left_out],
        "versions": versions(),
    }


def write_tables(
    results: RunResults, config: DictConfig, *, data: GliomaDataModule, folder: Path, run: Path
) -> dict[str, Any]:
    """Write ``predictions.csv`` and ``summary.json`` into the folder; return the summary."""
    part = folder / "predictions.part"
    predictions(results, data.classes).to_csv(part, index=False, float_format="%.9g")
    part.replace(folder / "predictions.csv")
    content = summary(results, config, data=data, run=run)
    write_json(folder / "summary.json", content)
    return content
