"""What a guided training step costs beside a plain one.

    python benchmarks/guided_step.py [--device cpu] [--repeats 7] [--threads 1] [--small]

Runs all kinds of step in turn, round after round, in one process, so that a slow machine is slow
for all; prints medians and the peak memory that each adds (on the CPU from a process of its own).
With one thread on the CPU the clock is the process's own time, which other processes disturb less.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.networks.nets import resnet10
from torch import Tensor, nn
from zennit import composites as stock
from zennit.core import Composite

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.models.networks import SmallCNN

Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]


def cases(small: bool) -> list[Case]:
    """The 2-D and the 3-D case; smaller ones to try the script itself."""
    flat = (4, 3, 32, 32) if small else (16, 3, 160, 160)
    deep = (2, 4, 32, 32, 32) if small else (2, 4, 64, 64, 64)
    return [
        Case("2d", lambda: SmallCNN(input_shape=flat[1:], classes=2), flat),
        Case(
            "3d",
            lambda: resnet10(spatial_dims=3, n_input_channels=deep[1], num_classes=2),
            deep,
        ),
    ]


KINDS = (
    "plain",
    "input gradient",
    "ours epsilon",
    "ours epsilon, flat first",
    "ours epsilon_plus",
    "ours epsilon_plus_flat",
    "stock epsilon_plus",
    "stock epsilon_plus_flat",
)


def make_step(kind: str, case: Case, device: torch.device) -> Step:
    """Return a function that takes one optimisation step."""
    torch.manual_seed(0)
    model = case.model().to(device).train()
    images = torch.randn(case.shape, device=device)
    labels = torch.arange(case.shape[0], device=device) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    composite = _composite(kind, model, case)

    def losses() -> Tensor:
        if composite is None:
            return nn.functional.cross_entropy(model(images), labels)
        logits, relevance = compute_relevance(
            model, images, composite, labels=labels, create_graph=True
        )
        outside = relevance.abs()[..., : case.shape[-1] // 2].sum() / relevance.abs().sum()
        return nn.functional.cross_entropy(logits, labels) + outside

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses().backward()
        optimizer.step()

    return step


def _composite(kind: str, model: nn.Module, case: Case) -> Composite | None:
    shape = case.shape[1:]
    if kind == "plain":
        return None
    if kind == "input gradient":
        return build_composite("gradient", model, input_shape=shape)
    if kind == "ours epsilon, flat first":
        return build_composite("epsilon", model, input_shape=shape, first_layer="flat")
    whose, name = kind.split()
    if whose == "ours":
        return build_composite(name, model, input_shape=shape)
    for module in model.modules():  # Zennit's hooks refuse in-place steps
        if hasattr(module, "inplace"):
            module.inplace = False
    theirs = {"epsilon_plus": stock.EpsilonPlus, "epsilon_plus_flat": stock.EpsilonPlusFlat}
    return theirs[name]()


def interleaved(case: Case, device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each kind of step that can run."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    steps, failed = {}, []
    for kind in KINDS:
        try:
            steps[kind] = make_step(kind, case, device)
            steps[kind]()  # warm up
        except RuntimeError as error:
            print(f"{case.name} {kind}: {str(error).splitlines()[0]}", file=sys.stderr)
            failed.append(kind)
    seconds: dict[str, list[float]] = {kind: [] for kind in steps if kind not in failed}
    for _ in range(repeats):
        for kind, taken in seconds.items():
            _wait(device)
            start = clock()
            steps[kind]()
            _wait(device)
            taken.append(clock() - start)
    return {kind: statistics.median(taken) for kind, taken in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(kind: str, case: Case, device: torch.device) -> float:
    """MiB that two steps need on top of the model and batch at rest."""
    step = make_step(kind, case, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = _status("VmRSS")
    step()
    step()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    """MiB that the kernel reports for this process; Linux alone has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(field))


def _memory_apart(kind: str, case: Case, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-of", case.name, kind]
    command += ["--threads", str(arguments.threads), "--device", arguments.device]
    command += ["--small"] if arguments.small else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def main() -> None:
    """Parse the command line and print one table a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="tiny inputs, to try the script")
    parser.add_argument("--case", choices=("2d", "3d"), help="one case only")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    by_name = {case.name: case for case in cases(arguments.small)}
    if arguments.memory_of:
        name, kind = arguments.memory_of
        print(peak_memory(kind, by_name[name], device))
        return
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads")
    for case in by_name.values():
        if arguments.case not in (None, case.name):
            continue
        taken = interleaved(case, device, arguments.repeats)
        memory = {kind: _memory_apart(kind, case, arguments) for kind in taken}
        print(f"\n{case.name}: batch {case.shape}, median of {arguments.repeats}")
        print(f"{'step':<26}{'ms':>9}{'x plain':>9}{'MiB':>9}{'x plain':>9}")
        for kind, seconds in taken.items():
            print(
                f"{kind:<26}{1e3 * seconds:>9.1f}{seconds / taken['plain']:>9.2f}"
                f"{memory[kind]:>9.0f}{memory[kind] / memory['plain']:>9.2f}"
            )


if __name__ == "__main__":
    main()
