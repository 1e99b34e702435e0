"""Prepared subjects as a torch dataset, and the order in which they are seen."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from glioma_xai.data.augmentation import (
    Augmentation,
    apply_change,
    draw_change,
    sample_generator,
)
from glioma_xai.data.cache import PreparedCache

Sampling = Literal["none", "balanced"]


@dataclass(frozen=True)
class SampleKey:
    """A position in the table, and the epoch whose random numbers it gets."""

    index: int
    epoch: int


Sample = dict[str, Tensor | int | str]
"""One sample of ``records.Batch``, without the batch axis."""


class SampleDataset(Dataset[Sample]):
    """Samples of one split, in the order of its table.

    Args:
        table: One row a sample, see ``sample_table``.
        cache: Where the arrays lie.
        jitter: Pixels stored around each sample.
        value_range: Range to clip to after augmentation.
        augmentation: How training samples are changed; None for evaluation.
        seed: Enters every random number.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        cache: PreparedCache,
        *,
        value_range: tuple[float, float],
        jitter: int = 0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.cache = cache
        self.value_range = value_range
        self.jitter = jitter
        self.augmentation = augmentation
        self.seed = seed
        self._rows = table.to_dict("records")
        self._open: dict[str, NDArray[np.float16]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, object]:
        """Leave open files out of what is sent to workers, which would carry all their content."""
        return self.__dict__ | {"_open": {}}

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Return a sample.

        A plain index gives it unchanged, with the lesion as mask; a SampleKey names an epoch of
        training and gives it augmented, with the annotation as mask.
        """
        index = key.index if isinstance(key, SampleKey) else int(key)
        row = self._rows[index]
        epoch = key.epoch if isinstance(key, SampleKey) else None
        arrays = self._arrays(row, index, epoch)
        mask = arrays[-2:-1] if epoch is None else arrays[-3:-2]  # lesion, or annotation
        known = row["guided"] and bool((mask == 1).any())
        nowhere = mask.new_tensor(torch.nan)
        return {
            "image": arrays[:-3],
            "lesion_mask": mask.where(mask >= 0, nowhere) if known else nowhere.expand_as(mask),
            "brain_mask": arrays[-1:],
            "label": row["label"],
            "index": index,
            "slice_index": row["slice_index"],
            "patient_id": row["patient_id"],
            "subject_id": row["subject_id"],
            "site": row["site"],
        }

    def _arrays(self, row: Mapping[Hashable, Any], index: int, epoch: int | None) -> Tensor:
        """Return modalities, annotation, lesion and brain (C + 3, H, W[, D])."""
        arrays = self._samples(row["entry"])[row["row"]].astype(np.float32)
        if epoch is None:
            return torch.from_numpy(self._crop(arrays, None))
        if row["annotation_entry"] != row["entry"] or row["annotation_row"] != row["row"]:
            arrays[-3] = self._samples(row["annotation_entry"])[row["annotation_row"]][-3]
        generator = sample_generator(self.seed, epoch, index)
        cropped = torch.from_numpy(self._crop(arrays, generator))
        if self.augmentation is None:
            return cropped
        change = draw_change(self.augmentation, tuple(cropped[:-3].shape), generator)
        changed = apply_change(cropped, change)
        changed[:-3].clamp_(*self.value_range)
        return changed

    def _crop(
        self, arrays: NDArray[np.float32], generator: np.random.Generator | None
    ) -> NDArray[np.float32]:
        """Cut the jitter off: at a random place in training, in the middle otherwise."""
        if not self.jitter:
            return arrays
        for axis in range(1, arrays.ndim):
            drawn = None if generator is None else int(generator.integers(2 * self.jitter + 1))
            start = self.jitter if drawn is None else drawn
            length = arrays.shape[axis] - 2 * self.jitter
            arrays = arrays.take(range(start, start + length), axis=axis)
        return arrays

    def _samples(self, entry: str) -> NDArray[np.float16]:
        if entry not in self._open:
            self._open[entry] = self.cache.samples(entry)
        return self._open[entry]


class EpochSampler(Sampler[SampleKey]):
    """A fresh order each epoch that depends on seed and epoch alone.

    The epoch travels with each index, so that workers, however many and however long they live,
    draw the same random numbers.

    With several processes each takes its share of every joint batch (``processes`` x
    ``batch_size`` samples that follow each other in the order), so that a step sees what one
    process with that batch size would see. Of the last joint batch all take equally many, give or
    take one; if it has fewer samples than there are processes, it is left out.

    Args:
        labels: Class of each sample (N,).
        sampling: ``none`` sees every sample once; ``balanced`` draws N samples with replacement,
            each class equally often.
        seed: Of the order.
        epoch: The first epoch; Lightning sets later ones.
        batch_size: Of one process; needed if there are several.
        process: Number of this process, from 0.
        processes: How many there are.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        *,
        sampling: Sampling,
        seed: int,
        epoch: int,
        batch_size: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.labels = labels
        self.sampling = sampling
        self.seed = seed
        self.epoch = epoch
        self.joint_batch = batch_size * processes
        self.process = process
        self.processes = processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._share(np.arange(len(self.labels))))

    def __iter__(self) -> Iterator[SampleKey]:
        epoch, count = self.epoch, len(self.labels)
        generator = np.random.default_rng([self.seed, epoch])
        if self.sampling == "balanced":
            weights = 1 / np.bincount(self.labels)[self.labels]
            order = generator.choice(count, count, p=weights / weights.sum())
        else:
            order = generator.permutation(count)
        return iter([SampleKey(int(index), epoch) for index in self._share(order)])

    def _share(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what this process sees of an order."""
        last = len(order) % self.joint_batch
        kept = order[: len(order) - last] if last < self.processes else order
        mine = np.arange(len(kept)) % self.joint_batch % self.processes == self.process
        return np.asarray(kept[mine])
