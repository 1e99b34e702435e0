"""What is done to the test images to learn what a network decides by.

Most conditions leave the tumour as it is: a network that decides by it keeps its accuracy. Two
take the tumour away: a network that decides by it falls to chance there. Donors of backgrounds come
from the whole split, so that the result does not depend on the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from glioma_xai.data import GliomaDataModule
from glioma_xai.losses import probes
from glioma_xai.losses.backgrounds import paste_background
from glioma_xai.metrics.functional.faithfulness import mean_tissue
from glioma_xai.records import Batch, Split

Change = Callable[[Batch], Tensor]
"""A batch to the images that the network sees instead, (B, C, *spatial)."""
DonorClass = Literal["any", "same", "other"]

_EXCHANGE_KEY = 2**31 - 2  # donors of evaluation, another draw than in validation
_NOISE_KEY = 2**31 - 3
_NOISE = 0.25  # standard deviation, in those of the brain's intensities


@dataclass(frozen=True)
class Condition:
    """One way to look at the test images.

    Args:
        name: Key in ``summary.json``.
        variant: Variant of the cohort that is loaded; None for the cohort itself.
        change: What is done to the images; None leaves them.
        spares_tumour: The tumour stays as it is, so that accuracy must stay too.
    """

    name: str
    variant: str | None = None
    change: Change | None = None
    spares_tumour: bool = True


def conditions_of(data: GliomaDataModule, split: Split, *, seed: int) -> list[Condition]:
    """Every condition that the cohort could allow, besides the images as they are.

    Args:
        data: Set up.
        split: Whose images, and whose patients give backgrounds.
        seed: Of donors and noise.
    """
    backgrounds = Backgrounds(data, split, seed=seed)
    return [
        *(Condition(variant, variant=variant) for variant in data.variants),
        Condition("exchanged_any", change=partial(backgrounds.exchange, of="any")),
        Condition("exchanged_same_class", change=partial(backgrounds.exchange, of="same")),
        Condition("exchanged_other_class", change=partial(backgrounds.exchange, of="other")),
        Condition("noise_outside", change=partial(noise_outside, seed=seed)),
        Condition("tumour_removed", change=tumour_removed, spares_tumour=False),
        Condition("background_alone", change=background_alone, spares_tumour=False),
    ]


class Backgrounds:
    """Backgrounds of a split's patients, for the other patients of the split.

    Args:
        data: Set up.
        split: Whose samples give and take.
        seed: With a sample's index the key of its donor.
    """

    def __init__(self, data: GliomaDataModule, split: Split, *, seed: int) -> None:
        rows = data.cohort.rows(split)
        self.seed = seed
        self.samples = data.evaluation_loader(split).dataset
        self.patients = np.unique(rows["patient_id"], return_inverse=True)[1]
        self.labels = rows["label"].to_numpy()
        self.has_lesion = rows["lesion_area"].to_numpy() > 0

    def donors(self, indices: Sequence[int], *, of: DonorClass) -> list[int]:
        """Position of each sample's donor in the split; its own where nobody can give.

        Args:
            indices: Positions of the samples.
            of: Donors have any class, the same class as the sample, or another one.
        """
        chosen = []
        for index in indices:
            fits = self.has_lesion & (self.patients != self.patients[index])
            if of != "any":
                fits &= (self.labels == self.labels[index]) == (of == "same")
            candidates = np.flatnonzero(fits)
            generator = np.random.default_rng([self.seed, _EXCHANGE_KEY, index])
            drawn = int(generator.random() * len(candidates))
            chosen.append(int(candidates[drawn]) if len(candidates) else index)
        return chosen

    def give(self, batch: Batch, *, of: DonorClass = "any") -> Batch:
        """Each sample's donor."""
        places = self.donors(batch["index"].tolist(), of=of)
        given: Batch = default_collate([self.samples[place] for place in places])
        return given

    def exchange(self, batch: Batch, *, of: DonorClass) -> Tensor:
        """Images on the backgrounds of other patients, whose tumours are left out."""
        given = self.give(batch, of=of)
        return paste_background(
            batch["image"], batch["lesion_mask"], given["image"], given["lesion_mask"]
        )


def noise_outside(batch: Batch, *, seed: int) -> Tensor:
    """Images with faint noise outside the tumour; air gets none."""
    key = (seed, _NOISE_KEY)
    images, mask = batch["image"], batch["lesion_mask"]
    noisy = probes.noise(images, mask, index=batch["index"], key=key, std=_NOISE)
    return torch.where(batch["brain_mask"] > 0.5, noisy, images)


def tumour_removed(batch: Batch) -> Tensor:
    """Images whose tumour is replaced by the healthy tissue of the other side of the brain.

    The mirror stands in the middle of each brain's width. Where the other side has tumour, or lies
    outside the brain, the mean of the healthy brain takes the place.
    """
    images, lesion, brain = batch["image"], batch["lesion_mask"] > 0.5, batch["brain_mask"] > 0.5
    rows = []
    for image, tumour, inside in zip(images, lesion, brain, strict=True):
        columns = inside.flatten(2).any(dim=2)[0].nonzero()[:, 0]  # along left and right
        first, last = (int(columns[0]), int(columns[-1])) if len(columns) else (0, 0)
        shift = first + last - (image.shape[1] - 1)
        other, healthy = (
            values.flip(1).roll(shift, 1) for values in (image, inside & ~tumour)
        )  # pixel x of these is pixel first + last - x of the image
        rows.append(torch.where(healthy, other, torch.nan))
    mean = mean_tissue(images, batch["brain_mask"], batch["lesion_mask"])
    mirrored = torch.stack(rows)
    return torch.where(lesion, torch.where(mirrored.isnan(), mean, mirrored), images)


def background_alone(batch: Batch) -> Tensor:
    """Images in which the tumour and the box around it are black, so that its outline is gone."""
    boxes = torch.zeros_like(batch["lesion_mask"], dtype=torch.bool)
    for box, mask in zip(boxes, batch["lesion_mask"], strict=True):
        pixels = (mask[0] > 0.5).nonzero()  # N spatial axes; a NaN is no tumour
        if len(pixels):
            low, high = pixels.amin(dim=0).tolist(), pixels.amax(dim=0).tolist()
            box[(0, *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))] = True
    return torch.where(boxes, 0.0, batch["image"])
