"""What guidance costs: a guided training step beside a plain one, in one process."""

import time
from copy import deepcopy
from statistics import median

import torch

from glioma_xai.data import GliomaDataModule
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier

_REPEATS = 5


def step_ratio(module: GuidedClassifier, data: GliomaDataModule) -> dict[str, float]:
    """Median seconds of a plain and of a guided step (forward and backward), and their ratio.

    Both on the same training batch, on a copy of the network, in float32. Without guidance there is
    nothing to compare, and the result is empty.
    """
    if not module.guides:
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


def step_seconds(module: GuidedClassifier, batch: Batch) -> tuple[float, float]:
    """Median seconds of a plain and of a guided step, taken in turn after one of each to warm up.

    Args:
        module: Its network gathers gradients.
        batch: On the module's device.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_REPEATS):
        for guide, times in seconds.items():
            start = _now(module.device)
            parts = module.losses(batch, step=1, total_steps=2, guide=guide)
            torch.autograd.backward(parts.total)
            times.append(_now(module.device) - start)
    return median(seconds[False][1:]), median(seconds[True][1:])


def _now(device: torch.device) -> float:
    """The time at which the device has done all that it was told; a GPU works behind the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
