"""Images with another patient's background.

What is touched: a pixel changes only if it is *known* to lie outside the sample's own lesion. The
lesion stays, and so does an unknown (NaN) pixel. Of a donor only pixels known to lie outside the
donor's lesion are taken; where the donor has its lesion, or is unknown, the image itself stays. A
sample that is not guided (no mask, or no lesion) is returned as it is; a donor without a lesion is
welcome, one without a mask gives nothing.

Randomness is a function of ``key`` and of each sample's ``index`` alone, so it depends neither on
the order of the batch, nor on the number of workers, nor on whether a run was resumed. Only the
donor depends on who else is in the batch; fix ``donors`` to avoid that.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from glioma_xai.errors import ShapeError
from glioma_xai.losses.regions import check_mask, guided_samples


class Stream(IntEnum):
    """What a sample's random numbers are for; streams are independent of each other."""

    FACTOR = 0
    DONOR = 1
    NOISE = 2
    CHANGE = 3


def sample_generators(
    index: Tensor, key: Sequence[int], stream: Stream
) -> list[np.random.Generator]:
    """Return one generator for each sample, a function of key, index and stream.

    Args:
        index: Each sample's position in its split, (B,) int64.
        key: Seed, epoch and the like, non-negative.
        stream: What the numbers are for.
    """
    return [np.random.default_rng([*key, sample, stream]) for sample in index.tolist()]


def changeable_pixels(images: Tensor, lesion_mask: Tensor) -> Tensor:
    """Tell which pixels are known to lie outside the lesion of a guided sample.

    Args:
        images: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B, 1, H, W[, D]) bool.

    Raises:
        ShapeError: If images and masks do not fit.
    """
    check_mask(images, lesion_mask, name="lesion_mask", against="images")
    guided = guided_samples(lesion_mask).view(-1, *[1] * (images.ndim - 1))
    return guided & (lesion_mask == 0)


def draw_donors(
    lesion_mask: Tensor,
    *,
    index: Tensor,
    key: Sequence[int],
    patient_id: Sequence[str] | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Choose for each sample another one of the batch, whose background it may receive.

    Args:
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        index: Each sample's key for randomness, (B,) int64.
        key: Seed, epoch and the like, non-negative.
        patient_id: B names; a donor is never of the same patient. None takes every sample for a
            patient of its own.
        labels: (B,) int64; if given, a donor has another label (background exchanged between
            classes).

    Returns:
        Positions in the batch, (B,) int64. A sample without a possible donor (batch of one, nobody
        else with a mask, nobody of another class) gets its own position, which leaves it as it is.

    Raises:
        ShapeError: If index, patients or labels do not have one entry for each sample.
    """
    batch = lesion_mask.shape[0]
    lengths = {"index": len(index)}
    lengths |= {} if patient_id is None else {"patient_id": len(patient_id)}
    lengths |= {} if labels is None else {"labels": len(labels)}
    for name, length in lengths.items():
        if length != batch:
            raise ShapeError(
                f"{name} must have one entry for each sample: expected {batch}, got {length}. "
                "Pass the entries of the same batch."
            )
    patients = list(range(batch)) if patient_id is None else list(patient_id)
    classes = None if labels is None else labels.tolist()
    usable = (lesion_mask == 0).flatten(1).any(dim=1).tolist()
    by_index = sorted(range(batch), key=index.tolist().__getitem__)
    donors = []
    for position, generator in enumerate(sample_generators(index, key, Stream.DONOR)):
        candidates = [
            other
            for other in by_index
            if usable[other]
            and patients[other] != patients[position]
            and (classes is None or classes[other] != classes[position])
        ]
        chosen = int(generator.random() * len(candidates))
        donors.append(candidates[chosen] if candidates else position)
    return torch.tensor(donors, dtype=torch.int64, device=lesion_mask.device)


def paste_background(
    images: Tensor, lesion_mask: Tensor, donor_images: Tensor, donor_mask: Tensor
) -> Tensor:
    """Replace each image's background by a donor's.

    Args:
        images: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        donor_images: One donor for each image, (B, C, H, W[, D]).
        donor_mask: Lesion masks of the donors, (B, 1, H, W[, D]).

    Returns:
        (B, C, H, W[, D]); samples that are not guided as they are.

    Raises:
        ShapeError: If images, donors and masks do not fit.
    """
    if donor_images.shape != images.shape:
        raise ShapeError(
            f"donor_images must match images: expected {tuple(images.shape)}, "
            f"got {tuple(donor_images.shape)}. Take donors from the same data pipeline."
        )
    check_mask(donor_images, donor_mask, name="donor_mask", against="donor_images")
    taken = changeable_pixels(images, lesion_mask) & (donor_mask == 0)  # B 1 H W [D]
    return torch.where(taken, donor_images, images)


def exchange_background(images: Tensor, lesion_mask: Tensor, *, donors: Tensor) -> Tensor:
    """Replace each sample's background by that of another sample of the batch.

    Used as augmentation, as warm start, as the partner of the consistency loss and as validation
    that needs no knowledge of the shortcut.

    Args:
        images: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        donors: Positions in the batch, (B,) int64, see :func:`draw_donors`.

    Returns:
        (B, C, H, W[, D]); samples that are not guided, and those that are their own donor, as they
        are.

    Raises:
        ShapeError: If images, masks and donors do not fit.
    """
    if donors.shape != (images.shape[0],):
        raise ShapeError(
            f"donors must have one position for each sample: expected ({images.shape[0]},), "
            f"got {tuple(donors.shape)}. Draw them with draw_donors from the same batch."
        )
    return paste_background(images, lesion_mask, images[donors], lesion_mask[donors])
