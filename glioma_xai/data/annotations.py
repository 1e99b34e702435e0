"""What training is told about the lesion: its contour or coarser, with an undecided rim or not."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from glioma_xai.errors import ConfigError

UNKNOWN = -1.0
"""Stored value of a pixel that nobody has annotated; it leaves the loader as NaN."""
AnnotationShape = Literal["contour", "box"]


@dataclass(frozen=True)
class Annotation:
    """The mask that training sees; evaluation always sees the contour.

    Args:
        shape: ``contour`` as drawn, or ``box`` around each connected part.
        dilation_mm: Grows the mask on all sides.
        margin_mm: Width of a rim around the mask that is neither must nor must not.
        control: True gives every sample the mask of another patient's sample: the same sizes and
            places over the cohort, but no relation to the image.
    """

    shape: AnnotationShape = "contour"
    dilation_mm: float = 0.0
    margin_mm: float = 0.0
    control: bool = False

    def __post_init__(self) -> None:
        if self.shape not in ("contour", "box"):
            raise ConfigError(
                f"data.annotation.shape must be contour or box, got {self.shape}. Choose one."
            )
        if self.dilation_mm < 0 or self.margin_mm < 0:
            raise ConfigError(
                f"data.annotation.dilation_mm and margin_mm must not be negative, got "
                f"{self.dilation_mm} and {self.margin_mm}. 0 leaves the mask as it is."
            )


def annotate(
    lesion: NDArray[np.bool_], annotation: Annotation, spacing_mm: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return 1 in the annotated region, UNKNOWN in its rim and 0 elsewhere, same shape.

    An empty lesion gives UNKNOWN everywhere.

    Args:
        lesion: Contour (H, W[, D]).
        annotation: How coarse the annotation is.
        spacing_mm: Distance of pixels along each axis.
    """
    if not lesion.any():
        return np.full(lesion.shape, UNKNOWN, dtype=np.float32)
    region = lesion
    if annotation.shape == "box":
        region = np.zeros_like(lesion)
        for box in ndimage.find_objects(ndimage.label(lesion)[0]):
            region[box] = True
    reach = annotation.dilation_mm + annotation.margin_mm
    if not reach:
        return region.astype(np.float32)
    distance = ndimage.distance_transform_edt(~region, sampling=spacing_mm)
    annotated = (distance <= annotation.dilation_mm).astype(np.float32)
    annotated[(distance > annotation.dilation_mm) & (distance <= reach)] = UNKNOWN
    return annotated
