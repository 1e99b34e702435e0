"""Attributions that are no composites: several passes, or a layer's activations."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from glioma_xai.errors import ConfigError

Method = Literal["integrated_gradients", "smooth_grad", "grad_cam"]
Attribution = Callable[[Tensor], Tensor]


def integrated_gradients(attribute: Attribution, images: Tensor, *, steps: int) -> Tensor:
    r"""Return the gradient's mean along the path from a black image, times the image.

    .. math:: R = x \cdot \frac{1}{n} \sum_{i=1}^{n} \nabla f\bigl(\tfrac{i - 1/2}{n} x\bigr)

    Args:
        attribute: Gradient of the target for images, in the images' shape.
        images: (B, C, H, W[, D]); 0 is the baseline.
        steps: Points on the path; the sum of the result approaches f(x) - f(0) as they grow.

    Reference:
        Sundararajan, Taly and Yan (2017), ICML, 3319-3328.
    """
    total = torch.zeros_like(images)
    for number in range(steps):
        total = total + attribute((number + 0.5) / steps * images)
    return images * total / steps


def smooth_grad(
    attribute: Attribution,
    images: Tensor,
    *,
    steps: int,
    noise: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Return the mean attribution of noisy copies.

    Args:
        attribute: Attribution of images, in the images' shape.
        images: (B, C, H, W[, D]).
        steps: Number of copies.
        noise: Standard deviation, a share of each image's range.
        generator: Draws the noise; torch's default one if None.

    Reference:
        Smilkov et al. (2017), arXiv:1706.03825.
    """
    pixels = images.detach().flatten(1)
    width = noise * (pixels.amax(1) - pixels.amin(1))  # B
    width = width.view(-1, *[1] * (images.ndim - 1))
    device = generator.device if generator is not None else images.device
    total = torch.zeros_like(images)
    for _ in range(steps):
        drawn = torch.randn(images.shape, generator=generator, device=device, dtype=images.dtype)
        total = total + attribute(images + width * drawn.to(images.device))
    return total / steps


def grad_cam(activation: Tensor, gradient: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return what raises the target in a layer's feature maps, enlarged to the image.

    Args:
        activation: Output of the layer, (B, K, h, w[, d]).
        gradient: Of the target, in the same shape.
        size: Spatial size of the image.

    Returns:
        (B, 1, H, W[, D]), not negative.

    Reference:
        Selvaraju et al. (2017), ICCV, 618-626.
    """
    if activation.ndim != len(size) + 2:
        raise ConfigError(
            f"Grad-CAM reads feature maps: expected a layer with an output of {len(size) + 2} "
            f"axes, got {activation.ndim}. Choose layer= a convolution."
        )
    weights = gradient.flatten(2).mean(2).view(*gradient.shape[:2], *[1] * len(size))  # B K 1 1
    raised = (weights * activation).sum(1, keepdim=True).clamp(min=0)  # B 1 h w [d]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(raised, size=size, mode=mode, align_corners=False)
