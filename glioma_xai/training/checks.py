"""What a run must have before its first epoch: weights that learn, donors, a loss that works."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pandas as pd
import torch

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.errors import ConfigError
from glioma_xai.losses import ISNet
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.training.validation import LOGGED, OF_EXCHANGE, OF_MASKS

_MONITORING = {"best", "early_stopping"}
_KNOWN = {*_MONITORING, "pareto"}
_GRADIENTS = {"gradient", "gradient_times_input", "guided_backprop"}


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
            one, or if optimizer, schedule or guidance loss refuse their arguments.
    """
    if not any(parameter.requires_grad for parameter in module.model.parameters()):
        raise ConfigError(
            "model: expected parameters that learn, found all of them frozen or none at all. Set "
            "requires_grad on those of the last layers at least."
        )
    _check_optimizer(module)
    module.objective.schedule(0, 1)
    _check_donors(module, batch_size)
    _check_loss(module, input_shape)


def check_monitors(callbacks: Mapping[str, Any], *, table: pd.DataFrame, batch_size: int) -> None:
    """Refuse to choose epochs by a score that no epoch will have.

    Args:
        callbacks: The config's, by name; None for one that is switched off.
        table: The data's samples, with the columns ``split``, ``patient_id`` and ``lesion_area``.
        batch_size: Of validation: a batch's patients lend each other their backgrounds.

    Raises:
        ConfigError: If a callback monitors none of the scores that are logged, unless there is one
            of the user's own that may log more, or a score that needs masks that are missing.
    """
    used = {name: node for name, node in callbacks.items() if node is not None}
    drawn = (table["split"] == "validation") & (table["lesion_area"] > 0)
    masked = table.loc[drawn, "patient_id"].nunique()
    for name in _MONITORING & used.keys():
        monitor = str(used[name]["monitor"])
        _check_monitor(
            f"callbacks.{name}.monitor={monitor}",
            monitor.removeprefix("validation/"),
            masked=masked,
            lenders=min(batch_size, masked),
            known=used.keys() <= _KNOWN,
        )


def _check_monitor(setting: str, score: str, *, masked: int, lenders: int, known: bool) -> None:
    if score not in LOGGED and known:
        near = get_close_matches(score, LOGGED, n=1)
        did_you_mean = f" Did you mean validation/{near[0]}?" if near else ""
        raise ConfigError(
            f"{setting}: expected a score that training logs, validation/ and one of "
            f"{', '.join(sorted(LOGGED))}.{did_you_mean}"
        )
    if score in OF_MASKS and not masked:
        raise ConfigError(
            f"{setting}: expected validation patients with masks of the tumour, found none. Choose "
            "a score that needs none, such as validation/auc."
        )
    if score in OF_EXCHANGE and lenders < 2:
        raise ConfigError(
            f"{setting}: expected 2 validation patients or more with masks in one batch, who can "
            f"lend each other their backgrounds, found {lenders}. Raise data.batch_size, or choose "
            "a score that needs no exchange, such as validation/auc."
        )


def check_trainer(settings: Mapping[str, Any], module: GuidedClassifier) -> None:
    """Refuse settings of the Trainer that end a run only in its first step, or in an epoch's end.

    Args:
        settings: The config's, with ``accelerator``, ``precision``, ``strategy``, ...
        module: About to be trained.

    Raises:
        ConfigError: For half precision throughout, processes that are forked off with the network,
            or statistics shared between devices (SyncBatchNorm) where they cannot be.
    """
    precision = str(settings.get("precision"))
    if precision in {"16-true", "bf16-true"}:
        raise ConfigError(
            f"trainer.precision: expected weights in single precision, in which relevance is "
            f"computed, found {precision}. Set {precision.replace('true', 'mixed')}."
        )
    strategy = str(settings.get("strategy"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise ConfigError(
            f"trainer.strategy: expected processes that start anew, found {strategy}. Set "
            "trainer.strategy=ddp, or trainer=ddp."
        )
    norms = [m for m in module.model.modules() if isinstance(m, BATCH_NORMS)]
    if not settings.get("sync_batchnorm") or not norms:
        return
    accelerator = str(settings.get("accelerator"))
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        raise ConfigError(
            "trainer.sync_batchnorm: expected GPUs, which alone can share BatchNorm's statistics, "
            "found none. Set trainer.sync_batchnorm=false."
        )
    if module.guides and module.attribution.composite in _GRADIENTS:
        raise ConfigError(
            "trainer.sync_batchnorm: expected a rule that folds BatchNorm, such as "
            f"attribution=epsilon, found {module.attribution.composite}, which differentiates it "
            "twice; torch's SyncBatchNorm cannot. Set trainer.sync_batchnorm=false."
        )


def _check_optimizer(module: GuidedClassifier) -> None:
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer or scheduler: {error}. Change its setting; python -m glioma_xai.train "
            "--cfg job shows them all."
        ) from error


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
