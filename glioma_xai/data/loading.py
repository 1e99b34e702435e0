"""The order in which samples are seen, and a loader that is one batch ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

Sampling = Literal["none", "balanced"]
Made = TypeVar("Made")
Sample = dict[str, Tensor | int | str]
"""One sample of ``records.Batch``, without the batch axis."""
SampleBatch = dict[str, Tensor | list[str]]
"""``records.Batch`` as the dataset builds it."""


@dataclass(frozen=True)
class SampleKey:
    """A position in the table, and the epoch whose random numbers it gets."""

    index: int
    epoch: int


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


class BatchLoader(DataLoader[Sample]):
    """A loader of whole batches that makes the next one while the last is used.

    Worker processes do that by themselves; without them it is done by a thread, since most of the
    work frees the interpreter.
    """

    def __iter__(self) -> Iterator[SampleBatch]:  # type: ignore[override]
        batches = super().__iter__()
        return batches if self.num_workers else _one_ahead(batches)


def as_it_is(batch: Made) -> Made:
    """Return what the dataset has made into a batch already."""
    return batch


def _one_ahead(batches: Iterator[SampleBatch]) -> Iterator[SampleBatch]:
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch
