"""What a network decides by: the same test samples under every condition that the cohort allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.conditions import Condition, conditions_of
from glioma_xai.experiment.evaluation import patient_table, predict_table, probabilities_of
from glioma_xai.experiment.scores import Fields, Scores, paired, score_table
from glioma_xai.metrics.functional.behaviour import Drift, find_drift, score_gap
from glioma_xai.records import Split
from glioma_xai.training.module import GuidedClassifier

LEAST_CHANGED = 0.5  # share of the samples that a condition must be able to change

_FLAG = "validation/fairwashing"
_DOES = "validation/exchanged_accuracy"
_SHOWS = "validation/absolute_relevance_mass"


@dataclass(frozen=True)
class Behaviour:
    """Scores under conditions.

    Args:
        scores: Condition to scores: ``as_trained``, and those that leave the tumour as it is.
        gaps: Condition to accuracy by patient as trained less that under the condition, on the
            samples that it changes; ``background_class`` is that of backgrounds of the same class
            less that of backgrounds of any class: what the background says about the class.
        without_tumour: Condition that takes the tumour away to scores, wanted near chance.
        left_out: Condition that could not be made to the reason.
    """

    scores: Mapping[str, Scores]
    gaps: Mapping[str, Fields] = field(default_factory=dict)
    without_tumour: Mapping[str, Scores] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def measure_behaviour(
    module: GuidedClassifier,
    data: GliomaDataModule,
    *,
    split: Split,
    as_trained: pd.DataFrame,
    resamples: int,
    seed: int,
) -> Behaviour:
    """Predict a split under every condition, and compare with the images as they are.

    Args:
        module: The network.
        data: Set up.
        split: Whose samples.
        as_trained: Table of the split as it is.
        resamples: Draws of the bootstrap.
        seed: Of donors, noise and bootstrap.
    """
    classes = data.classes
    tables: dict[str, pd.DataFrame] = {}
    left_out: dict[str, str] = {}
    conditions = conditions_of(data, split, seed=seed)
    for condition in conditions:
        table = _predict(module, data, split, condition)
        changed = table["changed"] if "changed" in table else pd.Series(True, table.index)
        if changed.mean() < LEAST_CHANGED:
            left_out[condition.name] = (
                f"it could change {int(changed.sum())} of {len(changed)} samples: it needs tumour "
                "masks, and patients whose background can be taken"
            )
            continue
        tables[condition.name] = table[changed]
    score = partial(score_table, classes=classes, resamples=resamples, seed=seed)
    compare = partial(_gap, classes=classes, resamples=resamples, seed=seed)
    spared = [c.name for c in conditions if c.spares_tumour and c.name in tables]
    gaps = {name: compare(as_trained, tables[name]) for name in spared}
    if {"exchanged_same_class", "exchanged_any"} <= tables.keys():
        gaps["background_class"] = compare(tables["exchanged_same_class"], tables["exchanged_any"])
    return Behaviour(
        scores={"as_trained": score(as_trained), **{name: score(tables[name]) for name in spared}},
        gaps=gaps,
        without_tumour={name: score(tables[name]) for name in tables if name not in spared},
        left_out=left_out,
    )


def _predict(
    module: GuidedClassifier, data: GliomaDataModule, split: Split, condition: Condition
) -> pd.DataFrame:
    loader = data.evaluation_loader(split, variant=condition.variant)
    return predict_table(
        module, loader, classes=data.classes, change=condition.change, relevance=False
    )


def _gap(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> Fields:
    """Accuracy by patient of one table less that of another, on the samples that both hold."""
    rows = first.index.intersection(second.index)
    a, b = (patient_table(table.loc[rows], classes) for table in (first, second))
    test = score_gap(
        probabilities_of(a, classes),
        probabilities_of(b, classes),
        a["label"].to_numpy(),
        list(a["patient"]),
        resamples=resamples,
        seed=seed,
    )
    return paired(test, len(a))


def drift_of(metrics: Path) -> Drift | None:
    """Whether the run hid its reasons over its epochs; None if it has no ``metrics.csv``.

    Args:
        metrics: The run's ``metrics.csv``.
    """
    if not metrics.is_file():
        return None
    history = pd.read_csv(metrics)
    if not {_DOES, _SHOWS} <= set(history.columns):
        return None
    return find_drift(history[_DOES].tolist(), history[_SHOWS].tolist())


def flagged_epochs(metrics: Path) -> list[int]:
    """Epochs in which relevance lay in the tumour while accuracy fell on other backgrounds.

    Args:
        metrics: The run's ``metrics.csv``; there may be none.
    """
    if not metrics.is_file():
        return []
    history = pd.read_csv(metrics)
    if _FLAG not in history:
        return []
    return [int(epoch) for epoch in history.loc[history[_FLAG] == 1, "epoch"]]
