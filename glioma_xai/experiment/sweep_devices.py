"""One GPU a job, where several jobs run at a time on a machine with several GPUs."""

import fcntl
import os
from pathlib import Path
from typing import IO

import torch
from omegaconf import DictConfig

SHARES_A_MACHINE = ("joblib", "submitit_local")
"""Launchers that start jobs at a time and leave it to the jobs which GPU they take."""

_held: list[IO[str]] = []  # as long as this process lives


def take_device(config: DictConfig, launcher: str, folder: Path) -> str | None:
    """Let this process see one GPU only, one that no other process of the sweep has.

    Args:
        config: Of the job.
        launcher: Of the sweep.
        folder: Of the sweep; the GPUs that are taken are locked in it.

    Returns:
        What ``CUDA_VISIBLE_DEVICES`` is now; None if there is nothing to choose.
    """
    if launcher not in SHARES_A_MACHINE or str(config.trainer.accelerator) == "cpu" or _held:
        return None
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
    if len(devices) < 2:
        return None
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[_free_place(folder) % len(devices)]
    return os.environ["CUDA_VISIBLE_DEVICES"]


def _free_place(folder: Path) -> int:
    """The first number that no living process holds; it is this process's until it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        file = (folder / f"{number}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            number += 1
        else:
            _held.append(file)
            return number
