"""Gradient norms of the guidance loss over training runs, for each composite and stabilizer.

    python benchmarks/numerics.py [--steps 60] [--seeds 3] [--output numerics.csv]

The paper's CNN learns from small made-up images whose class is the brightness of a disc, with
relevance outside the disc as guidance loss. Prints, for each setting, the norm of the guidance
loss's gradient: its median over all steps and seeds, each run's largest (median over seeds), the
largest of all; how often it was not finite, and where the runs ended, on average.
"""

import argparse
import csv
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.errors import NumericsError
from glioma_xai.models.networks import SmallCNN

SHAPE = (1, 32, 32)
COMPOSITES = ("gradient_times_input", "epsilon", "zplus", "epsilon_plus", "epsilon_plus_flat")
STABILIZERS = (
    (1e-9, False),
    (1e-6, False),
    (1e-3, False),
    (1e-2, False),
    (1e-3, True),
    (1e-2, True),
)


@dataclass(frozen=True)
class Row:
    """One setting."""

    composite: str
    epsilon: float
    relative: bool
    median_norm: float
    largest_norm: float
    largest_of_all: float
    not_finite: int
    accuracy: float
    outside: float


@dataclass(frozen=True)
class Course:
    """One run: norms by step, and how it ended."""

    norms: list[float]
    not_finite: int
    accuracy: float
    outside: float


def batches(steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and discs; a corner of the images gives the class away."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    for _ in range(steps):
        labels = torch.randint(2, (16,), generator=generator)
        centre = torch.randint(10, 22, (2, 16, 1, 1), generator=generator)
        discs = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 30).float().unsqueeze(1)
        images = 0.5 * torch.randn(16, *SHAPE, generator=generator)
        images += discs * (0.5 + labels.view(-1, 1, 1, 1))
        images[labels == 1, :, :4, :4] = 3.0
        yield images, labels, discs


def run(composite: str, epsilon: float, relative: bool, *, steps: int, seed: int) -> Course:
    """Train and note the norms."""
    torch.manual_seed(seed)
    model = SmallCNN(input_shape=SHAPE, classes=2).train()
    options = {"epsilon": epsilon, "stabilizer": epsilon, "relative_epsilon": relative}
    built = build_composite(composite, model, input_shape=SHAPE, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = list(model.parameters())
    norms, not_finite, right, outside = [], 0, [], []
    for images, labels, discs in batches(steps, seed):
        try:
            logits, relevance = compute_relevance(
                model, images, built, labels=labels, target="contrastive", create_graph=True
            )
        except NumericsError:
            not_finite += steps - len(norms) - not_finite
            break
        size = relevance.abs().flatten(1)
        away = 1 - (relevance.abs() * discs).flatten(1).sum(1) / size.sum(1).clamp(min=1e-12)
        guidance = away.mean()
        gradients = torch.autograd.grad(guidance, weights, retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        right.append(float((logits.argmax(1) == labels).float().mean()))
        outside.append(float(guidance.detach()))
        if not math.isfinite(norm):
            not_finite += 1
            continue
        norms.append(norm)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(logits, labels) + guidance).backward()
        optimizer.step()
    last = slice(-10, None)
    return Course(
        norms,
        not_finite,
        statistics.mean(right[last]) if right else math.nan,
        statistics.mean(outside[last]) if outside else math.nan,
    )


def row_of(composite: str, epsilon: float, relative: bool, courses: Sequence[Course]) -> Row:
    """Put the runs of a setting together."""
    largest = [max(course.norms, default=math.nan) for course in courses]
    return Row(
        composite,
        epsilon,
        relative,
        statistics.median([norm for course in courses for norm in course.norms] or [math.nan]),
        statistics.median(largest),
        max(largest),
        sum(course.not_finite for course in courses),
        statistics.mean(course.accuracy for course in courses),
        statistics.mean(course.outside for course in courses),
    )


def main() -> None:
    """Parse the command line, run all settings, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for composite in COMPOSITES:
        for epsilon, relative in STABILIZERS[: 1 if "gradient" in composite else None]:
            courses = [
                run(composite, epsilon, relative, steps=arguments.steps, seed=seed)
                for seed in range(arguments.seeds)
            ]
            row = row_of(composite, epsilon, relative, courses)
            rows.append(
                {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in asdict(row).items()}
            )
            print(*rows[-1].values(), sep="  ", flush=True)
            if arguments.output:
                with arguments.output.open("w", newline="") as file:
                    writer = csv.DictWriter(
                        file, [f.name for f in fields(Row)], lineterminator="\n"
                    )
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
