"""Which images a step learns from: those of the batch, with other backgrounds, or drawn ones.

Where only some patients have masks, few samples of a batch, or none, can be guided or exchanged.
:class:`MaskedSamples` then draws from all training samples with masks. What is drawn is a function
of seed, epoch and the batch's samples, so it depends neither on workers nor on a resumed run.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from glioma_xai.data.loading import SampleBatch, SampleKey
from glioma_xai.errors import ConfigError
from glioma_xai.losses import guided_samples
from glioma_xai.losses.backgrounds import (
    changeable_pixels,
    draw_donors,
    exchange_background,
    paste_background,
)
from glioma_xai.records import Batch
from glioma_xai.training.guidance import Guidance

Key = tuple[int, ...]
_DRAW, _DONORS = 0, 1  # streams of random numbers


class KeyedSamples(Protocol):
    """A dataset whose random changes are a function of an epoch's number."""

    def __getitems__(self, keys: Sequence[SampleKey]) -> SampleBatch:
        """Return the samples, augmented, as a batch."""
        ...


class MaskedSamples:
    """The training samples whose lesion masks may be used.

    Args:
        samples: The training split.
        positions: Those with masks, (N,).
        patients: Patient of each of them.
    """

    def __init__(
        self, samples: KeyedSamples, positions: Sequence[int], patients: Sequence[str]
    ) -> None:
        self.samples = samples
        self.positions: NDArray[np.int64] = np.asarray(positions, dtype=np.int64)
        self.patients = np.asarray(patients, dtype=object)

    def __len__(self) -> int:
        return len(self.positions)

    def draw(self, count: int, *, key: Key) -> Batch:
        """Draw samples at random, each at most once as long as there are enough.

        Args:
            count: How many, 1 or more.
            key: Of the random numbers.

        Returns:
            A batch whose ``index`` counts from 0, so that a sample that is drawn twice is probed in
            two ways.
        """
        generator = np.random.default_rng([*key, _DRAW])
        rounds = -(-count // len(self))
        order = np.concatenate([generator.permutation(len(self)) for _ in range(rounds)])[:count]
        drawn = self._load(order, generator)
        drawn["index"] = torch.arange(count)
        return drawn

    def donors(self, patient_id: Sequence[str], *, key: Key) -> Batch | None:
        """Draw one sample of another patient for each of these; None if some have none.

        Args:
            patient_id: Patients who shall receive a background.
            key: Of the random numbers.
        """
        generator = np.random.default_rng([*key, _DONORS])
        chosen = []
        for patient in patient_id:
            candidates = np.flatnonzero(self.patients != patient)
            if not len(candidates):
                return None
            chosen.append(int(candidates[int(generator.random() * len(candidates))]))
        return self._load(np.array(chosen, dtype=np.int64), generator)

    def _load(self, order: NDArray[np.int64], generator: np.random.Generator) -> Batch:
        changes = generator.integers(2**62, size=len(order))  # a sample drawn again looks different
        keys = [
            SampleKey(int(self.positions[place]), int(change))
            for place, change in zip(order, changes, strict=True)
        ]
        return cast("Batch", self.samples.__getitems__(keys))


def exchanged(
    batch: Batch, *, key: Key, bank: MaskedSamples | None = None, other_class: bool = False
) -> Tensor:
    """Images on backgrounds of other patients, (B, C, *spatial); those without a mask as they are.

    Args:
        batch: B samples.
        key: Of the random numbers.
        bank: Who gives backgrounds; None takes the other samples of the batch.
        other_class: Donors in the batch are of another class than the image they give to.
    """
    if bank is None:
        donors = draw_donors(
            batch["lesion_mask"],
            index=batch["index"],
            key=key,
            patient_id=batch["patient_id"],
            labels=batch["label"] if other_class else None,
        )
        return exchange_background(batch["image"], batch["lesion_mask"], donors=donors)
    images, mask = batch["image"], batch["lesion_mask"]
    places = guided_samples(mask).nonzero()[:, 0]
    given = None
    if len(places):
        takers = [batch["patient_id"][place] for place in places.tolist()]
        given = bank.donors(takers, key=(*key, *batch["index"].tolist()))
    if given is None:
        return images
    pasted = paste_background(
        images[places], mask[places], given["image"].to(images), given["lesion_mask"].to(mask)
    )
    return images.index_copy(0, places, pasted)


def tumour_alone(batch: Batch) -> Tensor:
    """Images whose known background is 0, (B, C, *spatial); those without a mask as they are."""
    images = batch["image"]
    return torch.where(changeable_pixels(images, batch["lesion_mask"]), 0, images)


class Supply:
    """The batches that a step learns from.

    Args:
        guidance: Settings of warm start, exchange and draws.
        bank: The training samples with masks; None if there are none.
        seed: The run's seed.
    """

    def __init__(self, guidance: Guidance, bank: MaskedSamples | None, *, seed: int) -> None:
        self.guidance = guidance
        self.bank = bank
        self.seed = seed

    def seen(self, batch: Batch, *, epoch: int, batch_idx: int, warm: bool) -> Batch:
        """What classification learns from: the batch, or images with other backgrounds.

        Backgrounds are others in the warm start, and in a share of the batches after it.

        Args:
            batch: As loaded.
            epoch: Number of the epoch.
            batch_idx: Number of the batch in the epoch.
            warm: Whether the epoch belongs to the warm start.
        """
        settings = self.guidance
        key: Key = (self.seed, epoch)
        if not warm:
            share = settings.exchange_share
            if int(batch_idx * share) == int((batch_idx + 1) * share):
                return batch
            return {**batch, "image": exchanged(batch, key=key, bank=self._donors())}
        if settings.warm_start == "plain":
            return batch
        donors = self._donors()
        guided = guided_samples(batch["lesion_mask"])
        if settings.warm_start_on == "guided" and not bool(guided.all()):
            drawn = self.draw(batch["index"], len(guided), epoch=epoch)
            (batch, key), donors = drawn, None
        if settings.warm_start == "masked":
            return {**batch, "image": tumour_alone(batch)}
        return {**batch, "image": exchanged(batch, key=key, bank=donors)}

    def guided(self, loaded: Tensor, *, epoch: int) -> tuple[Batch, Key]:
        """The samples that are guided beside a batch, and the key of their random numbers.

        Args:
            loaded: Indices of the batch as it was loaded, (B,): a batch that was itself drawn is
                numbered from 0, so that its numbers say nothing of the step.
            epoch: Number of the epoch.
        """
        assert self.guidance.guided_batch is not None
        return self.draw(loaded, self.guidance.guided_batch, epoch=epoch)

    def draw(self, loaded: Tensor, count: int, *, epoch: int) -> tuple[Batch, Key]:
        """Samples with masks, on the batch's device; which ones is a function of epoch and batch.

        Raises:
            ConfigError: If no training sample has a mask.
        """
        key = (self.seed, epoch, *loaded.tolist())
        return self.take(count, key=key, device=loaded.device), key

    def take(self, count: int, *, key: Key, device: torch.device) -> Batch:
        """Samples with masks, drawn by a key of their own; see :meth:`MaskedSamples.draw`."""
        drawn = self.require_masks().draw(count, key=key)
        return cast("Batch", move_data_to_device(drawn, device))

    def _donors(self) -> MaskedSamples | None:
        """Who gives backgrounds: the batch, unless few of its samples have masks."""
        return None if self.guidance.guided_batch is None else self.require_masks()

    def require_masks(self) -> MaskedSamples:
        """The training samples with masks.

        Raises:
            ConfigError: If there are none.
        """
        if self.bank is None or not len(self.bank):
            raise ConfigError(
                "training: expected samples with lesion masks to draw from, found none. Raise "
                "data.mask_share, or switch off what needs masks: loss=cross_entropy."
            )
        return self.bank
