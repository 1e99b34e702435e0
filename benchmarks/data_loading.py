"""How long data takes: preparing a BraTS-sized case, and what a training step waits for batches.

Run with ``python benchmarks/data_loading.py [--subjects 300] [--case <folder of a BraTS case>]``;
prints two Markdown tables, and writes them to ``--output`` (``benchmarks/results/data_loading.txt``
in the repository). One thread does all the arithmetic of a step.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.brats import list_brats
from glioma_xai.data.layout import LABEL_SCHEMES
from glioma_xai.data.loading import EpochSampler
from glioma_xai.data.transforms import Preparation, prepare
from glioma_xai.data.volumes import load_subject
from glioma_xai.models.networks import SmallCNN
from glioma_xai.records import Subject

SHAPE = (240, 240, 155)
MODALITIES = ("t1", "t1ce", "t2", "flair")


def write_case(folder: Path) -> Path:
    """A made-up case of the size and grey-level depth of BraTS: an ellipsoid of smooth noise."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    brain = (x / 0.58) ** 2 + (y / 0.72) ** 2 + (z / 0.9) ** 2 < 1
    case = folder / "HGG" / "Brats18_MADE_UP_1"
    case.mkdir(parents=True)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for name in MODALITIES:
        noise = rng.normal(400, 80, SHAPE).astype(np.float32)
        image = np.where(brain, noise + 100 * np.cos(5 * x) * np.cos(7 * y), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(image, affine), case / f"{case.name}_{name}.nii.gz")
    distance = (x - 0.2) ** 2 + (y - 0.1) ** 2 + z**2
    seg = np.select([distance < 0.01, distance < 0.03, distance < 0.06], [1, 4, 2]).astype(np.uint8)
    nib.save(nib.Nifti1Image(seg, affine), case / f"{case.name}_seg.nii.gz")
    return case


def time_preparation(subject: Subject, repeats: int) -> list[tuple[str, float, float]]:
    """Seconds of a core to read and to prepare one case, the least of some repeats."""
    scheme = LABEL_SCHEMES["brats2018"]
    settings = {
        "four slices of 96 x 112 at 2 mm": Preparation(MODALITIES, scheme),
        "volume of 96 x 112 x 80 at 2 mm": Preparation(
            MODALITIES,
            scheme,
            spatial_dims=3,
            spatial_size=(96, 112, 80),
            spacing_mm=(2.0, 2.0, 2.0),
        ),
        "volume of 160 x 192 x 144 at 1 mm": Preparation(
            MODALITIES, scheme, spatial_dims=3, spatial_size=(160, 192, 144), spacing_mm=None
        ),
    }
    rows = []
    for name, preparation in settings.items():
        reading, preparing = [], []
        for _ in range(repeats):
            start = time.process_time()
            loaded, problems = load_subject(subject, MODALITIES, scheme)
            if loaded is None:
                raise SystemExit("\n".join(str(problem) for problem in problems))
            middle = time.process_time()
            prepare(loaded, preparation)
            reading.append(middle - start)
            preparing.append(time.process_time() - middle)
        rows.append((name, min(reading), min(preparing)))
    return rows


@dataclass
class Waiting:
    """Seconds of some epochs after a first one."""

    steps: int = 0
    total: float = 0.0
    at_start: float = 0.0  # for the first batch of each epoch
    later: float = 0.0  # for all others


def time_waiting(data: GliomaDataModule, workers: int, epochs: int) -> Waiting:
    """Train the small CNN and measure what it waits for, from the second epoch on."""
    data.num_workers = workers
    loader = data.train_dataloader()
    model = SmallCNN(input_shape=data.input_shape, classes=2)
    optimizer = torch.optim.Adam(model.parameters())
    found = Waiting()
    for epoch in range(epochs + 1):
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        if epoch == 1:
            found = Waiting()
        begun = start = time.perf_counter()
        for number, batch in enumerate(loader):
            waited = time.perf_counter() - start
            found.at_start += waited if number == 0 else 0.0
            found.later += waited if number else 0.0
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            torch.autograd.backward(loss)
            optimizer.step()
            found.steps += 1
            start = time.perf_counter()
        found.total += time.perf_counter() - begun
    return found


def preparation_table(case: Path) -> list[str]:
    """Lines of the table of preparing one case."""
    (subject,) = list_brats(case.parent, classes=("LGG", "HGG"), graded=False).subjects
    lines = ["| 4 x 240 x 240 x 155 to | read, s | prepare, s | together, s |"]
    lines.append("| --- | --- | --- | --- |")
    for name, reading, preparing in time_preparation(subject, repeats=3):
        lines.append(f"| {name} | {reading:.2f} | {preparing:.2f} | {reading + preparing:.2f} |")
    return lines


def waiting_table(data: GliomaDataModule, epochs: int) -> list[str]:
    """Lines of the table of waiting, with no worker, one and two."""
    lines = [
        f"{os.cpu_count()} cores, batches of 64 at {data.input_shape}, SmallCNN without guidance",
        "| workers | ms a step | share of it waiting | ms waiting a step | ms, first of an epoch |",
        "| --- | --- | --- | --- | --- |",
    ]
    for workers in (0, 1, 2):
        found = time_waiting(data, workers, epochs)
        share = (found.at_start + found.later) / found.total
        lines.append(
            f"| {workers} | {1e3 * found.total / found.steps:.0f} | {share:.1%} "
            f"| {1e3 * found.later / (found.steps - epochs):.1f} "
            f"| {1e3 * found.at_start / epochs:.0f} |"
        )
    return lines


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=300, help="phantom patients to train on")
    parser.add_argument("--epochs", type=int, default=3, help="measured, after a first one")
    parser.add_argument("--case", type=Path, help="folder of a real BraTS case to prepare instead")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "data_loading")
    parser.add_argument("--output", type=Path, help="file to write the tables to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = preparation_table(options.case or write_case(Path(folder)))
    data = GliomaDataModule(phantom={"subjects": options.subjects}, cache_dir=str(options.cache))
    data.setup()
    text = "\n".join([*lines, "", *waiting_table(data, options.epochs), ""])
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)


if __name__ == "__main__":
    main()
