"""Training patients whom a network finds like a case, and which parts of the images make it so.

Patients are compared by the cosine of their hidden features; BiLRP tells which region of one image
goes together with which region of the other. What the network finds alike need not be alike: links
between two corners, or between air and air, show that it looks at something else than the tumour.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from glioma_xai.attribution import LiveComposite
from glioma_xai.attribution.bilrp import (
    HiddenFeatures,
    largest_products,
    link_regions,
    region_factors,
    similarity_map,
)
from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import ConfigError
from glioma_xai.experiment.cases import collect, one_of_each_patient
from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.metrics.functional.faithfulness import patch_regions
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

PARTS = ("tumour", "brain", "outside")
"""Parts of an image that links are summed over, besides patches; brain is that without tumour."""
MOST_FEATURES = 32
_PATCHES = 12  # along the shorter side of a slice
_GRADIENTS = ("gradient", "guided_backprop")  # no relevance: their maps do not sum to a feature


@dataclass(frozen=True)
class Neighbour:
    """A training patient, compared with the case.

    Args:
        batch: The patient's sample, a batch of one.
        cosine: Of the hidden features.
        probabilities: Of each class.
        links: Relevance of every pair of patches for the cosine, (patches, patches).
        parts: The same for pairs of ``PARTS``, (3, 3).
        of_case: What in the case makes it like the patient, (C, *spatial), in units of the cosine.
        of_patient: What in the patient does, (C, *spatial).
        share: Of the cosine, on the features that were looked at.
    """

    batch: Batch
    cosine: float
    probabilities: Tensor
    links: Tensor
    parts: Tensor
    of_case: Tensor
    of_patient: Tensor
    share: float


@dataclass(frozen=True)
class Similar:
    """A case and the training patients that are most like it.

    Args:
        batch: The case's sample, a batch of one.
        layer: Where features are read, in words.
        features: Number of features, and how many were looked at.
        patients: Training patients that were compared.
        composite: Rules of the relevance.
        neighbours: The most similar first.
    """

    batch: Batch
    layer: str
    features: tuple[int, int]
    patients: int
    composite: str
    neighbours: Sequence[Neighbour]


def find_similar(
    module: GuidedClassifier,
    training: GliomaDataModule,
    batch: Batch,
    *,
    count: int,
    layer: str | None = None,
) -> Similar:
    """Compare a case with one sample of each training patient: that with the largest tumour.

    Args:
        module: In ``eval()`` mode.
        training: The run's own data, set up; the case's own patient is passed over.
        batch: The case's sample, a batch of one.
        count: Patients to find.
        layer: Whose output the features are; None for what the last layer reads.

    Raises:
        ConfigError: If the count is out of range, or the model has no such layer.
    """
    image = batch["image"][0].to(module.device)
    reader = HiddenFeatures(module.model, input_shape=tuple(image.shape), layer=layer)
    positions = _others(training, batch["patient_id"][0])
    if not 1 <= count <= len(positions):
        raise ConfigError(
            f"similar: expected 1 to {len(positions)}, the number of other training patients, "
            f"found {count}. Change similar."
        )
    of_case = _read(reader, image[None])[0]
    known = torch.cat(
        [
            _read(reader, collect(training, "train", part)["image"].to(image))
            for part in _chunks(positions, training.batch_size)
        ]
    )
    cosines = cosine_similarity(of_case[None], known, dim=1)
    nearest = cosines.argsort(descending=True, stable=True)[:count]
    coefficients = largest_products(of_case, known[nearest], most=MOST_FEATURES)
    composite = _composite(module, reader, tuple(image.shape))
    compare = _Comparison(module, reader, composite, coefficients, batch)
    return Similar(
        batch=batch,
        layer=f"{'input' if reader.reads_input else 'output'} of {reader.layer}",
        features=(len(of_case), len(coefficients)),
        patients=len(positions),
        composite=composite.name,
        neighbours=[compare(collect(training, "train", [positions[i]])) for i in nearest.tolist()],
    )


def _others(training: GliomaDataModule, patient: str) -> list[int]:
    rows = training.cohort.rows("train").reset_index(drop=True)
    found = one_of_each_patient(training, "train", most=len(rows))
    return [position for position in found if rows.loc[position, "patient_id"] != patient]


def _chunks(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def _read(reader: HiddenFeatures, images: Tensor) -> Tensor:
    with torch.no_grad():
        features: Tensor = reader(images)
    return features


def _composite(
    module: GuidedClassifier, reader: HiddenFeatures, shape: tuple[int, ...]
) -> LiveComposite:
    """The run's own rules; gradient times input for a run that is explained by its gradient."""
    own = replace(attribution_at_input(module))  # composites are kept by network: anew
    if own.composite in _GRADIENTS:
        own = replace(own, composite="gradient_times_input", options={})
    return own.composite_for(reader, shape)


