"""The ISNet's losses: the hottest pixels outside the lesion, and a natural amount of relevance."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from glioma_xai.errors import ConfigError
from glioma_xai.losses.regions import guided_regions, ratio

_FLOOR = 1e-6  # of the mean relevance; added to the lesion's mean so that it may be 0


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ConfigError(f"isnet needs decay in [0, 1], got {decay}. The paper uses .9 to .996.")


def check_options(
    relevance_range: Sequence[float] | None,
    decay: float,
    background_scale: float,
    background_weight: float,
    foreground_weight: float,
) -> None:
    """Refuse what :func:`isnet` cannot work with."""
    _check_decay(decay)
    weights = (background_weight, foreground_weight)
    if not (background_scale > 0 and all(0 <= weight < math.inf for weight in weights)):
        raise ConfigError(
            "isnet needs background_scale > 0, background_weight >= 0 and foreground_weight >= 0, "
            f"got {background_scale}, {background_weight} and {foreground_weight}. "
            "The paper uses 1, 1 and 3."
        )
    if relevance_range is not None and not 0 < relevance_range[0] < relevance_range[1]:
        raise ConfigError(
            f"isnet needs 0 < C1 < C2, got relevance_range={tuple(relevance_range)}. Measure it "
            "with natural_range on an unguided network, or set it to null."
        )


def global_weighted_rank_pooling(values: Tensor, *, decay: float) -> Tensor:
    r"""Average of the last axis in which the i-th largest value has the weight decay^i.

    .. math:: \sum_i d^i v_{(i)} / \sum_i d^i, \quad v_{(0)} \ge v_{(1)} \ge \dots

    decay 1 is the mean, decay 0 the maximum. Values whose weight is below the dtype's resolution
    are not sorted.

    Args:
        values: (..., N) >= 0.
        decay: In [0, 1].

    Returns:
        (...) between the mean and the maximum.

    Raises:
        ConfigError: If ``decay`` is outside [0, 1].

    Reference:
        Kolesnikov and Lampert (2016), ECCV, "Seed, expand and constrain".
    """
    _check_decay(decay)
    if decay == 1:
        return values.mean(dim=-1)
    if decay == 0:
        return values.amax(dim=-1)
    count = values.shape[-1]
    kept = min(count, math.ceil(math.log(torch.finfo(values.dtype).eps) / math.log(decay)) + 1)
    largest = values.topk(kept, dim=-1).values  # ... K, descending
    weights = decay ** torch.arange(kept, dtype=values.dtype, device=values.device)
    return (largest * weights).sum(dim=-1) * ((1 - decay) / (1 - decay**count))


def _foreground(inside: Tensor, low: float, high: float) -> Tensor:
    """Squared distance to [low, high] in units of low; far above, linear in relevance, (B,)."""
    below = (1 - inside / low).clamp(min=0)
    above = ((inside - high) / low).clamp(min=0)
    far = inside > low + high
    near_square = torch.where(far, 0, above).square()
    return below.square() + torch.where(far, 1 + inside - (low + high), near_square)


def isnet(
    relevance: Tensor,
    lesion_mask: Tensor,
    *,
    relevance_range: tuple[float, float] | None = (1.0, 25.0),
    decay: float = 0.996,
    background_scale: float = 1.0,
    background_weight: float = 1.0,
    foreground_weight: float = 3.0,
) -> Tensor:
    r"""The ISNet's loss: no hot spot outside the lesion, and a natural amount of relevance inside.

    .. math::
        w_1 \frac{1}{C} \sum_c \log(1 + b_c / E) + w_2 F(s), \quad
        b_c = \mathrm{GWRP}_d \big( (1 - M) |R_c| / \mathrm{mean}_M |R| \big)

    The mean over the lesion runs over all channels, the pooling over one channel at a time, as in
    the authors' code. s is the sum of |R| inside. With [C1, C2] its natural range, F is
    (1 - s / C1)^2 below it, 0 in it, ((s - C2) / C1)^2 above it, and from s = C1 + C2 on
    1 + s - C1 - C2 (the "hybrid" form of the Faster ISNet). The foreground part keeps the network
    from shrinking or inflating relevance, to which the background part is blind.

    Args:
        relevance: (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        relevance_range: C1 and C2, in units of s; ``natural_range`` measures them. None drops the
            foreground part, which makes the loss scale invariant.
        decay: d of the pooling; the closer to 1, the more pixels count.
        background_scale: E; how hot a pixel may be, relative to the lesion's mean.
        background_weight: w_1.
        foreground_weight: w_2.

    Returns:
        (B,) >= 0. Zero relevance gives w_2, all of it outside about w_1 log(1 + 1e6 b); the
        background part is 0 if nothing lies outside; 0 for samples that are not guided.

    Raises:
        ShapeError: If relevance and mask do not fit.
        ConfigError: If the range is not 0 < C1 < C2, a weight is negative, or E is not positive.

    Reference:
        Bassi, Dertkigil and Cavalli (2024), Nature Communications 15:291. Bassi, Decherchi and
        Cavalli (2024), IEEE Access, "Faster ISNet".
    """
    check_options(relevance_range, decay, background_scale, background_weight, foreground_weight)
    relevance, inside, outside, guided = guided_regions(relevance, lesion_mask)
    magnitude = relevance.abs()  # B C H W [D]
    lesion = (magnitude * inside).flatten(1).sum(dim=1)  # B
    channels = relevance.shape[1]
    lesion_mean = ratio(lesion, channels * inside.flatten(1).sum(dim=1))  # B
    unit = lesion_mean + _FLOOR * magnitude.flatten(1).mean(dim=1)  # B
    hot = global_weighted_rank_pooling((magnitude * outside).flatten(2), decay=decay)  # B C
    background = torch.log1p(ratio(hot, unit[:, None].expand_as(hot)) / background_scale)
    loss = background_weight * background.mean(dim=1)  # B
    if relevance_range is not None:
        low, high = relevance_range
        loss = loss + foreground_weight * _foreground(lesion, low, high)
    return torch.where(guided, loss, 0)
