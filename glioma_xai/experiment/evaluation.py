"""A trained network on the samples of a split: one row a sample, one row a patient."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glioma_xai.experiment.conditions import Change
from glioma_xai.experiment.parts import FOCUS_ON, SHARE_ON
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
TUMOUR = "tumour_pixels"
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
PartScores = Callable[[Batch, Tensor], dict[str, Tensor]]
"""A batch and its relevance, (B, C, *spatial), to scores of the parts of the tumour, (B,) each."""


def predict_table(
    module: GuidedClassifier,
    loader: Iterable[Batch],
    *,
    classes: Sequence[str],
    change: Change | None = None,
    relevance: bool = True,
    iou_threshold: float = math.nan,
    parts: PartScores | None = None,
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
        parts: Scores the relevance on each part of the tumour; None leaves them out.
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
                module, attribution, seen, batch, iou_threshold=iou_threshold, parts=parts
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
    parts: PartScores | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and scores of the relevance of the label and of that of the predicted class.

    The relevance of the label knows the answer: where the prediction is wrong it looks otherwise.
    What judges a prediction must be of the predicted class, computed anew where it is another.
    """
    labels = batch["label"].to(module.device)
    logits, maps = attribution.measure(module.model, images, labels)
    locate = partial(
        localization_scores, lesion_mask=batch["lesion_mask"], brain_mask=batch["brain_mask"]
    )

    def score(relevance: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return locate(relevance), {} if parts is None else parts(batch, relevance)

    of_image, of_parts = score(maps.cpu())
    scores = of_image | of_parts
    if not math.isnan(iou_threshold):
        scores["intersection_over_union"] = intersection_over_union(
            maps.cpu(), batch["lesion_mask"], threshold=iou_threshold
        )
    guesses = logits.argmax(dim=1)
    wrong = (guesses != labels).nonzero()[:, 0]
    if len(wrong) and bool((labels >= 0).all()):
        _, again = attribution.measure(module.model, images[wrong], guesses[wrong])
        maps[wrong] = again
        of_image, of_parts = score(maps.cpu())
    judged = {name: of_image[name] for name in _JUDGED} | of_parts
    return logits, scores | {f"{OF_PREDICTION}{name}": judged[name] for name in judged}


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
            TUMOUR: _tumour_pixels(batch["lesion_mask"]),
        }
    )
    for position, name in enumerate(classes):
        frame[f"probability_{name}"] = probabilities[:, position]
    frame["prediction"] = predict(probabilities)
    known = [name for name in RELEVANCE_SCORES if name in scores]
    for name in (*known, *(name for name in scores if name not in known)):
        frame[name] = scores[name].numpy()
    return frame


def _tumour_pixels(lesion_mask: Tensor) -> Array:
    """Size of each sample's tumour; NaN where it has no mask."""
    pixels = (lesion_mask > 0.5).flatten(1).sum(dim=1).double()
    unknown = lesion_mask.isnan().flatten(1).all(dim=1)
    return np.asarray(pixels.masked_fill(unknown, torch.nan).numpy())


def relevance_scores_in(table: pd.DataFrame) -> list[str]:
    """Columns with scores of the relevance that the run explains, those of parts last."""
    parts = [str(name) for name in table if str(name).startswith((SHARE_ON, FOCUS_ON))]
    return [name for name in RELEVANCE_SCORES if name in table] + parts


def prediction_scores_in(table: pd.DataFrame) -> list[str]:
    """Columns with scores of the relevance of the predicted class."""
    return [str(name) for name in table if str(name).startswith(OF_PREDICTION)]


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
    size = [TUMOUR] if TUMOUR in table else []
    for name in (*size, *relevance_scores_in(table), *prediction_scores_in(table)):
        frame[name] = table.groupby("patient")[name].mean().loc[frame["patient"]].to_numpy()
    return frame
