"""What one training step needs, estimated from a step on few samples."""

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.sweep_devices import SHARES_A_MACHINE
from glioma_xai.experiment.sweep_plan import Sweep
from glioma_xai.training.module import GuidedClassifier

_SAMPLES = 2
"""Guided samples of that step: they lend each other their backgrounds."""
_PROCESS = 1.5e9
"""Bytes that a process takes before its first step: the libraries, on a GPU also their kernels."""
_COPIES = 4
"""Of every weight: itself, its gradient, and two moments of Adam."""


@dataclass(frozen=True)
class Need:
    """Memory of one job, in bytes.

    Args:
        weights: Weights, their gradients and the optimizer's state.
        step: Largest sum of what a step on the whole batch holds at a time.
    """

    weights: int
    step: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.step


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor that is made, from its birth to its end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, Tensor):
                self._follow(value)
        return made

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._end, size)

    def _end(self, size: int) -> None:
        self.now -= size


def estimate_memory(module: GuidedClassifier, data: GliomaDataModule, *, batch_size: int) -> Need:
    """Memory of one training step, guided if the module guides.

    A step with two guided samples, and as many others as there are to two in the batch, runs on the
    CPU in float32, every tensor in it is followed, and what it held at most is scaled to the batch.
    Gradients and weights are counted apart. What a GPU's library reserves for its own work is not
    seen.

    Args:
        module: Changed by the step; to be thrown away afterwards.
        data: Set up; its batch size is changed.
        batch_size: Samples a step.
    """
    guided = module.guidance.guided_count(batch_size)
    samples = min(batch_size, math.ceil(_SAMPLES * batch_size / min(guided, batch_size)))
    if module.guidance.guided_batch is not None:
        fewer = replace(module.guidance, guided_batch=max(1, guided * samples // batch_size))
        module.guidance = module.supply.guidance = fewer
    data.batch_size, data.num_workers = samples, 0
    batch = next(iter(data.train_dataloader()))
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    module.train()
    module.calibrate()  # a loss may ask for a range that runs measure after their first epochs
    with TensorMemory() as held:
        parts = module.losses(batch, step=500, total_steps=1000, guide=True)
        torch.autograd.backward(parts.total)
    step = max(0, held.most - weights)  # gradients are among what was held
    return Need(weights=_COPIES * weights, step=round(step * batch_size / samples))


def memory_warning(need: Need, sweep: Sweep, accelerator: str) -> str | None:
    """Words if a job will probably not fit; None if it does, or if nobody can know.

    Args:
        need: Of the largest job.
        sweep: With its launcher; of machines that SLURM chooses nothing is known here.
        accelerator: ``cpu``, or a GPU's.
    """
    if sweep.launcher == "submitit_slurm":
        return None
    jobs = 1
    if accelerator == "cpu" or not torch.cuda.is_available():
        room, place = available_memory(), "of main memory are free"
        jobs = sweep.at_a_time
    else:
        room, place = torch.cuda.get_device_properties(0).total_memory, "is what a GPU has"
        if sweep.launcher in SHARES_A_MACHINE:  # more jobs than GPUs share them
            jobs = math.ceil(sweep.at_a_time / torch.cuda.device_count())
    if jobs * (need.total + _PROCESS) <= room:
        return None
    return (
        f"memory: {f'{jobs} jobs at a time, each with ' if jobs > 1 else ''}one step of about "
        f"{in_words(need.total)} and {in_words(_PROCESS)} for the program, and {in_words(room)} "
        f"{place}. Lower data.batch_size (and raise trainer.accumulate_grad_batches), "
        "loss.guided_share or data.spatial_size, or run fewer jobs at a time"
    )


def available_memory() -> int:
    """Bytes of main memory that programs can still take; all of it where that is not known."""
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_words(number: float) -> str:
    """Bytes as a text, such as ``1.3 GB``."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
