"""Losses that compare relevance with an annotated lesion; one value a sample.

All of them take ``relevance`` (B, C, H, W[, D]) and ``lesion_mask`` (B, 1, H, W[, D]) with 1 must,
0 must not, NaN unknown. Samples that are not guided (see :mod:`glioma_xai.losses.regions`) get
exactly 0 and exactly zero gradient. ``isnet`` is in :mod:`glioma_xai.losses.ranked`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from glioma_xai.errors import ConfigError
from glioma_xai.losses.regions import guided_regions, ratio, within_brain

GuidanceLoss = Callable[[Tensor, Tensor], Tensor]
Sign = Literal["absolute", "positive"]


def _magnitude(relevance: Tensor, sign: Sign) -> Tensor:
    """Return |R| or max(R, 0), channel by channel, (B, C, H, W[, D])."""
    if sign == "absolute":
        return relevance.abs()
    if sign == "positive":
        return relevance.clamp(min=0)
    raise ConfigError(
        f"loss sign must be 'absolute' or 'positive', got {sign!r}. Use 'absolute' for contrastive "
        "targets, where negative relevance decides too."
    )


def _total(values: Tensor) -> Tensor:
    """Sum of each sample, (B,)."""
    return values.flatten(1).sum(dim=1)


def energy(relevance: Tensor, lesion_mask: Tensor, *, sign: Sign = "absolute") -> Tensor:
    r"""Share of the relevance that lies outside the lesion.

    .. math:: 1 - \sum_p A_p M_p / \sum_p A_p

    with A = |R| or max(R, 0) summed over channels and p the known pixels. The value does not change
    when relevance is multiplied by a positive number.

    Args:
        relevance: (B, C, H, W[, D]), any unit.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        sign: ``absolute`` counts negative relevance too, ``positive`` drops it.

    Returns:
        (B,) in [0, 1]. 1 with zero gradient for relevance that is 0 everywhere; 0 for a mask that
        covers all known pixels; 0 for samples that are not guided.

    Raises:
        ShapeError: If relevance and mask do not fit.
        ConfigError: If ``sign`` is unknown.

    Reference:
        Rao et al. (2023), ICCV, "Studying how to efficiently and effectively guide models with
        explanations".
    """
    relevance, _, outside, guided = guided_regions(relevance, lesion_mask)
    magnitude = _magnitude(relevance, sign)  # B C H W [D]
    total = _total(magnitude)  # B
    share = ratio(
        _total(magnitude * outside), total
    )  # B; no cancellation when nearly all is inside
    return torch.where(guided & (total == 0), 1.0, share)


def focus(relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None) -> Tensor:
    r"""One minus the focus score, which compares mean relevance of the lesion and of the rest.

    .. math:: 1 - v_t / (v_t + v_b)

    with v_t and v_b the means of max(R, 0), summed over channels, over the lesion and over the rest
    of the image or brain. Unlike :func:`energy` it does not depend on the lesion's size.

    Args:
        relevance: (B, C, H, W[, D]), any unit.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: 1 in the brain, (B, 1, H, W[, D]); the rest is then the rest of the brain. None
            takes the rest of the image.

    Returns:
        (B,) in [0, 1]. 1 with zero gradient if no relevance is positive; 0 if nothing lies outside;
        0 for samples that are not guided.

    Raises:
        ShapeError: If relevance and masks do not fit.
    """
    if brain_mask is not None:
        lesion_mask = within_brain(lesion_mask, brain_mask)
    relevance, inside, outside, guided = guided_regions(relevance, lesion_mask)
    positive = relevance.clamp(min=0)
    lesion = ratio(_total(positive * inside), _total(inside))  # B
    rest = ratio(_total(positive * outside), _total(outside))  # B
    score = ratio(rest, lesion + rest)
    return torch.where(guided & (lesion + rest == 0), 1.0, score)


def rrr(relevance: Tensor, lesion_mask: Tensor) -> Tensor:
    r"""Mean square of the relevance outside the lesion ("right for the right reasons").

    .. math:: \frac{1}{C N_{out}} \sum_{c,p} (1 - M_p) R_{cp}^2

    The paper's R is the gradient of the sum of log-probabilities (attribution ``gradient``, target
    ``log_probability``). It sums over pixels; the mean keeps the weight independent of image and
    lesion size. Not scale invariant: the value grows with the square of the relevance.

    Args:
        relevance: Input gradient, (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B,) >= 0. 0 for zero relevance and for a mask that covers all known pixels. An empty mask
        could ask for a zero gradient everywhere; the common policy holds here too: the sample is
        not guided and gets 0, because the class must be told by something.

    Raises:
        ShapeError: If relevance and mask do not fit.

    Reference:
        Ross, Hughes and Doshi-Velez (2017), IJCAI.
    """
    relevance, _, outside, _ = guided_regions(relevance, lesion_mask)
    square = _total(relevance.square() * outside)  # B
    return ratio(square, relevance.shape[1] * _total(outside))


def _unit_map(relevance: Tensor) -> Tensor:
    """Positive relevance, summed over channels and divided by its maximum, (B, 1, H, W[, D])."""
    positive = relevance.clamp(min=0).sum(dim=1, keepdim=True)  # B 1 H W [D]
    peak = positive.flatten(1).amax(dim=1).view(-1, *[1] * (positive.ndim - 1))
    return ratio(positive, peak.expand_as(positive))


def l1(relevance: Tensor, lesion_mask: Tensor) -> Tensor:
    r"""Mean distance between the relevance map, scaled to a maximum of 1, and the mask.

    .. math:: \frac{1}{N} \sum_p | A_p / \max_q A_q - M_p |

    with A = max(R, 0) summed over channels and p, q the known pixels. It asks for equal relevance
    in the whole lesion.

    Args:
        relevance: (B, C, H, W[, D]), any unit.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B,) in [0, 1]. The lesion's share of the known pixels if no relevance is positive; 0 for
        samples that are not guided.

    Raises:
        ShapeError: If relevance and mask do not fit.

    Reference:
        Gao et al. (2022), Proc. ACM Hum.-Comput. Interact. 6, GRADIA.
    """
    relevance, inside, outside, _ = guided_regions(relevance, lesion_mask)
    known = inside + outside  # B 1 H W [D]
    distance = (_unit_map(relevance) - inside).abs() * known
    return ratio(_total(distance), _total(known))


def ppce(relevance: Tensor, lesion_mask: Tensor, *, floor: float = 1e-6) -> Tensor:
    r"""Cross entropy of the relevance map, scaled to a maximum of 1, inside the lesion.

    .. math:: - \frac{1}{N_{in}} \sum_p M_p \log \frac{A_p / \max_q A_q + f}{1 + f}

    with A = max(R, 0) summed over channels. It asks for high relevance inside and says nothing
    about the outside, except through the maximum.

    Args:
        relevance: (B, C, H, W[, D]), any unit.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        floor: Keeps the logarithm finite at pixels without relevance; a share of the maximum.

    Returns:
        (B,) in [0, log((1 + floor) / floor)]; the upper end if no relevance is positive; 0 for
        samples that are not guided.

    Raises:
        ShapeError: If relevance and mask do not fit.
        ConfigError: If ``floor`` is not positive.

    Reference:
        Shen et al. (2021), ACM UIST Adjunct, HAICS.
    """
    if not floor > 0:
        raise ConfigError(f"ppce needs floor > 0, got {floor}. Use 1e-6.")
    relevance, inside, _, _ = guided_regions(relevance, lesion_mask)
    entropy = -torch.log((_unit_map(relevance) + floor) / (1 + floor))
    return ratio(_total(entropy * inside), _total(inside))


def weighted_sum(
    relevance: Tensor,
    lesion_mask: Tensor,
    *,
    losses: Sequence[GuidanceLoss],
    weights: Sequence[float],
) -> Tensor:
    """Weighted sum of several guidance losses on the same relevance.

    Args:
        relevance: (B, C, H, W[, D]).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        losses: Functions of relevance and lesion mask that return (B,).
        weights: One factor >= 0 for each loss.

    Returns:
        (B,); 0 for samples that are not guided.

    Raises:
        ConfigError: If the lists differ in length, are empty, or a weight is negative or NaN.
    """
    if not losses or len(losses) != len(weights):
        raise ConfigError(
            f"weighted_sum needs one weight for each loss, got {len(losses)} losses and "
            f"{len(weights)} weights. List both in the same order."
        )
    if not all(0 <= weight < float("inf") for weight in weights):
        raise ConfigError(
            f"weighted_sum needs finite weights >= 0, got {list(weights)}. Drop the loss instead."
        )
    values = [
        weight * loss(relevance, lesion_mask) for loss, weight in zip(losses, weights, strict=True)
    ]
    return torch.stack(values).sum(dim=0)
