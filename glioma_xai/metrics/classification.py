"""Classification scores of slices and patients, gathered over batches and processes."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import nll_loss
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from glioma_xai.errors import ShapeError
from glioma_xai.metrics.functional.classification import classification_scores
from glioma_xai.metrics.functional.decisions import aggregate_by_patient, predict


class ClassificationScores(Metric):
    """Scores of the slices, and as ``patient/<score>`` those of the patients' mean probabilities.

    Each sample counts once, whatever a distributed sampler repeats: samples are told apart by their
    index in the split's table. For volumes, one row a patient, both levels agree.

    Args:
        threshold: Of the second of two classes.
        bins: Of the expected calibration error.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    log_probabilities: list[Tensor]
    labels: list[Tensor]
    patients: list[Tensor]
    indices: list[Tensor]

    def __init__(self, *, threshold: float = 0.5, bins: int = 15) -> None:
        super().__init__()
        self.threshold = threshold
        self.bins = bins
        for name in ("log_probabilities", "labels", "patients", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, logits: Tensor, labels: Tensor, patient_id: Sequence[str], index: Tensor
    ) -> None:
        """Add a batch.

        Args:
            logits: (B, K), before softmax.
            labels: Class index, (B,), int64.
            patient_id: Of each sample, B long.
            index: Position in the split's table, (B,), int64.

        Raises:
            ShapeError: If the arguments differ in length.
        """
        lengths = (len(logits), len(labels), len(patient_id), len(index))
        if len(set(lengths)) != 1:
            raise ShapeError(
                "logits, labels, patient_id and index must have one row a sample: expected "
                f"{lengths[0]} rows each, got {lengths}. Pass the fields of one batch."
            )
        keys = [_patient_key(name) for name in patient_id]
        self.log_probabilities.append(logits.detach().double().log_softmax(dim=1))
        self.labels.append(labels)
        self.patients.append(torch.tensor(keys, dtype=torch.int64, device=logits.device))
        self.indices.append(index)

    def compute(self) -> dict[str, float]:
        """Scores of both levels; NaN where a class is absent, none at all without samples.

        Of the slices also ``cross_entropy``, ``largest_predicted_share``, the share that is
        predicted as the class predicted most, and ``informedness``, balanced accuracy scaled so
        that guessing is 0 and being right 1 (Youden's J for two classes).
        """
        order = first_of_each(dim_zero_cat(self.indices).cpu())
        if not len(order):
            return {}
        rows = dim_zero_cat(self.log_probabilities).cpu()[order]
        probabilities = rows.exp().numpy()
        label = dim_zero_cat(self.labels).cpu()[order]
        labels = label.numpy()
        patients = [str(key) for key in dim_zero_cat(self.patients).cpu()[order].tolist()]
        grouped = aggregate_by_patient(probabilities, labels, patients)
        slices = classification_scores(
            probabilities, labels, threshold=self.threshold, bins=self.bins
        )
        whole = classification_scores(
            grouped.probabilities, grouped.labels, threshold=self.threshold, bins=self.bins
        )
        predicted = predict(probabilities, threshold=self.threshold)
        chance = 1 / probabilities.shape[1]
        slices["informedness"] = (slices["balanced_accuracy"] - chance) / (1 - chance)
        slices["cross_entropy"] = float(nll_loss(rows, label))
        slices["largest_predicted_share"] = float(np.bincount(predicted).max() / len(predicted))
        return slices | {f"patient/{name}": score for name, score in whole.items()}


def _patient_key(patient_id: str) -> int:
    """A number for a name, the same in every process; names cannot travel between processes."""
    digest = blake2b(patient_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def first_of_each(indices: Tensor) -> Tensor:
    """Positions that put the indices in order, each index once."""
    order = indices.argsort(stable=True)
    ranked = indices[order]
    new = torch.ones_like(ranked, dtype=torch.bool)
    new[1:] = ranked[1:] != ranked[:-1]
    return order[new]
