"""Which axial slices of a volume become samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioma_xai.errors import ConfigError


@dataclass(frozen=True)
class SliceSelection:
    """The slice with the largest tumour area and its neighbours.

    Args:
        count: Most slices a volume gives; None takes every slice that shows tumour.
        step: Distance between neighbours, in slices.
        min_area: A direction ends where the tumour's area falls below this share of the largest.
        numbers: Just these slices, counted from the foot; None selects by area.
    """

    count: int | None = 4
    step: int = 1
    min_area: float = 0.2
    numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.count is not None and self.count < 1) or self.step < 1:
            raise ConfigError(
                "data.slice_count and data.slice_step must be 1 or more, got "
                f"slice_count={self.count}, slice_step={self.step}. slice_count=null takes all."
            )
        if not 0 <= self.min_area <= 1:
            raise ConfigError(
                f"data.slice_min_area must be a share in [0, 1], got {self.min_area}. "
                "It is the share of the largest slice's tumour area."
            )


def select_slices(area: NDArray[np.int64], selection: SliceSelection) -> list[int]:
    """Return slice numbers in ascending order, the largest area always among them.

    Args:
        area: Tumour voxels of each slice (Z,); brain voxels where there is no segmentation.
        selection: How many, how far apart, and where to stop.
    """
    if selection.numbers is not None:
        return list(selection.numbers)
    largest = int(area.argmax())
    least = max(1.0, selection.min_area * float(area[largest]))
    chosen = [largest]
    open_ends: list[int | None] = [largest - selection.step, largest + selection.step]
    steps = (-selection.step, selection.step)
    while any(end is not None for end in open_ends):
        for side in (0, 1):
            end = open_ends[side]
            if end is None:
                continue
            if selection.count is not None and len(chosen) >= selection.count:
                return sorted(chosen)
            if not 0 <= end < len(area) or area[end] < least:
                open_ends[side] = None
                continue
            chosen.append(end)
            open_ends[side] = end + steps[side]
    return sorted(chosen)
