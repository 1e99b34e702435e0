"""What a run's step costs: beside a plain step of the same network, in one process."""

import math
import time
from copy import deepcopy
from statistics import median

import torch
from torch.nn.functional import cross_entropy

from glioma_xai.data import GliomaDataModule
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

_REPEATS = 5
_STEPS = 1000


def step_ratio(module: GuidedClassifier, data: GliomaDataModule) -> dict[str, float]:
    """Median seconds of a plain step and of a step of this run, and their ratio.

    Both on the same training batch, on a copy of the network, in float32, without the optimizer. A
    plain step is one of cross entropy on the images as they are. Where a run's steps are such steps
    there is nothing to compare, and the result is empty.
    """
    if not (module.guides or module.compares or module.guidance.exchange_share):
        return {}
    module.calibrate()  # the chosen epoch may lie before the first guided one
    batch = next(iter(data.train_dataloader()))
    batch = module.transfer_batch_to_device(batch, module.device, 0)
    trained = module.model
    module.model = deepcopy(trained).train()
    try:
        plain, guided = step_seconds(module, batch)
    finally:
        module.model = trained
    return {
        "plain_step_seconds": plain,
        "guided_step_seconds": guided,
        "guided_plain_step_ratio": guided / plain,
    }


def step_seconds(
    module: GuidedClassifier, batch: Batch, *, repeats: int = _REPEATS
) -> tuple[float, float]:
    """Median seconds of a plain step and of one of the module's own, taken in turn.

    The own step is one of the last of a run, at the full weight: it draws or exchanges samples
    where the run does. A run that guides every n-th step, or exchanges a share of its batches, has
    cheaper ones between.

    Args:
        module: Its network gathers gradients.
        batch: On the module's device.
        repeats: Of each, 2 or more; the first of each is for warming up.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for own, times in seconds.items():
            start = _now(module.device)
            torch.autograd.backward(_loss(module, batch, own=own))
            times.append(_now(module.device) - start)
    return median(seconds[False][1:]), median(seconds[True][1:])


def _loss(module: GuidedClassifier, batch: Batch, *, own: bool) -> torch.Tensor:
    if not own:
        return cross_entropy(module.model(batch["image"]), batch["label"])
    share = module.guidance.exchange_share
    exchanged = math.ceil(1 / share) - 1 if share else 0  # number of the first such batch
    seen = module.supply.seen(batch, epoch=0, batch_idx=exchanged, warm=False)
    return module.losses(seen, step=_STEPS - 1, total_steps=_STEPS).total


def _now(device: torch.device) -> float:
    """The time at which the device has done all that it was told; a GPU works behind the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
