"""What a guided training step costs beside a plain one.

    python benchmarks/guided_step.py [--case 2d] [--repeats 7] [--output table.txt]
    python benchmarks/guided_step.py --growth batch --case 2d     # or --growth size
    python benchmarks/guided_step.py --device cuda --autocast     # bf16 classification

Runs all kinds of step in turn, round after round, in one process, so that a slow machine is slow
for all; prints medians and the peak memory that each adds (on the CPU from a process of its own).
With one thread on the CPU the clock is the process's own time, which other processes disturb less.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from monai.networks.nets import resnet10
from torch import Tensor, nn
from zennit import composites as stock
from zennit import rules, types
from zennit.core import Composite

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.models.networks import SmallCNN

Step = Callable[[], None]
Attribution = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]


def named(name: str, shape: tuple[int, ...]) -> Case:
    """The paper's CNN in 2-D or MONAI's ResNet10 in 3-D, for images of a shape."""
    if name == "2d":
        return Case(name, lambda: SmallCNN(input_shape=shape[1:], classes=2), shape)
    network = partial(resnet10, spatial_dims=3, n_input_channels=shape[1], num_classes=2)
    return Case(name, network, shape)


def cases(small: bool) -> list[Case]:
    """The 2-D and the 3-D case; smaller ones to try the script itself."""
    flat = (4, 3, 32, 32) if small else (16, 3, 160, 160)
    deep = (2, 4, 32, 32, 32) if small else (2, 4, 64, 64, 64)
    return [named("2d", flat), named("3d", deep)]


@dataclass(frozen=True)
class Kind:
    """A kind of step.

    Args:
        attribution: Whose rules, and which composite; empty for a plain step.
        options: Of the composite.
        share: Of the batch whose relevance is computed; the rest goes through a plain pass.
        every: Guided steps are every n-th; the time is the mean over n.
        map_only: A plain step, and a map without its gradient in the weights.
        channels_last: Memory format of model and images.
        compiled: torch.compile for the plain step.
    """

    attribution: str = ""
    options: dict[str, object] = field(default_factory=dict)
    share: float = 1.0
    every: int = 1
    map_only: bool = False
    channels_last: bool = False
    compiled: bool = False


KINDS = {
    "plain": Kind(),
    "input gradient": Kind("ours gradient"),
    "ours epsilon": Kind("ours epsilon"),
    "ours epsilon, flat first": Kind("ours epsilon", {"first_layer": "flat"}),
    "ours epsilon, relative": Kind("ours epsilon", {"relative_epsilon": True}),
    "ours epsilon_plus": Kind("ours epsilon_plus"),
    "ours epsilon_plus_flat": Kind("ours epsilon_plus_flat"),
    "stock epsilon": Kind("stock epsilon"),
    "stock epsilon_plus": Kind("stock epsilon_plus"),
    "stock epsilon_plus_flat": Kind("stock epsilon_plus_flat"),
}
MORE_KINDS = {
    "plain": Kind(),
    "plain, compiled": Kind(compiled=True),
    "plain, channels last": Kind(channels_last=True),
    "epsilon_plus": Kind("ours epsilon_plus"),
    "epsilon_plus, channels last": Kind("ours epsilon_plus", channels_last=True),
    "epsilon_plus, half the batch": Kind("ours epsilon_plus", share=0.5),
    "epsilon_plus, 4th of batch": Kind("ours epsilon_plus", share=0.25),
    "epsilon_plus, every 4th step": Kind("ours epsilon_plus", every=4),
    "map only: epsilon": Kind("ours epsilon", map_only=True),
    "map only: stock epsilon": Kind("stock epsilon", map_only=True),
    "map only: Captum LRP": Kind("captum epsilon", map_only=True),
}


def make_step(kind: Kind, case: Case, device: torch.device, *, autocast: bool = False) -> Step:
    """Return a function that takes one optimisation step, or ``every`` of them."""
    torch.manual_seed(0)
    model = case.model().to(device).train()
    images = torch.randn(case.shape, device=device)
    if kind.channels_last:
        order = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        model, images = model.to(memory_format=order), images.to(memory_format=order)
    labels = torch.arange(case.shape[0], device=device) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    forward = torch.compile(model) if kind.compiled else model
    relevance_of = _attribution(kind, model, case)
    guided = max(1, round(kind.share * len(images)))

    def plain(start: int = 0) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            return nn.functional.cross_entropy(forward(images[start:]).float(), labels[start:])

    def losses(number: int) -> Tensor:
        if relevance_of is None or number % kind.every:
            return plain()
        logits, relevance = relevance_of(images[:guided], labels[:guided])
        if kind.map_only:
            return plain()
        outside = relevance.abs()[..., : case.shape[-1] // 2].sum() / relevance.abs().sum()
        loss = outside + (
            plain() if autocast else nn.functional.cross_entropy(logits, labels[:guided])
        )
        return loss if autocast or guided == len(images) else loss + plain(guided)

    def step() -> None:
        for number in range(kind.every):
            optimizer.zero_grad(set_to_none=True)
            losses(number).backward()
            optimizer.step()

    return step


def _attribution(kind: Kind, model: nn.Module, case: Case) -> Attribution | None:
    if not kind.attribution:
        return None
    if kind.attribution.startswith("captum"):  # it swaps weights in place: backward raises
        from captum.attr import LRP
        from captum.attr._utils.lrp_rules import EpsilonRule

        still = copy.deepcopy(model).eval()
        method = LRP(still)

        def attribute_with_captum(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            for module in still.modules():
                if isinstance(module, nn.Flatten):  # Captum knows no rule for it, and forgets ours
                    module.rule = EpsilonRule()
            return Tensor(), method.attribute(images, target=labels)

        return attribute_with_captum
    composite = _composite(kind, model, case)

    def attribute(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return compute_relevance(
            model, images, composite, labels=labels, create_graph=not kind.map_only
        )

    return attribute


def _composite(kind: Kind, model: nn.Module, case: Case) -> Composite:
    whose, name = kind.attribution.split()
    if whose == "ours":
        return build_composite(name, model, input_shape=case.shape[1:], **kind.options)
    for module in model.modules():  # Zennit's hooks refuse in-place steps
        if hasattr(module, "inplace"):
            module.inplace = False
    layers = [*stock.layer_map_base(), ((types.Convolution, types.Linear), rules.Epsilon())]
    theirs: dict[str, Callable[[], Composite]] = {
        "epsilon": lambda: stock.LayerMapComposite(layers),
        "epsilon_plus": stock.EpsilonPlus,
        "epsilon_plus_flat": stock.EpsilonPlusFlat,
    }
    return theirs[name]()


def interleaved(
    kinds: dict[str, Kind], case: Case, device: torch.device, arguments: argparse.Namespace
) -> dict[str, float]:
    """Median seconds of each kind of step that can run."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    steps: dict[str, Step] = {}
    for name, kind in kinds.items():
        try:
            step = make_step(kind, case, device, autocast=arguments.autocast)
            step()  # warm up
            steps[name] = step
        except Exception as error:  # whatever another library raises is part of the result
            print(f"{case.name} {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, taken in seconds.items():
            _wait(device)
            start = clock()
            steps[name]()
            _wait(device)
            taken.append((clock() - start) / kinds[name].every)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(kind: Kind, case: Case, device: torch.device, *, autocast: bool) -> float:
    """MiB that two steps need on top of the model and batch at rest."""
    step = make_step(kind, case, device, autocast=autocast)
    if device.type == "cuda":
        step()
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


def _memory_apart(name: str, case: Case, arguments: argparse.Namespace) -> float:
    shape = [str(size) for size in case.shape]
    command = [sys.executable, __file__, "--memory-of", case.name, name, *shape]
    command += ["--threads", str(arguments.threads), "--device", arguments.device]
    command += ["--autocast"] if arguments.autocast else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def grown(case: Case, what: str, times: float) -> Case:
    """The case with a larger batch, or larger images."""
    batch, channels, *size = case.shape
    shape = (
        (round(batch * times), channels, *size)
        if what == "batch"
        else (batch, channels, *(round(axis * times) for axis in size))
    )
    return named(case.name, shape)


def table(
    kinds: dict[str, Kind], case: Case, device: torch.device, arguments: argparse.Namespace
) -> Iterator[str]:
    """Lines of one table."""
    taken = interleaved(kinds, case, device, arguments)
    yield f"\n{case.name}: batch {case.shape}, median of {arguments.repeats}"
    yield f"{'step':<30}{'ms':>9}{'x plain':>9}{'MiB':>9}{'x plain':>9}"
    memory = {name: _memory_apart(name, case, arguments) for name in taken}
    for name, seconds in taken.items():
        yield (
            f"{name:<30}{1e3 * seconds:>9.1f}{seconds / taken['plain']:>9.2f}"
            f"{memory[name]:>9.0f}{memory[name] / memory['plain']:>9.2f}"
        )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--device", default="cpu")
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--small", action="store_true", help="tiny inputs, to try the script")
    made.add_argument("--case", choices=("2d", "3d"), help="one case only")
    made.add_argument("--more", action="store_true", help="options and other libraries' maps")
    made.add_argument("--growth", choices=("batch", "size"), help="half to four times as large")
    made.add_argument("--autocast", action="store_true", help="classify in bfloat16")
    made.add_argument("--output", type=Path, help="write the tables to this file too")
    made.add_argument("--memory-of", nargs="+", help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Parse the command line and print one table a case."""
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.memory_of:
        name, kind, *shape = arguments.memory_of
        case = named(name, tuple(map(int, shape)))
        chosen = (KINDS | MORE_KINDS)[kind]
        print(peak_memory(chosen, case, device, autocast=arguments.autocast))
        return
    lines = [
        f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads"
        + (", bfloat16 autocast" if arguments.autocast else "")
    ]
    print(lines[0])
    chosen = MORE_KINDS if arguments.more else KINDS
    if arguments.growth:
        chosen = {name: KINDS[name] for name in ("plain", "ours epsilon", "ours epsilon_plus_flat")}
    for case in cases(arguments.small):
        if arguments.case not in (None, case.name):
            continue
        sizes = (0.5, 1, 2, 4) if arguments.growth else (1,)
        for times in sizes:
            one = grown(case, arguments.growth, times) if arguments.growth else case
            for line in table(chosen, one, device, arguments):
                print(line, flush=True)
                lines.append(line)
            if arguments.output:
                arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
