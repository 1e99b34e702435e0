"""A trained network on the samples of a split: one row a sample, then scores with intervals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glioma_xai.losses.backgrounds import draw_donors, exchange_background
from glioma_xai.metrics.functional.classification import classification_intervals
from glioma_xai.metrics.functional.decisions import aggregate_by_patient, predict
from glioma_xai.metrics.functional.intervals import Array, bootstrap_interval
from glioma_xai.metrics.functional.localization import localization_scores
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

RELEVANCE_SCORES = (
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "relevance_rank_accuracy",
    "focus_score",
    "pointing_game",
    "negative_share",
    "outside_brain",
    "lesion_share",
)
_EXCHANGE_KEY = 2**31 - 2  # donors of evaluation, another draw than in validation

Change = Callable[[Batch], Tensor]


def background_of_others(batch: Batch, *, seed: int, other_class: bool) -> Tensor:
    """Images on the backgrounds of other patients of the batch, (B, C, *spatial).

    Args:
        batch: From an evaluation loader.
        seed: The run's seed.
        other_class: Donors have another label than the image; else any other patient.
    """
    donors = draw_donors(
        batch["lesion_mask"],
        index=batch["index"],
        key=(seed, _EXCHANGE_KEY),
        patient_id=batch["patient_id"],
        labels=batch["label"] if other_class else None,
    )
    return exchange_background(batch["image"], batch["lesion_mask"], donors=donors)


def predict_table(
    module: GuidedClassifier,
    loader: Iterable[Batch],
    *,
    classes: Sequence[str],
    change: Change | None = None,
    relevance: bool = True,
) -> pd.DataFrame:
    """One row a sample: who it is, probability of each class, prediction, relevance scores.

    Args:
        module: In evaluation the network is in ``eval()`` mode.
        loader: Batches in the table's order.
        classes: Names, in the order of the logits.
        change: Turns a batch into the images that the network sees; None leaves them.
        relevance: Measure relevance too, as configured for the run.
    """
    module.eval()
    rows: list[pd.DataFrame] = []
    for batch in loader:
        images = batch["image"] if change is None else change(batch)
        images = images.to(module.device)
        scores: dict[str, Tensor] = {}
        if relevance:
            labels = batch["label"].to(module.device)
            logits, maps = module.attribution.measure(module.model, images, labels)
            scores = localization_scores(
                maps.cpu(), batch["lesion_mask"], brain_mask=batch["brain_mask"]
            )
        else:
            with torch.no_grad():
                logits = module.model(images)
        rows.append(_rows(batch, logits.cpu(), scores, classes))
    return pd.concat(rows, ignore_index=True)


def _rows(
    batch: Batch, logits: Tensor, scores: dict[str, Tensor], classes: Sequence[str]
) -> pd.DataFrame:
    probabilities = logits.double().softmax(dim=1).numpy()
    frame = pd.DataFrame(
        {
            "patient": batch["patient_id"],
            "subject": batch["subject_id"],
            "slice": batch["slice_index"].numpy(),
            "site": batch["site"],
            "label": batch["label"].numpy(),
        }
    )
    for position, name in enumerate(classes):
        frame[f"probability_{name}"] = probabilities[:, position]
    frame["prediction"] = predict(probabilities)
    for name in RELEVANCE_SCORES:
        if name in scores:
            frame[name] = scores[name].numpy()
    return frame


def probabilities_of(table: pd.DataFrame, classes: Sequence[str]) -> Array:
    """Probabilities of a table, (N, classes)."""
    return table[[f"probability_{name}" for name in classes]].to_numpy(dtype=np.float64)


def patient_table(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row a patient: means over the slices, and the class of the mean probability."""
    grouped = aggregate_by_patient(
        probabilities_of(table, classes), table["label"].to_numpy(), list(table["patient"])
    )
    frame = pd.DataFrame({"patient": grouped.patients, "label": grouped.labels})
    frame["site"] = table.groupby("patient")["site"].first().loc[frame["patient"]].to_numpy()
    for position, name in enumerate(classes):
        frame[f"probability_{name}"] = grouped.probabilities[:, position]
    frame["prediction"] = predict(grouped.probabilities)
    for name in (n for n in RELEVANCE_SCORES if n in table):
        frame[name] = table.groupby("patient")[name].mean().loc[frame["patient"]].to_numpy()
    return frame


def score_table(
    table: pd.DataFrame, *, classes: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, object]]]:
    """Scores with confidence intervals at both levels.

    Returns:
        ``slice`` and ``patient`` to score name to the fields of an ``Interval``.
    """
    levels = {"slice": table, "patient": patient_table(table, classes)}
    return {
        level: {
            name: asdict(interval)
            for name, interval in classification_intervals(
                probabilities_of(rows, classes),
                rows["label"].to_numpy(),
                list(rows["patient"]),
                resamples=resamples,
                seed=seed,
            ).items()
        }
        for level, rows in levels.items()
    }


def score_relevance(
    table: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, dict[str, object]]:
    """Mean of each relevance score over the samples that define it, bootstrapped by patient."""
    results: dict[str, dict[str, object]] = {}
    for name in (n for n in RELEVANCE_SCORES if n in table):
        values = table[name].to_numpy(dtype=np.float64)
        defined = ~np.isnan(values)
        interval = bootstrap_interval(
            partial(_weighted_mean, values[defined]),
            list(table["patient"][defined]),
            resamples=resamples,
            seed=seed,
        )
        counts = {"defined": int(defined.sum()), "undefined_samples": int((~defined).sum())}
        results[name] = asdict(interval) | counts
    return results


def _weighted_mean(values: Array, weights: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return cast("Array", weights @ values / weights.sum(axis=1))
