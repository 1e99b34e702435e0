"""A second device on every machine: torch's lazy backend stands in for a GPU.

It computes for real, on the CPU's memory, and refuses, as a GPU does, what lies elsewhere. It knows
neither autocast, storage nor views by ``split``, and Adam's step and BatchNorm's running statistics
are wrong on it, so that training there shows where everything lies, not how well it learns.

    python -m tests.second_device <train|evaluate|explain> <arguments>

runs an entry script for which ``trainer.accelerator=lazy +trainer.strategy=lazy`` and
``device=lazy`` mean it.
"""

import importlib
import sys
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry
from pytorch_lightning.strategies import SingleDeviceStrategy, StrategyRegistry
from pytorch_lightning.utilities import move_data_to_device
from torch._lazy import config, metrics, ts_backend

NAME = "lazy"
_started: list[bool] = []


class _Autocast(torch.autocast):
    """The backend has none of its own."""

    def __init__(self, device_type: str, *arguments: Any, **options: Any) -> None:
        super().__init__("cpu" if device_type == NAME else device_type, *arguments, **options)


class _SecondDevice(Accelerator):
    """What Lightning asks of an accelerator."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


def start() -> dict[str, Any]:
    """Make the device known to torch and to Lightning.

    Returns:
        What of torch has to be replaced while it is used, by name: autocast does not know it.
    """
    if not _started:
        _started.append(True)
        config.set_force_fallback("aten::convolution_backward")  # its own insists on all gradients
        ts_backend.init()
        AcceleratorRegistry.register(NAME, _SecondDevice)
        StrategyRegistry.register(NAME, SingleDeviceStrategy, device=torch.device(NAME))
    asked = torch.is_autocast_enabled
    return {
        "autocast": _Autocast,
        "is_autocast_enabled": lambda kind="cpu": asked("cpu" if kind == NAME else kind),
    }


def main() -> None:
    """An entry script with the device in reach; says at its end how much was computed there."""
    for name, value in start().items():
        setattr(torch, name, value)
    write, saved = torch.save, importlib.import_module("glioma_xai.experiment.saved")
    torch.save = lambda what, *rest: write(move_data_to_device(what, torch.device("cpu")), *rest)
    ask = saved.device_of
    saved.device_of = lambda text, **rest: torch.device(NAME) if text == NAME else ask(text, **rest)
    script = importlib.import_module(f"glioma_xai.{sys.argv.pop(1)}")
    try:
        script.main()
    finally:
        print(f"convolutions there: {metrics.counter_value('lazy::convolution') or 0}")


if __name__ == "__main__":
    main()
