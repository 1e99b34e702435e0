"""Runs that are stopped, and what shows that they ended as if they had not been."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.conftest import ROOT

SMOKE = ("+experiment=smoke",)
_OF_THE_FOLDER = {"dirpath", "best_model_path", "best_k_models", "kth_best_model_path"}
_OF_THE_FOLDER |= {"last_model_path"}


def start(
    cache: Path,
    *arguments: str,
    module: Sequence[str] = ("glioma_xai.train",),
    **options: object,
) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    environment = os.environ | {"GLIOMA_XAI_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment |= {"COLUMNS": "200"} | options.pop("environment", {})  # type: ignore[operator]
    return subprocess.Popen(
        [sys.executable, "-m", *module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until a run has written a file, or is over."""
    while process.poll() is None and not path.exists():
        time.sleep(0.005)


def group_is_empty(process: "subprocess.Popen[str]") -> bool:
    """Whether all processes of a session end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def state_of(folder: Path) -> str:
    """State in ``status.json``, which must be whole whenever it is there."""
    state = json.loads((folder / "status.json").read_text())["state"]
    assert state in {"running", "finished", "failed", "interrupted"}
    return str(state)


def assert_ends_as(folder: Path, reference: Path) -> None:
    """Weights, optimizer, schedule, best so far, metrics and predictions agree bit for bit."""
    assert state_of(folder) == "finished"
    for name in ("metrics.csv", "predictions.csv", "splits.csv"):
        assert (folder / name).read_text() == (reference / name).read_text(), name
    for name in ("best", "last"):
        here = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        there = torch.load(reference / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(here[key], there[key], key)
        assert_same(
            {key: value for key, value in here["callbacks"].items() if "Guards" not in key},
            {key: value for key, value in there["callbacks"].items() if "Guards" not in key},
            "callbacks",
        )
    assert not list(folder.rglob(".*.part"))


def assert_same(here: object, there: object, where: str) -> None:
    """Compare nested values, apart from the names of folders."""
    if isinstance(there, torch.Tensor):
        assert torch.equal(here, there), where
    elif isinstance(there, dict):
        assert here.keys() == there.keys(), where
        for key in there.keys() - _OF_THE_FOLDER:
            assert_same(here[key], there[key], f"{where}.{key}")
    elif isinstance(there, list | tuple):
        assert len(here) == len(there), where
        for position, pair in enumerate(zip(here, there, strict=True)):
            assert_same(*pair, f"{where}.{position}")
    elif there == there:  # NaN is equal to nothing
        assert here == there, where
