"""What a run leaves behind: scores, behaviour, predictions.csv, summary.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.evaluation import (
    Change,
    background_of_others,
    patient_table,
    predict_table,
    score_relevance,
    score_table,
)
from glioma_xai.experiment.lifecycle import versions, write_json
from glioma_xai.experiment.verdict import judge
from glioma_xai.records import Split
from glioma_xai.training.module import GuidedClassifier

Scores = dict[str, dict[str, dict[str, object]]]


@dataclass(frozen=True)
class RunResults:
    """Results of a run.

    Args:
        epoch: Epoch that validation chose, counted from 0.
        tables: Split to one row a sample.
        metrics: Split to level (``slice``, ``patient``) to score to interval.
        relevance: Split to relevance score to interval.
        behaviour: Condition of the test images (``as_trained``, ``removed``, ``swapped``,
            ``exchanged_other_class``, ...) to level to score to interval.
        behaviour_tables: Condition to one row a sample.
        training: How it was trained: monitor, its value, wall time.
    """

    epoch: int
    tables: Mapping[str, pd.DataFrame]
    metrics: Mapping[str, Scores]
    relevance: Mapping[str, dict[str, dict[str, object]]]
    behaviour: Mapping[str, Scores] = field(default_factory=dict)
    behaviour_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)

    def with_training(self, **values: object) -> "RunResults":
        """The same with more said about the training."""
        return replace(self, training={**self.training, **values})


def conditions_of(
    data: GliomaDataModule, *, seed: int
) -> dict[str, tuple[str | None, Change | None]]:
    """What is done to the test images: name to (variant of the cohort, change of a batch)."""
    conditions: dict[str, tuple[str | None, Change | None]] = {"as_trained": (None, None)}
    conditions |= {variant: (variant, None) for variant in data.variants}
    for name, other in (("exchanged_any", False), ("exchanged_other_class", True)):
        change = partial(background_of_others, seed=seed, other_class=other)
        conditions[name] = (None, change)
    return conditions


def evaluate_splits(
    config: DictConfig,
    *,
    data: GliomaDataModule,
    module: GuidedClassifier,
    splits: tuple[Split, ...] = ("validation", "test"),
    epoch: int = -1,
) -> RunResults:
    """Scores of each split, and of the last split under each condition that the data allows."""
    resamples, seed = int(config.bootstrap), int(config.seed)
    tables: dict[str, pd.DataFrame] = {}
    behaviour_tables: dict[str, pd.DataFrame] = {}
    for split in splits:
        loader = data.evaluation_loader(split)
        tables[split] = predict_table(module, loader, classes=data.classes)
    for name, (variant, change) in conditions_of(data, seed=config.seed).items():
        if name == "as_trained":
            behaviour_tables[name] = tables[splits[-1]]
            continue
        behaviour_tables[name] = predict_table(
            module,
            data.evaluation_loader(splits[-1], variant=variant),
            classes=data.classes,
            change=change,
            relevance=variant is not None,
        )
    score = partial(score_table, classes=data.classes, resamples=resamples, seed=seed)
    locate = partial(score_relevance, resamples=resamples, seed=seed)
    return RunResults(
        epoch=epoch,
        tables=tables,
        metrics={split: score(table) for split, table in tables.items()},
        relevance={split: locate(table) for split, table in tables.items()},
        behaviour={name: score(table) for name, table in behaviour_tables.items()},
        behaviour_tables=behaviour_tables,
    )


def predictions(results: RunResults, classes: tuple[str, ...]) -> pd.DataFrame:
    """All rows of ``predictions.csv``: slices and patients of every split."""
    frames = []
    for split, table in results.tables.items():
        for level, rows in (("slice", table), ("patient", patient_table(table, classes))):
            frame = rows.copy()
            frame.insert(0, "level", level)
            frame.insert(1, "split", split)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def summary(results: RunResults, config: DictConfig, *, data: GliomaDataModule) -> dict[str, Any]:
    """The content of ``summary.json``."""
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
        "behaviour": results.behaviour,
        "verdict": asdict(judge(results.behaviour, list(results.relevance.values())[-1])),
        "left_out": [str(problem) for problem in data.left_out],
        "versions": versions(),
    }


def write_tables(
    results: RunResults, config: DictConfig, *, data: GliomaDataModule, folder: Path
) -> dict[str, Any]:
    """Write ``predictions.csv`` and ``summary.json``; return the summary."""
    part = folder / "predictions.part"
    predictions(results, data.classes).to_csv(part, index=False, float_format="%.6g")
    part.replace(folder / "predictions.csv")
    content = summary(results, config, data=data)
    write_json(folder / "summary.json", content)
    return content
