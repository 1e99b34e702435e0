"""What guidance costs: a guided training step beside a plain one, in one process."""

import time
from copy import deepcopy
from statistics import median

import torch

from glioma_xai.data import GliomaDataModule
from glioma_xai.training.module import GuidedClassifier

_REPEATS = 5


def step_ratio(module: GuidedClassifier, data: GliomaDataModule) -> dict[str, float]:
    """Median seconds of a plain and of a guided step (forward and backward), and their ratio.

    Both run in turn on the same training batch, on a copy of the network. Without guidance there is
    nothing to compare, and the result is empty.
    """
    if not module.guides:
        return {}
    module.calibrate()  # the chosen epoch may lie before the first guided one
    batch = next(iter(data.train_dataloader()))
    batch = module.transfer_batch_to_device(batch, module.device, 0)
    trained = module.model
    module.model = deepcopy(trained).train()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    try:
        for _ in range(_REPEATS):
            for guide, times in seconds.items():
                start = time.perf_counter()
                parts = module.losses(batch, step=1, total_steps=2, guide=guide)
                torch.autograd.backward(parts.total)
                times.append(time.perf_counter() - start)
    finally:
        module.model = trained
    plain, guided = median(seconds[False][1:]), median(seconds[True][1:])  # the first warms up
    return {
        "plain_step_seconds": plain,
        "guided_step_seconds": guided,
        "guided_plain_step_ratio": guided / plain,
    }