class _Comparison:
    """One case against patients; its own factors are computed once."""

    def __init__(
        self,
        module: GuidedClassifier,
        reader: HiddenFeatures,
        composite: LiveComposite,
        coefficients: Tensor,
        batch: Batch,
    ) -> None:
        self.module, self.reader = module, reader
        self.composite, self.coefficients = composite, coefficients
        self.image = batch["image"][0].to(module.device)
        self.features = _read(reader, self.image[None])[0]
        self.factors = self._factors(batch)

    def __call__(self, batch: Batch) -> Neighbour:
        image = batch["image"][0].to(self.image)
        other = _read(self.reader, image[None])[0]
        scale = float(self.features.norm() * other.norm()) or 1.0  # 0: no feature is active
        theirs = self._factors(batch)
        pairs = link_regions(self.factors, theirs).cpu() / scale  # patch and part, both images
        patches = len(pairs) // len(PARTS)
        by_both = pairs.view(patches, len(PARTS), patches, len(PARTS))
        with torch.no_grad():
            probabilities = self.module.model(image[None])[0].double().softmax(dim=0).cpu()
        chosen = self.coefficients @ (self.features * other)
        return Neighbour(
            batch=batch,
            cosine=float(self.features @ other) / scale,
            probabilities=probabilities,
            links=by_both.sum(dim=(1, 3)),
            parts=by_both.sum(dim=(0, 2)),
            of_case=self._map(self.image, theirs) / scale,
            of_patient=self._map(image, self.factors) / scale,
            share=float(chosen.sum() / (self.features @ other)),
        )

    def _factors(self, batch: Batch) -> Tensor:
        """Relevance of each feature by patch and part, (K, patches * parts)."""
        image = batch["image"][0].to(self.module.device)
        patches = patches_of(tuple(image.shape[1:]))
        regions = patches * len(PARTS) + parts_of(batch)
        factors = region_factors(
            self.reader,
            image,
            self.composite,
            coefficients=self.coefficients,
            regions=regions.to(image.device),
        )
        missing = (int(patches.max()) + 1) * len(PARTS) - factors.shape[1]
        return pad(factors, (0, missing))

    def _map(self, image: Tensor, other: Tensor) -> Tensor:
        return similarity_map(
            self.reader, image, self.composite, coefficients=self.coefficients, other=other
        ).cpu()


def patch_size(shape: Sequence[int]) -> int:
    """Edge of a patch in pixels, for an image of this spatial shape."""
    return max(1, min(shape[:2]) // _PATCHES)


def patches_of(shape: tuple[int, ...]) -> Tensor:
    """Number of each pixel's patch, (*spatial); in a volume a patch goes through all slices."""
    flat = patch_regions(shape[:2], patch_size(shape))[0, 0]  # H W
    return flat.view(*flat.shape, *[1] * (len(shape) - 2)).expand(shape).contiguous()


def parts_of(batch: Batch) -> Tensor:
    """Position in ``PARTS`` of each pixel of a batch of one, (*spatial)."""
    outside = batch["brain_mask"][0, 0] <= 0.5
    tumour = batch["lesion_mask"][0, 0] > 0.5  # a NaN is no tumour
    return torch.where(tumour, 0, torch.where(outside, 2, 1))
