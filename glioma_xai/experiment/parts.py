"""Relevance on the parts of a tumour: necrosis, oedema, enhancing, ..., where masks tell them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.files import read_volume
from glioma_xai.metrics.functional.localization import focus_score
from glioma_xai.records import Batch

SHARE_ON, FOCUS_ON = "relevance_on_", "focus_score_"
"""Prefixes of scores of a part: its share of absolute relevance, its focus score."""
Labels = NDArray[np.float32]


def parts_of(data: GliomaDataModule) -> Mapping[str, int]:
    """Part of the tumour to its mask value; empty if the cohort's masks have but one value."""
    values = data.cohort.preparation.label_values
    return values if values is not None and len(set(values.values())) > 1 else {}


def native_labels(data: GliomaDataModule, subject: str) -> Labels | None:
    """Mask values on the subject's own grid, (X, Y, Z); None without a mask."""
    path = data.cohort.entry(subject).subject.lesion_mask
    return None if path is None else read_volume(path)[0][0]


def prepared_labels(data: GliomaDataModule, subject: str, slices: Sequence[int]) -> Labels | None:
    """Mask values on the samples of a subject, the nearest value of its own grid.

    Args:
        data: Set up.
        subject: Id.
        slices: Slice of each sample in the file's own numbering; of a volume, -1 or anything.

    Returns:
        (samples, H, W[, D]); None without a mask.
    """
    labels = native_labels(data, subject)
    if labels is None:
        return None
    geometry = data.cohort.entry(subject).geometry
    to_native = np.linalg.inv(np.array(geometry["native_affine"])) @ geometry["model_affine"]
    planar = bool(geometry["slices"])
    shape = (*geometry["sample_shape"], 1) if planar else tuple(geometry["sample_shape"])
    places = dict(zip(geometry["native_slices"], geometry["slices"], strict=True))
    jitter = geometry["jitter"]
    found = []
    for level in slices:
        first = np.array([jitter, jitter, places[level] if planar else jitter])
        offset = to_native[:3, :3] @ first + to_native[:3, 3]
        on_sample = ndimage.affine_transform(
            labels, to_native[:3, :3], offset=offset, output_shape=shape, order=0
        )
        found.append(on_sample[..., 0] if planar else on_sample)
    return np.stack(found)


def score_parts(data: GliomaDataModule, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
    """Share of absolute relevance and focus score of each part of the tumour, one value a sample.

    Args:
        data: Set up.
        batch: B samples.
        maps: Their relevance, (B, C, *spatial).

    Returns:
        ``relevance_on_<part>`` and ``focus_score_<part>`` to (B,), NaN where the sample has no such
        part or no mask; nothing if the cohort's masks do not tell parts.
    """
    parts = parts_of(data)
    if not parts:
        return {}
    labels = torch.full((len(maps), 1, *maps.shape[2:]), torch.nan)
    for subject in dict.fromkeys(batch["subject_id"]):
        rows = [i for i, name in enumerate(batch["subject_id"]) if name == subject]
        found = prepared_labels(data, subject, batch["slice_index"][rows].tolist())
        if found is not None:
            labels[rows, 0] = torch.from_numpy(found)
    mass = maps.abs().sum(dim=1, keepdim=True)  # B 1 H W [D]
    total = mass.flatten(1).sum(dim=1)
    scores: dict[str, Tensor] = {}
    for part, value in parts.items():
        inside = (labels == value).to(mass)
        share = (mass * inside).flatten(1).sum(dim=1) / total
        scores[f"{SHARE_ON}{part}"] = torch.where(_somewhere(inside), share, torch.nan)
        scores[f"{FOCUS_ON}{part}"] = focus_on_part(
            maps, inside > 0, labels > 0, batch["brain_mask"] > 0.5
        )
    return scores


def focus_on_part(maps: Tensor, part: Tensor, tumour: Tensor, brain: Tensor) -> Tensor:
    """Mean positive relevance in a part of the tumour against that in the brain beside the tumour.

    Args:
        maps: Signed relevance, (B, C, *spatial).
        part: The part, (B, 1, *spatial), bool.
        tumour: All of the tumour, whose other parts are not counted.
        brain: The brain.

    Returns:
        (B,) in [0, 1], 0.5 by chance; NaN where the sample has no such part.
    """
    mask = torch.where(tumour & ~part, torch.nan, part.to(maps.dtype))
    return focus_score(maps, mask, brain_mask=(brain | part).to(maps.dtype))


def shares_of_parts(
    mass: NDArray[np.float64], labels: Labels, values: Mapping[str, int]
) -> dict[str, float]:
    """Share of a mass on each part of a segmentation, and ``elsewhere``, summing to 1.

    Args:
        mass: Not negative, (X, Y, Z).
        labels: Mask values, (X, Y, Z).
        values: Part to its mask value.

    Returns:
        NaN shares if there is no mass.
    """
    total = mass.sum()
    shares = {part: mass[labels == value].sum() for part, value in values.items()}
    shares["elsewhere"] = total - sum(shares.values())
    return {part: float(share / total) if total else np.nan for part, share in shares.items()}


def _somewhere(inside: Tensor) -> Tensor:
    return inside.flatten(1).any(dim=1)
