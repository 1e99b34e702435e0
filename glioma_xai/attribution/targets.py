"""Targets: which combination of logits is explained."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from glioma_xai.errors import ConfigError, ShapeError

Target = Literal[
    "label",
    "contrastive",
    "predicted",
    "random",
    "random_sign",
    "all",
    "log_probability",
    "sum_log_probability",
]
_NEED_LABELS = ("label", "contrastive", "log_probability")


def target_coefficients(
    logits: Tensor,
    target: Target | Tensor,
    *,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the weight of each logit in the explained quantity.

    ============================= ==============================================================
    ``label``                     the label's logit
    ``contrastive``               the label's logit minus the mean of the others
    ``predicted``                 the largest logit
    ``random``, ``random_sign``   a logit drawn with equal chances; with a sign of either kind
    ``log_probability``           gradient of the label's log-probability in the logits
    ``sum_log_probability``       gradient of all classes' summed log-probability (Ross et al. 2017)
    ``all``                       every logit, one after the other
    ============================= ==============================================================

    The gradients of log-probabilities stay functions of the logits; all others are constants.

    Args:
        logits: (B, classes).
        target: A name, or the coefficients themselves, (B, classes).
        labels: (B,) int64; needed by label, contrastive and log_probability.
        generator: Draws the class of a random target; torch's default one if None.

    Returns:
        (B, classes); for ``all`` (classes, B, classes).

    Raises:
        ConfigError: Unknown target, or no labels for one that needs them.
        ShapeError: Labels or coefficients do not fit the logits.

    Reference:
        Bassi et al. (2024), Nature Communications 15:291 (all classes; random class in their Faster
        ISNet); Ross, Hughes and Doshi-Velez (2017), IJCAI, 2662-2670 (log-probabilities).
    """
    if isinstance(target, Tensor):
        if target.shape != logits.shape:
            raise ShapeError(
                f"a target tensor holds one coefficient a logit: expected {tuple(logits.shape)}, "
                f"got {tuple(target.shape)}. Build it as (B, classes)."
            )
        return target.to(logits)
    if target not in get_args(Target):
        raise ConfigError(
            f"target must be one of {', '.join(get_args(Target))} or a tensor (B, classes), got "
            f"{target}. Choose one."
        )
    batch, classes = logits.shape
    if target in _NEED_LABELS:
        chosen = one_hot(_checked(labels, logits, target), classes).to(logits)  # B classes
        return _of_label(target, chosen, logits)
    if target == "all":
        return torch.eye(classes).to(logits).unsqueeze(1).expand(-1, batch, -1)
    if target == "sum_log_probability":
        return 1 - classes * logits.softmax(dim=1)
    if target == "predicted":
        return one_hot(logits.argmax(dim=1), classes).to(logits)
    return _random(logits, generator, signed=target == "random_sign")


def _of_label(target: str, chosen: Tensor, logits: Tensor) -> Tensor:
    classes = logits.shape[1]
    if target == "log_probability":
        return chosen - logits.softmax(dim=1)
    if target == "contrastive" and classes > 1:
        return chosen - (1 - chosen) / (classes - 1)
    return chosen


def _random(logits: Tensor, generator: torch.Generator | None, *, signed: bool) -> Tensor:
    batch, classes = logits.shape
    device = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.randint(classes, (batch,), generator=generator, device=device)
    chosen = one_hot(drawn, classes).to(logits)
    if not signed:
        return chosen
    sign = torch.randint(2, (batch, 1), generator=generator, device=device) * 2 - 1
    return chosen * sign.to(logits)


def _checked(labels: Tensor | None, logits: Tensor, target: str) -> Tensor:
    batch, classes = logits.shape
    if labels is None:
        raise ConfigError(
            f"target={target} needs labels: expected ({batch},) int64, got None. Pass labels=, or "
            f"use target=predicted."
        )
    if labels.shape != (batch,) or labels.is_floating_point():
        raise ShapeError(
            f"labels must be class indices: expected ({batch},) int64, got {tuple(labels.shape)} "
            f"{str(labels.dtype).removeprefix('torch.')}. Pass one integer a sample."
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ShapeError(
            f"labels must lie in 0..{classes - 1}: got {int(labels.min())}..{int(labels.max())}. "
            f"Give the model as many outputs as there are classes."
        )
    return labels.to(device=logits.device, dtype=torch.int64)
