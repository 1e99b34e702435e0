"""Prepared subjects as a torch dataset that makes whole batches."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from glioma_xai.data.augmentation import (
    Augmentation,
    apply_changes,
    draw_change,
    sample_generator,
)
from glioma_xai.data.cache import PreparedCache
from glioma_xai.data.loading import Sample, SampleBatch, SampleKey

__all__ = ["Sample", "SampleDataset", "SampleKey"]

Row = Mapping[Hashable, Any]
MOST_OPEN = 4096
"""Entries kept mapped at a time, far below the 65,530 that Linux allows a process."""


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
        """Leave out of what is sent to workers the mapped files, with all their content."""
        return self.__dict__ | {"_open": {}}

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Return one sample of ``__getitems__``, its numbers plain."""
        batch = self.__getitems__([key])
        return {
            name: int(values[0]) if isinstance(values, Tensor) and values.ndim == 1 else values[0]
            for name, values in batch.items()
        }

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> SampleBatch:
        """Return a batch; torch's loader asks for all of it at once.

        A plain index gives a sample unchanged, with the lesion as mask; a SampleKey names an epoch
        of training and gives it augmented, with the annotation as mask.
        """
        indices = [key.index if isinstance(key, SampleKey) else int(key) for key in keys]
        rows = [self._rows[index] for index in indices]
        generators = [
            sample_generator(self.seed, key.epoch, key.index)
            for key in keys
            if isinstance(key, SampleKey)
        ]
        image, masks = self._stack(rows, generators)
        if generators and self.augmentation is not None:
            shape = tuple(image.shape[1:])
            changes = [draw_change(self.augmentation, shape, one) for one in generators]
            image, masks = apply_changes(image, masks, changes)
            image.clamp_(*self.value_range)
        lesion = masks[:, :1]
        known = torch.tensor([row["guided"] for row in rows])
        known &= (lesion == 1).flatten(1).any(1)
        known = known.view(-1, *[1] * (lesion.ndim - 1))
        columns = ("label", "slice_index")
        numbers = {name: torch.tensor([row[name] for row in rows]) for name in columns}
        names = {n: [row[n] for row in rows] for n in ("patient_id", "subject_id", "site")}
        return {
            "image": image,
            "lesion_mask": lesion.where(known & (lesion >= 0), lesion.new_tensor(torch.nan)),
            "brain_mask": masks[:, 1:],
            "index": torch.tensor(indices),
            **numbers,
            **names,
        }

    def _stack(
        self, rows: Sequence[Row], generators: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return image (B, C, H, W[, D]) and masks (B, 2, H, W[, D]), cropped.

        The first mask is the annotation in training, for which there are generators, and else the
        lesion; the second is the brain.
        """
        first = self._samples(rows[0]["entry"])[rows[0]["row"]]
        size = tuple(length - 2 * self.jitter for length in first.shape[1:])
        image = np.empty((len(rows), len(first) - 3, *size), np.float32)
        masks = np.empty((len(rows), 2, *size), np.float32)
        for place, row in enumerate(rows):
            window = (slice(None), *self._window(size, generators[place] if generators else None))
            stored = self._samples(row["entry"])[row["row"]][window]
            image[place], masks[place, 0], masks[place, 1] = stored[:-3], stored[-2], stored[-1]
            if generators:
                annotated = self._samples(row["annotation_entry"])[row["annotation_row"]]
                masks[place, 0] = annotated[window][-3]
        return torch.from_numpy(image), torch.from_numpy(masks)

    def _window(
        self, size: tuple[int, ...], generator: np.random.Generator | None
    ) -> tuple[slice, ...]:
        """Return where to cut: at a random place in training, in the middle otherwise."""
        if not self.jitter:
            return tuple(slice(None) for _ in size)
        most = 2 * self.jitter + 1
        starts = [self.jitter if generator is None else int(generator.integers(most)) for _ in size]
        return tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))

    def _samples(self, entry: str) -> NDArray[np.float16]:
        if entry not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.clear()
            self._open[entry] = self.cache.samples(entry)
        return self._open[entry]
