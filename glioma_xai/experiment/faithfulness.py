"""Does a run's relevance show what its network uses? Two tests that ask the network.

Regions are taken away in the order of their relevance, and the explained score must fall faster
than in a random order. And weights are shuffled layer by layer, and the relevance must change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from glioma_xai.attribution import compute_relevance
from glioma_xai.attribution.targets import target_coefficients
from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import collect, one_of_each_patient
from glioma_xai.experiment.conditions import Backgrounds
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.experiment.scores import Fields
from glioma_xai.metrics.functional.faithfulness import (
    Order,
    area_between,
    blurred,
    cut_regions,
    mean_tissue,
    patch_regions,
    perturbation_curve,
)
from glioma_xai.metrics.functional.intervals import Array, bootstrap_interval
from glioma_xai.metrics.functional.randomization import weight_randomization
from glioma_xai.records import Batch, Split
from glioma_xai.training.module import GuidedClassifier

MOST_SAMPLES = 32
MOST_LAYERS = 12
_PATCHES = 12  # along the shortest side of the image
_CELLS = 4  # the same for regions, which are cut along the borders of tumour and brain
_STEPS = 12
_BLUR = 0.1  # standard deviation, of the image's shortest side


@dataclass(frozen=True)
class Faithfulness:
    """Results on a bounded number of patients, one sample each.

    Args:
        areas: What is replaced, and by what, to ``most_first`` and ``least_first``: mean area
            between the curve of a random order and that order's, in units of the explained score;
            positive for most first and negative for least first where relevance is faithful.
        curves: The same to order to the mean explained score by removed share, (steps + 1,).
        similarity: Layer, from the output to the input, to the rank correlation of relevance with
            that of the network whose weights are shuffled from the output to there.
        samples: Patients, one sample each.
    """

    areas: dict[str, dict[str, Fields]]
    curves: dict[str, dict[str, list[float]]]
    similarity: dict[str, Fields]
    samples: int


def measure_faithfulness(
    module: GuidedClassifier, data: GliomaDataModule, *, split: Split, resamples: int, seed: int
) -> Faithfulness:
    """Perturb images and shuffle weights, for at most 32 patients of a split.

    Args:
        module: In ``eval()`` mode.
        data: Set up.
        split: Whose patients.
        resamples: Draws of the bootstrap by patient.
        seed: Of random orders, shuffled weights and bootstrap.
    """
    generator = torch.Generator().manual_seed(seed)
    curves: dict[str, dict[str, list[Tensor]]] = {}
    similar: dict[str, list[Tensor]] = {}
    patients: list[str] = []
    donors = Backgrounds(data, split, seed=seed)
    for batch in _batches(data, split):
        patients += batch["patient_id"]
        fills = _fills(batch, donors.give(batch))
        for setting, orders in _curves(module, batch, fills, generator).items():
            for order, curve in orders.items():
                curves.setdefault(setting, {}).setdefault(order, []).append(curve)
        for layer, values in _shuffled(module, batch, seed).items():
            similar.setdefault(layer, []).append(values)
    mean = partial(_mean, patients=patients, resamples=resamples, seed=seed)
    joined = {s: {o: torch.cat(parts) for o, parts in c.items()} for s, c in curves.items()}
    return Faithfulness(
        areas={
            setting: {
                f"{order}_first": mean(area_between(orders["random"], orders[order]))
                for order in ("most", "least")
            }
            for setting, orders in joined.items()
        },
        curves={
            setting: {order: curve.mean(dim=0).tolist() for order, curve in orders.items()}
            for setting, orders in joined.items()
        },
        similarity={layer: mean(torch.cat(parts)) for layer, parts in similar.items()},
        samples=len(patients),
    )


def _batches(data: GliomaDataModule, split: Split) -> Iterator[Batch]:
    positions = one_of_each_patient(data, split, most=MOST_SAMPLES)
    for start in range(0, len(positions), data.batch_size):
        yield collect(data, split, positions[start : start + data.batch_size])


def _fills(batch: Batch, donor: Batch) -> dict[str, Tensor]:
    """Name to what takes the place of a region, (B, C, *spatial); air stays air.

    Another patient's tissue is healthy: where the donor has tumour or no brain, it is the donor's
    mean.
    """
    images, air = batch["image"], batch["brain_mask"] <= 0.5
    mean = mean_tissue(images, batch["brain_mask"], batch["lesion_mask"])
    healthy = (donor["brain_mask"] > 0.5) & ~(donor["lesion_mask"] > 0.5)
    everywhere = torch.ones_like(donor["brain_mask"])
    tumour = torch.where(healthy, 0.0, 1.0)
    given = torch.where(healthy, donor["image"], mean_tissue(donor["image"], everywhere, tumour))
    return {
        "mean tissue": mean.masked_fill(air, 0.0),
        "blurred": blurred(images, sigma=_BLUR * min(images.shape[2:])),
        "another patient": given.masked_fill(air, 0.0),
    }


def _regions(batch: Batch) -> dict[str, Tensor]:
    """Name to the region of each pixel, (1 or B, 1, *spatial)."""
    shape = tuple(batch["image"].shape[2:])
    fine, coarse = (
        patch_regions(shape, max(1, min(shape) // count)) for count in (_PATCHES, _CELLS)
    )
    tumour, brain = batch["lesion_mask"] > 0.5, batch["brain_mask"] > 0.5
    return {"patches": fine, "regions": cut_regions(coarse, brain, tumour)}


def _curves(
    module: GuidedClassifier,
    batch: Batch,
    fills: Mapping[str, Tensor],
    generator: torch.Generator,
) -> dict[str, dict[str, Tensor]]:
    """What is replaced, and by what, to order to curve, (B, steps + 1)."""
    images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
    attribution = attribution_at_input(module)
    logits, relevance = attribution.measure(module.model, images, labels)
    target = attribution.measured_target(labels)
    weights = target_coefficients(logits, target, labels=labels)

    def explained(changed: Tensor) -> Tensor:
        score: Tensor = (module.model(changed) * weights).sum(dim=1)
        return score

    return {
        f"{what}, {name}": {
            order: perturbation_curve(
                explained,
                images,
                relevance,
                fill=fill.to(images),
                regions=regions.to(images.device),
                order=order,
                steps=min(_STEPS, int(regions.max()) + 1),
                generator=generator,
            ).cpu()
            for order in get_args(Order)
        }
        for what, regions in _regions(batch).items()
        for name, fill in fills.items()
    }


def _shuffled(module: GuidedClassifier, batch: Batch, seed: int) -> dict[str, Tensor]:
    """Layer to similarity, (B,); the same shuffled weights for every batch."""
    images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
    attribution = replace(module.attribution, layer=None)  # composites are kept by network: anew
    logits, _ = attribution.measure(module.model, images, labels)
    target = target_coefficients(logits, attribution.measured_target(labels), labels=labels)

    def explain(model: nn.Module) -> Tensor:
        composite = attribution.composite_for(model, tuple(images.shape[1:]))
        return compute_relevance(model, images, composite, target=target)[1].cpu()

    return weight_randomization(
        module.model, explain, generator=torch.Generator().manual_seed(seed), most=MOST_LAYERS
    )


def _mean(values: Tensor, *, patients: Sequence[str], resamples: int, seed: int) -> Fields:
    """Mean over the samples that define it, bootstrapped by patient."""
    numbers = values.double().numpy()
    known = ~np.isnan(numbers)

    def score(weights: Array) -> Array:
        return np.asarray(weights @ numbers[known] / weights.sum(axis=1))

    owners = np.asarray(patients)[known]
    interval = bootstrap_interval(score, owners, resamples=resamples, seed=seed)
    return asdict(interval)
