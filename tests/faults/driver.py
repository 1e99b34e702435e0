"""The train command with a fault built in: ``python -m tests.faults.driver <fault> <arguments>``.

``half:<n>`` writes half of the n-th ``last.ckpt`` and is killed; ``between:<n>`` is killed when the
n-th has become ``previous.ckpt`` and the next one has not taken its place. ``nan:<rank>`` spoils
the relevance of one process alone in its second step; processes that a run starts itself hear of it
by ``FAULT`` in the environment.
"""

import io
import os
import signal
import sys
from pathlib import Path

import torch

from glioma_xai.models.networks import SmallCNN
from glioma_xai.train import main


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_of(number: int) -> None:
    save, calls = torch.save, []

    def half(content: object, file: io.BufferedWriter, *rest: object, **options: object) -> None:
        calls.extend([file] if ".last.ckpt" in file.name else [])
        if len(calls) < number:
            save(content, file, *rest, **options)
            return
        whole = io.BytesIO()
        save(content, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        kill()

    torch.save = half


def between_moves_of(number: int) -> None:
    replace, calls = Path.replace, []

    def stop(self: Path, target: Path) -> Path:
        moved = replace(self, target)
        if Path(target).name == "previous.ckpt":
            calls.append(target)
            if len(calls) == number:
                kill()
        return moved

    Path.replace = stop


def nan_of(rank: int) -> None:
    if int(os.environ.get("LOCAL_RANK", 0)) != rank:
        return
    forward, calls = SmallCNN.forward, []

    def spoil(self: SmallCNN, images: torch.Tensor) -> torch.Tensor:
        calls.append(images)
        return forward(self, images) * (torch.nan if len(calls) == 2 else 1.0)

    SmallCNN.forward = spoil


if __name__ == "__main__":
    fault, _, number = (os.environ.get("FAULT") or sys.argv.pop(1)).partition(":")
    {"half": half_of, "between": between_moves_of, "nan": nan_of}[fault](int(number))
    main()
