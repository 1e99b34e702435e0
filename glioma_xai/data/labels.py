"""Mask values into regions of the tumour."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glioma_xai.errors import ConfigError

Region = Literal["whole_tumour", "tumour_core", "enhancing_tumour"]
TUMOUR_PARTS = ("necrosis", "oedema", "non_enhancing", "enhancing", "tumour")
PARTS = (*TUMOUR_PARTS, "cavity")
"""What a mask value can mean; the cavity that surgery left is annotated, but no tumour."""
REGIONS: Mapping[str, tuple[str, ...]] = {
    "whole_tumour": TUMOUR_PARTS,
    "tumour_core": ("necrosis", "non_enhancing", "enhancing"),
    "enhancing_tumour": ("enhancing",),
}


def region_values(label_values: Mapping[str, int] | None, region: str) -> frozenset[int] | None:
    """Return the mask values that make up a region; None if any non-zero value does.

    Args:
        label_values: Mask value of each part of the tumour (``necrosis``, ``oedema``,
            ``non_enhancing``, ``enhancing``, ``cavity``, or ``tumour`` where parts are not told
            apart).
        region: ``whole_tumour``, ``tumour_core`` or ``enhancing_tumour``.

    Raises:
        ConfigError: If a part or the region is unknown, or the masks do not show the region.
    """
    if region not in REGIONS:
        raise ConfigError(
            f"data.region must be one of {', '.join(REGIONS)}, got {region}. Choose one of them."
        )
    if label_values is None:
        if region == "whole_tumour":
            return None
        raise ConfigError(
            f"data.region={region} needs data.label_values, got null. Say which mask value means "
            "what, as in data.label_values={necrosis: 1, oedema: 2, enhancing: 4}."
        )
    unknown = sorted(set(label_values) - set(PARTS))
    if unknown:
        raise ConfigError(
            f"data.label_values must name parts of the tumour ({', '.join(PARTS)}), "
            f"got {', '.join(unknown)}. Rename or remove them."
        )
    wrong = [part for part, value in label_values.items() if value < 1]
    if wrong:
        raise ConfigError(
            f"data.label_values must be whole numbers above 0, which is background, got "
            f"{label_values[wrong[0]]} for {wrong[0]}. Leave out parts that the masks do not show."
        )
    values = frozenset(label_values[part] for part in REGIONS[region] if part in label_values)
    if not values:
        raise ConfigError(
            f"data.region={region} needs one of {', '.join(REGIONS[region])} in data.label_values, "
            f"got {', '.join(label_values)}. Add the value or choose data.region=whole_tumour."
        )
    return values


def lesion_region(
    labels: NDArray[np.float32], label_values: Mapping[str, int] | None, region: str
) -> NDArray[np.bool_]:
    """Return True where a segmentation shows the region; same shape as ``labels``."""
    values = region_values(label_values, region)
    if values is None:
        return np.not_equal(labels, 0)
    table = np.zeros(max(int(labels.max()), *values) + 1, dtype=bool)
    table[sorted(values)] = True
    inside: NDArray[np.bool_] = table[labels.astype(np.intp)]
    return inside


def unexpected_values(
    values: Iterable[float], label_values: Mapping[str, int] | None
) -> tuple[float, ...]:
    """Return the mask values that the scheme does not know, in ascending order.

    Without a scheme a mask may have one value beside 0; every value is returned if it has more.
    """
    present = sorted(value for value in values if value != 0)
    if label_values is None:
        return tuple(present) if len(present) > 1 else ()
    return tuple(value for value in present if value not in label_values.values())
