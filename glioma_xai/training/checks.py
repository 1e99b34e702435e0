"""What a run must have before its first epoch: weights that learn, donors, a loss that works."""

from collections.abc import Sequence

import torch

from glioma_xai.errors import ConfigError
from glioma_xai.losses import ISNet
from glioma_xai.training.module import GuidedClassifier


def check_training(
    module: GuidedClassifier, *, batch_size: int, input_shape: Sequence[int]
) -> None:
    """Refuse settings that would fail, or silently do nothing, only after the warm start.

    Args:
        module: About to be trained.
        batch_size: Of one process.
        input_shape: Channels and spatial size.

    Raises:
        ConfigError: If no parameter learns, if backgrounds shall be exchanged and nobody can give
            one, or if schedule or guidance loss refuse their arguments.
    """
    if not any(parameter.requires_grad for parameter in module.model.parameters()):
        raise ConfigError(
            "model: expected parameters that learn, found all of them frozen or none at all. Set "
            "requires_grad on those of the last layers at least."
        )
    module.objective.schedule(0, 1)
    _check_donors(module, batch_size)
    _check_loss(module, input_shape)


def _check_donors(module: GuidedClassifier, batch_size: int) -> None:
    guidance, bank = module.guidance, module.supply.bank
    drawn = batch_size if guidance.guided_batch is None else guidance.guided_batch
    uses = {
        "loss.warm_start=exchange or loss.exchange_share": (guidance.exchanges, batch_size),
        "loss.probe=mixed": (module.guides and guidance.probe == "mixed", drawn),
        "loss.consistency_weight": (module.compares, drawn),
    }
    for setting, (used, size) in uses.items():
        if used and size < 2:
            raise ConfigError(
                f"{setting}: expected at least 2 samples that can lend each other their "
                f"backgrounds, found {size}. Raise data.batch_size (and loss.guided_batch, if it "
                "is set)."
            )
        if used and bank is not None and len(set(bank.patients)) < 2:
            raise ConfigError(
                f"{setting}: expected training masks of at least 2 patients, found those of "
                f"{', '.join(sorted(set(bank.patients))) or 'none'}. Raise data.mask_share, or "
                "switch it off."
            )


def _check_loss(module: GuidedClassifier, input_shape: Sequence[int]) -> None:
    """Call the guidance loss once, on one map that is half inside."""
    loss = module.guidance.loss
    if loss is None or not module.guides or (isinstance(loss, ISNet) and loss.needs_calibration):
        return
    relevance = torch.ones(1, *input_shape)
    mask = torch.zeros(1, 1, *input_shape[1:])
    mask[:, :, : input_shape[1] // 2] = 1
    values = loss(relevance, mask)
    if values.shape != (1,):
        raise ConfigError(
            f"loss.guidance: expected one value a sample, (1,), found {tuple(values.shape)}. "
            "Return the mean over pixels, not over samples."
        )
