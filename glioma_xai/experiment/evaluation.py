"""A trained network on the samples of a split: one row a sample, one row a patient."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glioma_xai.experiment.conditions import Change
from glioma_xai.metrics.functional.decisions import aggregate_by_patient, predict
from glioma_xai.metrics.functional.intervals import Array
from glioma_xai.metrics.functional.localization import localization_scores
from glioma_xai.metrics.functional.overlap import intersection_over_union
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Attribution
from glioma_xai.training.module import GuidedClassifier

RELEVANCE_SCORES = (
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "relevance_rank_accuracy",
    "focus_score",
    "pointing_game",
    "intersection_over_union",
    "negative_share",
    "outside_brain",
    "lesion_share",
)
OF_PREDICTION = "of_predicted_"
"""Prefix of scores of the relevance of the predicted class; they do not look at the label."""
_JUDGED = (
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "focus_score",
    "negative_share",
    "outside_brain",
)
PREDICTION_SCORES = tuple(f"{OF_PREDICTION}{name}" for name in _JUDGED)


def predict_table(
    module: GuidedClassifier,
    loader: Iterable[Batch],
    *,
    classes: Sequence[str],
    change: Change | None = None,
    relevance: bool = True,
    iou_threshold: float = math.nan,
) -> pd.DataFrame:
    """One row a sample: who it is, probability of each class, prediction, relevance scores.

    Args:
        module: In evaluation the network is in ``eval()`` mode.
        loader: Batches in the table's order.
        classes: Names, in the order of the logits.
        change: Turns a batch into the images that the network sees; a column ``changed`` then says
            which images it could change. None leaves them.
        relevance: Measure relevance at the input too, as configured for the run.
        iou_threshold: Share of a map's highest pixel from which on it is compared with the tumour;
            NaN leaves that score out.
    """
    module.eval()
    attribution = attribution_at_input(module)
    rows: list[pd.DataFrame] = []
    for batch in loader:
        images = batch["image"] if change is None else change(batch)
        seen = images.to(module.device)
        scores: dict[str, Tensor] = {}
        if relevance:
            logits, scores = _relevance_scores(
                module, attribution, seen, batch, iou_threshold=iou_threshold
            )
        else:
            with torch.no_grad():
                logits = module.model(seen)
        frame = _rows(batch, logits.cpu(), scores, classes)
        if change is not None:
            frame["changed"] = (images != batch["image"]).flatten(1).any(dim=1).numpy()
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


def attribution_at_input(module: GuidedClassifier) -> Attribution:
    """The run's attribution; one that reads an inner layer in training is read at the input."""
    if module.attribution.layer is None:
        return module.attribution
    return replace(module.attribution, layer=None)


def _relevance_scores(
    module: GuidedClassifier,
    attribution: Attribution,
    images: Tensor,
    batch: Batch,
    *,
    iou_threshold: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and scores of the relevance of the label and of that of the predicted class.

    The relevance of the label knows the answer: where the prediction is wrong it looks otherwise.
    What judges a prediction must be of the predicted class, computed anew where it is another.
    """
    labels = batch["label"].to(module.device)
    logits, maps = attribution.measure(module.model, images, labels)
    score = partial(
        localization_scores, lesion_mask=batch["lesion_mask"], brain_mask=batch["brain_mask"]
    )
    scores = score(maps.cpu())
    if not math.isnan(iou_threshold):
        scores["intersection_over_union"] = intersection_over_union(
            maps.cpu(), batch["lesion_mask"], threshold=iou_threshold
        )
    guesses = logits.argmax(dim=1)
    wrong = (guesses != labels).nonzero()[:, 0]
    if len(wrong) and bool((labels >= 0).all()):
        _, again = attribution.measure(module.model, images[wrong], guesses[wrong])
        maps[wrong] = again
    judged = score(maps.cpu()) if len(wrong) else scores
    return logits, scores | {f"{OF_PREDICTION}{name}": judged[name] for name in _JUDGED}


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
    for name in (*RELEVANCE_SCORES, *PREDICTION_SCORES):
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
    for name in (n for n in (*RELEVANCE_SCORES, *PREDICTION_SCORES) if n in table):
        frame[name] = table.groupby("patient")[name].mean().loc[frame["patient"]].to_numpy()
    return frame
