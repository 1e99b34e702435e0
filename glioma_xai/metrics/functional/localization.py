"""Where relevance lies, compared with an annotated lesion; one value a sample.

Every score follows the policy of :mod:`glioma_xai.metrics.functional.regions` for empty masks,
zero maps, NaN relevance and unknown pixels. None changes when relevance is multiplied by a positive
number, so that models with different logit scales can be compared.

These scores judge the picture, not the decision: a network can put .99 of its positive relevance
inside the tumour and still decide by something else. Read them beside
:mod:`glioma_xai.metrics.functional.behaviour`.
"""

import torch
from torch import Tensor

from glioma_xai.metrics.functional.regions import Regions, count_regions, split_pixels


def relevance_mass_accuracy(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Tensor:
    """Share of positive relevance that lies inside the lesion.

    Its level by chance is the lesion's share of the counted area. A pointing game weighted by
    energy (Wang et al. 2020, Score-CAM) is the same number.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]); relevance outside the
            brain, on a marker in the background say, is then not seen.

    Returns:
        (B,) in [0, 1]; NaN where undefined.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.

    Reference:
        Arras, Osman and Samek (2022), Information Fusion 81:14-40, "relevance mass accuracy".
    """
    regions = count_regions(relevance, lesion_mask, brain_mask=brain_mask)
    return _share_inside(regions.positive, regions)


def absolute_relevance_mass(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Tensor:
    """Share of absolute relevance that lies inside the lesion: inhibition counts as much.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]).

    Returns:
        (B,) in [0, 1]; NaN where undefined. A map that is negative everywhere is undefined here as
        for every other score, although its absolute mass is not 0.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    regions = count_regions(relevance, lesion_mask, brain_mask=brain_mask)
    return _share_inside(regions.absolute, regions)


def relevance_rank_accuracy(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Tensor:
    """Share of the K highest pixels of the relevance map that lie in the lesion of K pixels.

    Ties at the K-th place count by their expected share under a random order, so a constant map
    scores what chance does, the lesion's share of the area.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]); ranked after summing over channels.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]).

    Returns:
        (B,) in [0, 1]; NaN where undefined.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.

    Reference:
        Arras, Osman and Samek (2022), Information Fusion 81:14-40, "relevance rank accuracy".
    """
    return _rank(count_regions(relevance, lesion_mask, brain_mask=brain_mask))


def pointing_game(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Tensor:
    """Whether the highest pixel of the relevance map lies in the lesion.

    If several pixels share the highest value, the share of them inside: the expected hit of a
    random choice among them.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]); searched after summing over channels.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: Restricts the score to the brain, (B, 1, H, W[, D]).

    Returns:
        (B,) 0 or 1, between them on ties; NaN where undefined.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.

    Reference:
        Zhang et al. (2018), International Journal of Computer Vision 126:1084-1102.
    """
    return _pointing(count_regions(relevance, lesion_mask, brain_mask=brain_mask))


def focus_score(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> Tensor:
    """Mean positive relevance in the tumour against that in the rest of the brain.

    ``v_t / (v_t + v_b)``, v the mean of max(R, 0) over the pixels of the tumour and of the rest.
    Means, not sums: chance is 0.5 whatever the size of the tumour.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: The brain, (B, 1, H, W[, D]); None takes the whole image for the brain.

    Returns:
        (B,) in [0, 1]; NaN where undefined, and where the tumour fills all counted pixels.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    regions = count_regions(relevance, lesion_mask, brain_mask=brain_mask)
    tumour = _mean_over(regions.positive, regions.inside)
    rest = _mean_over(regions.positive, regions.outside)  # 0/0 = NaN without a rest
    return torch.where(regions.defined, tumour / (tumour + rest), torch.nan)


def negative_share(relevance: Tensor) -> Tensor:
    """Share of absolute relevance that is negative: how much of the map speaks against.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.

    Returns:
        (B,) in [0, 1]; NaN for a map of zeros or with a value that is not finite.
    """
    values = relevance.detach().flatten(1)
    return -values.clamp(max=0).sum(dim=1) / values.abs().sum(dim=1)


def lesion_share(lesion_mask: Tensor, *, brain_mask: Tensor | None = None) -> Tensor:
    """Lesion's share of the counted area: what mass, rank and pointing score by chance.

    Args:
        lesion_mask: 1 lesion, 0 not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: Restricts the area to the brain, (B, 1, H, W[, D]).

    Returns:
        (B,) in [0, 1]; NaN without a lesion.

    Raises:
        ShapeError: If the masks differ in shape.
    """
    inside, counted = (_count(p) for p in split_pixels(lesion_mask, brain_mask=brain_mask))
    return torch.where(inside > 0, inside / counted, torch.nan).float()


def localization_scores(
    relevance: Tensor, lesion_mask: Tensor, *, brain_mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Every score of this module, by name.

    The brain mask serves the focus score and the share outside the brain only; the other scores
    look at the whole image, so that relevance on a marker in the background counts as a miss.

    Args:
        relevance: Signed relevance, (B, C, H, W[, D]), in units of the explained logit.
        lesion_mask: 1 must carry relevance, 0 must not, NaN unknown, (B, 1, H, W[, D]).
        brain_mask: The brain, (B, 1, H, W[, D]).

    Returns:
        Name to (B,); each in [0, 1] or NaN. ``lesion_share`` is the level by chance of mass, rank
        and pointing; ``outside_brain`` (only with a brain mask) is a share of absolute relevance.

    Raises:
        ShapeError: If batch or spatial sizes differ, or a mask has more than one channel.
    """
    image = count_regions(relevance, lesion_mask)
    scores = {
        "relevance_mass_accuracy": _share_inside(image.positive, image),
        "absolute_relevance_mass": _share_inside(image.absolute, image),
        "relevance_rank_accuracy": _rank(image),
        "pointing_game": _pointing(image),
        "focus_score": focus_score(relevance, lesion_mask, brain_mask=brain_mask),
        "negative_share": negative_share(relevance),
        "lesion_share": lesion_share(lesion_mask),
    }
    if brain_mask is not None:
        background = (brain_mask <= 0.5).float()
        scores["outside_brain"] = absolute_relevance_mass(relevance, background)
    return scores


def _share_inside(mass: Tensor, regions: Regions) -> Tensor:
    share = (mass * regions.inside).sum(dim=1) / mass.sum(dim=1)
    return torch.where(regions.defined, share, torch.nan)


def _rank(regions: Regions) -> Tensor:
    size = regions.inside.sum(dim=1, keepdim=True)  # B 1
    ranked = regions.map.topk(max(1, int(size.max())), dim=1).values
    cut = ranked.gather(1, (size - 1).clamp(min=0))  # B 1, the K-th largest value
    above, tied = regions.map > cut, regions.map == cut
    places = size[:, 0] - above.sum(dim=1)  # left for the tied pixels
    share_of_tied = _count(tied & regions.inside) / _count(tied).clamp(min=1)
    hits = _count(above & regions.inside) + places * share_of_tied
    return torch.where(regions.defined, hits / size[:, 0], torch.nan).to(regions.map.dtype)


def _pointing(regions: Regions) -> Tensor:
    highest = regions.map == regions.map.amax(dim=1, keepdim=True)
    hits = _count(highest & regions.inside) / _count(highest)
    return torch.where(regions.defined, hits, torch.nan).to(regions.map.dtype)


def _mean_over(values: Tensor, selection: Tensor) -> Tensor:
    return (values * selection).sum(dim=1) / selection.sum(dim=1)


def _count(selection: Tensor) -> Tensor:
    return selection.sum(dim=1, dtype=torch.float64)
