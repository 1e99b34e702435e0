"""One GPU a job, where several jobs run at a time on a machine with several GPUs."""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from omegaconf import DictConfig, OmegaConf

from glioma_xai.errors import ConfigError

SHARES_A_MACHINE = ("joblib", "submitit_local")
"""Launchers that start jobs at a time and leave it to the jobs which GPU they take."""
_HIDES_DEVICES = "submitit_local"  # gives every job the same GPUs, none unless gpus_per_node is set

_held: list[IO[str]] = []  # as long as this process lives


@dataclass(frozen=True)
class Place:
    """Where the jobs of a sweep run; goes with each of them into its process.

    Args:
        folder: Of the sweep.
        launcher: Of the sweep.
        devices: GPUs that were visible when the sweep started, see :func:`visible_devices`.
    """

    folder: Path
    launcher: str
    devices: tuple[str, ...] = ()


def visible_devices() -> tuple[str, ...]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return tuple(given.split(","))
    return tuple(str(number) for number in range(torch.cuda.device_count()))


def take_device(config: DictConfig, place: Place) -> str | None:
    """Let this process see one GPU only, one that no other process of the sweep has.

    Args:
        config: Of the job.
        place: Where it runs; the GPUs that are taken are locked in a folder of the sweep.

    Returns:
        What ``CUDA_VISIBLE_DEVICES`` is now; None if there is nothing to choose.

    Raises:
        ConfigError: If the job names its GPU by a number.
    """
    if place.launcher not in SHARES_A_MACHINE or str(config.trainer.accelerator) == "cpu" or _held:
        return None
    refuse_device_numbers([config], place.launcher)
    hidden = place.launcher == _HIDES_DEVICES
    devices = place.devices if hidden else visible_devices()
    if len(devices) < (1 if hidden else 2):
        return None
    free = _free_place(place.folder / ".devices")
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[free % len(devices)]
    return os.environ["CUDA_VISIBLE_DEVICES"]


def refuse_device_numbers(configs: Sequence[DictConfig], launcher: str) -> None:
    """Refuse to name a GPU by its number where each job sees a single one.

    Args:
        configs: Of the jobs.
        launcher: Of the sweep.

    Raises:
        ConfigError: If a job asks for another GPU than the first that it sees.
    """
    if launcher not in SHARES_A_MACHINE:
        return
    for config in configs:
        devices = config.trainer.get("devices")
        if OmegaConf.is_list(devices) and list(devices) != [0]:
            raise ConfigError(
                f"trainer.devices: expected the number 1 with hydra/launcher={launcher}, which "
                f"gives each job a GPU of its own and hides the others, found {list(devices)}. Use "
                "trainer.devices=1; CUDA_VISIBLE_DEVICES chooses the GPUs of the whole sweep."
            )


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
