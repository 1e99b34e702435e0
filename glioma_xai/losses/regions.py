"""Which pixels must, must not or may carry relevance, and which samples are guided at all.

The policy of all guidance losses stands here and nowhere else:

- A pixel is *inside* where the lesion mask is 1, *outside* where it is 0, *unknown* where it is
  NaN; unknown pixels enter no sum. A value between 0 and 1 (a resampled mask) counts by its share.
- A sample is *guided* if at least one known pixel lies inside. A missing mask (all NaN) and an
  empty one (no lesion in this slice) are not guided: there is no place the relevance should go to.
- Sums are formed in float32 at least: in half precision a volume has more pixels than the dtype can
  count.
- The loss of a sample that is not guided is exactly 0 and has exactly zero gradient, whatever its
  relevance is, NaN included. The objective divides by the number of guided samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glioma_xai.errors import ShapeError


def check_mask(values: Tensor, mask: Tensor, *, name: str, against: str) -> None:
    """Raise unless the mask has one channel, and batch, space and device of the values.

    Args:
        values: (B, C, H, W[, D]).
        mask: (B, 1, H, W[, D]).
        name: What the mask is called in the message.
        against: What the values are called in the message.

    Raises:
        ShapeError: If batch or spatial sizes or devices differ, or the mask has not exactly one
            channel.
    """
    if mask.device != values.device:
        raise ShapeError(
            f"{name} must be where {against} is: expected a tensor on {values.device}, got one on "
            f"{mask.device}. Move it with .to({against}.device)."
        )
    expected = (values.shape[0], 1, *values.shape[2:])
    if mask.shape == expected:
        return
    fix = "Resample the mask to the image and put the batch first."
    if values.ndim == mask.ndim + 1:
        fix = f"A {mask.ndim - 2}-D mask met {values.ndim - 2}-D {against}: add the missing axis."
    elif mask.ndim == values.ndim and mask.shape[1] != 1:
        fix = "Merge the tumour labels into one channel first."
    raise ShapeError(
        f"{name} must match {against} in batch and space: expected {expected}, "
        f"got {tuple(mask.shape)}. {fix}"
    )


def _check_shares(lesion_mask: Tensor) -> None:
    """Raise if a value is neither a share in [0, 1] nor NaN."""
    if bool(((lesion_mask < 0) | (lesion_mask > 1)).any()):
        low, high = (float(end) for end in lesion_mask[~lesion_mask.isnan()].aminmax())
        raise ShapeError(
            f"lesion_mask must hold shares in [0, 1] or NaN: expected 1 in the lesion and 0 "
            f"outside, got values from {low:g} to {high:g}. Merge the tumour labels into one "
            "region first: (labels > 0).float()."
        )


def guided_samples(lesion_mask: Tensor) -> Tensor:
    """Tell which samples have at least one known pixel inside the lesion.

    Args:
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B,) bool; False for a missing (all NaN) and for an empty mask.
    """
    return (lesion_mask > 0).flatten(1).any(dim=1)  # B; NaN > 0 is False


def mask_on_grid(lesion_mask: Tensor, size: Sequence[int]) -> Tensor:
    """Average a mask over the pixels of a coarser grid, such as that of a layer.

    Args:
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        size: Spatial size of the grid.

    Returns:
        Share of the known pixels of each cell that lie inside, (B, 1, *size); NaN if none is known.

    Raises:
        ShapeError: If the grid has another number of axes.
    """
    if len(size) != lesion_mask.ndim - 2:
        raise ShapeError(
            f"relevance must have the mask's {lesion_mask.ndim - 2} spatial axes, got "
            f"{len(size)}. Choose a layer before the spatial axes are flattened."
        )
    if tuple(size) == lesion_mask.shape[2:]:
        return lesion_mask
    lesion_mask = lesion_mask if lesion_mask.is_floating_point() else lesion_mask.float()
    pool = nn.AdaptiveAvgPool2d if len(size) == 2 else nn.AdaptiveAvgPool3d
    average = pool(tuple(size))
    known = ~lesion_mask.isnan()
    inside = average(torch.where(known, lesion_mask, 0))
    share = average(known.to(lesion_mask.dtype))
    return torch.where(share > 0, ratio(inside, share), torch.nan)


def within_brain(lesion_mask: Tensor, brain_mask: Tensor) -> Tensor:
    """Declare everything outside the brain unknown, except what is annotated as lesion.

    A shortcut outside the skull is then no longer punished: use it only where the space around
    the head carries nothing.

    Args:
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: 1 in the brain, (B, 1, H, W[, D]).

    Returns:
        The lesion mask with NaN outside the brain, (B, 1, H, W[, D]).

    Raises:
        ShapeError: If the two masks differ in shape.
    """
    check_mask(lesion_mask, brain_mask, name="brain_mask", against="lesion_mask")
    return torch.where((brain_mask > 0) | (lesion_mask > 0), lesion_mask, torch.nan)


def guided_regions(relevance: Tensor, lesion_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split a batch into inside and outside, with all that is not guided set to zero.

    Args:
        relevance: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        relevance with zeros in samples that are not guided and at unknown pixels (no gradient
        flows back from there), inside and outside weights (B, 1, H, W[, D]) in [0, 1] without NaN
        and in the relevance's dtype (float32 for half precision), and guided (B,) bool.

    Raises:
        ShapeError: If relevance and mask do not fit, or a mask's value is no share.
    """
    check_mask(relevance, lesion_mask, name="lesion_mask", against="relevance")
    _check_shares(lesion_mask)
    relevance = at_least_single(relevance)
    guided = guided_samples(lesion_mask)  # B
    each = guided.view(-1, *[1] * (relevance.ndim - 1))  # B 1 1 1 [1]
    known = each & ~torch.isnan(lesion_mask)  # B 1 H W [D]
    weight = torch.where(known, lesion_mask, 0).to(relevance.dtype)
    inside = weight
    outside = torch.where(known, 1 - weight, 0)
    return torch.where(known, relevance, 0), inside, outside, guided


def at_least_single(values: Tensor) -> Tensor:
    """Return half-precision values as float32, all others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 and a zero gradient where the denominator is 0.

    Both branches are guarded, because ``torch.where`` on the quotient alone sends 0 * inf = NaN
    back to the denominator.

    Args:
        numerator: Any shape.
        denominator: Same shape.

    Returns:
        numerator / denominator, 0 where the denominator is 0.
    """
    defined = denominator != 0
    return torch.where(defined, numerator / torch.where(defined, denominator, 1), 0)
