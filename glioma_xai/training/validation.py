"""What an epoch's validation is judged by, gathered over batches and processes."""

from collections.abc import Mapping
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glioma_xai.losses import guided_samples
from glioma_xai.metrics.classification import ClassificationScores
from glioma_xai.metrics.functional.behaviour import fairwashing
from glioma_xai.metrics.relevance import RelevanceScores, SampleMean
from glioma_xai.records import Batch
from glioma_xai.training.sampling import exchanged
from glioma_xai.training.selection import guided_score

_KEY = 2**31 - 1  # donors of the validation images
_JUDGED = ("accuracy", "exchanged_other_class_accuracy", "absolute_relevance_mass")
OF_EXCHANGE = {
    "exchanged_accuracy",
    "exchanged_balanced_accuracy",
    "exchanged_auc",
    "exchanged_patient/accuracy",
    "exchanged_patient/auc",
    "exchanged_other_class_accuracy",
    "guided_score",
    "fairwashing",
}
"""Scores that need images whose backgrounds can be exchanged, and are left out without them."""
OF_MASKS = {
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "focus_score",
    "pointing_game",
    "loss_guidance",
    "loss_total",
}
"""Scores that say nothing without masks."""
LOGGED = {
    *OF_EXCHANGE,
    *OF_MASKS,
    "largest_predicted_share",
    "relevance_magnitude",
    "loss",
    *(f"{prefix}{score}" for prefix in ("", "patient/") for score in ("accuracy", "auc")),
    "balanced_accuracy",
}
"""Scores that go into ``metrics.csv`` and to the loggers, without ``validation/``."""


class Copies(NamedTuple):
    """Images of a batch on other backgrounds.

    Args:
        made: Which images have a copy, (B,), bool.
        logits: Of the copies, (B, classes).
    """

    made: Tensor
    logits: Tensor


@torch.no_grad()
def on_backgrounds(
    model: nn.Module, batch: Batch, *, seed: int, other_class: bool = False
) -> Copies:
    """What a network says of a batch's images on other backgrounds.

    Args:
        model: In evaluation mode.
        batch: B samples.
        seed: Of the run; donors are the same in every epoch.
        other_class: Backgrounds come from patients of another class.
    """
    copies = exchanged(batch, key=(seed, _KEY), other_class=other_class)
    return Copies(copies.ne(batch["image"]).flatten(1).any(dim=1), model(copies))


class ValidationScores(nn.Module):
    """Scores of the images as they are, of their exchanged copies, and of relevance."""

    def __init__(self) -> None:
        super().__init__()
        self.as_they_are = ClassificationScores()
        self.exchanged = ClassificationScores()
        self.of_other_class = ClassificationScores()
        self.relevance = RelevanceScores()
        self.guidance = SampleMean()

    def update(
        self,
        batch: Batch,
        *,
        logits: Tensor,
        exchanged: Copies,
        of_other_class: Copies,
        relevance: Tensor,
        guidance: Tensor | None,
    ) -> None:
        """Add a batch.

        Args:
            batch: B samples.
            logits: Of the images, (B, classes).
            exchanged: On backgrounds of other patients.
            of_other_class: On backgrounds of patients of another class.
            relevance: At the input, (B, C, *spatial).
            guidance: Guidance loss of each sample, (B,), if it is measured.
        """
        keys = (batch["label"], batch["patient_id"], batch["index"])
        mask = batch["lesion_mask"]
        self.as_they_are.update(logits, *keys)
        for scores, copies in (
            (self.exchanged, exchanged),
            (self.of_other_class, of_other_class),
        ):
            patients = list(compress(batch["patient_id"], copies.made.tolist()))
            fields = (batch["label"][copies.made], patients, batch["index"][copies.made])
            scores.update(copies.logits[copies.made], *fields)
        self.relevance.update(relevance, mask, batch["brain_mask"], index=batch["index"])
        if guidance is not None:
            known = guidance.where(guided_samples(mask), torch.nan)
            self.guidance.update(known, index=batch["index"])

    def compute(self) -> Mapping[str, float]:
        """Every score by name, and start anew; without copies none of :data:`OF_EXCHANGE`."""
        values = {name: float(v) for name, v in self.as_they_are.compute().items()}
        values["loss"] = values["cross_entropy"]
        exchanged = self.exchanged.compute()
        values |= {f"exchanged_{name}": float(v) for name, v in exchanged.items()}
        values |= {name: float(v) for name, v in self.relevance.compute().items()}
        if exchanged:
            values["guided_score"] = guided_score(values)
        of_other_class = self.of_other_class.compute()
        if of_other_class:
            values["exchanged_other_class_accuracy"] = float(of_other_class["accuracy"])
            values["fairwashing"] = float(fairwashing(*(values[name] for name in _JUDGED)))
        if self.guidance.indices:
            values["loss_guidance"] = float(self.guidance.compute())
        for metric in self.children():
            metric.reset()  # type: ignore[operator]
        return values
