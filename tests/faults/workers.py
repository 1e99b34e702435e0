"""Signals to loops over workers: ``python -m tests.faults.workers <signal> <seconds>...``.

Each loop is forked off with a group of its own, which gets the signal after so many seconds. Prints
the exit code and the first line of what was said, or all of it if there is a traceback.
"""

import os
import sys
import tempfile
import time

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glioma_xai.experiment.launch import run_command
from glioma_xai.experiment.signals import interruptible


class Samples(Dataset[Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        time.sleep(0.002)
        return torch.full((100, 100), float(index))


def loop() -> None:
    with interruptible():
        while True:
            for batch in DataLoader(Samples(), 4, num_workers=2):
                batch.sum()


def stop_after(seconds: float, number: int) -> str:
    with tempfile.TemporaryFile("w+") as said:
        process = os.fork()
        if process == 0:
            os.setsid()
            os.dup2(said.fileno(), 2)
            os._exit(run_command(loop))
        time.sleep(seconds)
        os.killpg(process, number)
        _, status = os.waitpid(process, 0)
        time.sleep(0.1)  # what workers have to say
        said.seek(0)
        words = said.read()
    shown = words if "Traceback" in words else words.partition(". ")[0]
    return f"{os.waitstatus_to_exitcode(status)} {shown}"


if __name__ == "__main__":
    for text in sys.argv[2:]:
        print(stop_after(float(text), int(sys.argv[1])), flush=True)
