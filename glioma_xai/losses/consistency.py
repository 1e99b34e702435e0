"""Equal logits for an image and its copy with another background: the same masks, no relevance."""

import torch
from torch import Tensor

from glioma_xai.errors import ShapeError
from glioma_xai.losses.regions import at_least_single, guided_samples


def consistency(logits: Tensor, exchanged_logits: Tensor, lesion_mask: Tensor) -> Tensor:
    r"""Mean squared difference of the logits under background exchange.

    .. math:: \frac{1}{K} \sum_k (f_k(x) - f_k(x'))^2

    Args:
        logits: Of the image, (B, K).
        exchanged_logits: Of its copy with another background, (B, K).
        lesion_mask: 1 must, 0 must not, NaN unknown, (B, 1, H, W[, D]).

    Returns:
        (B,) >= 0; exactly 0 with zero gradient for samples that are not guided, whose background
        cannot be told from their lesion.

    Raises:
        ShapeError: If the logits differ in shape or the mask in batch size.
    """
    if logits.ndim != 2 or logits.shape != exchanged_logits.shape:
        raise ShapeError(
            f"consistency needs two tensors of logits (B, K) of one shape, got "
            f"{tuple(logits.shape)} and {tuple(exchanged_logits.shape)}. Exchange the whole batch."
        )
    if lesion_mask.shape[0] != logits.shape[0]:
        raise ShapeError(
            f"lesion_mask must match the logits in batch: expected {logits.shape[0]}, "
            f"got {lesion_mask.shape[0]}. Pass the masks of the same batch."
        )
    guided = guided_samples(lesion_mask)  # B
    apart = at_least_single(logits) - at_least_single(exchanged_logits)
    difference = torch.where(guided[:, None], apart, 0)  # B K
    return difference.square().mean(dim=1)
