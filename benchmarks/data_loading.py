"""How long data takes: preparing a BraTS-sized case, and what a training step waits for batches.

Run with ``python benchmarks/data_loading.py [--subjects 96] [--case <folder of a BraTS case>]``;
prints two Markdown tables. One thread does all the arithmetic of a process.
"""

import argparse
import os
import tempfile
import time
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


def time_waiting(data: GliomaDataModule, workers: int, epochs: int) -> tuple[float, float, int]:
    """Seconds waited for batches and in all, over some epochs after a first one; and the steps."""
    data.num_workers = workers
    loader = data.train_dataloader()
    model = SmallCNN(input_shape=data.input_shape, classes=2)
    optimizer = torch.optim.Adam(model.parameters())
    waited, steps, begun = 0.0, 0, 0.0
    for epoch in range(epochs + 1):
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        if epoch == 1:
            waited, steps, begun = 0.0, 0, time.perf_counter()
        start = time.perf_counter()
        for batch in loader:
            waited += time.perf_counter() - start
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            torch.autograd.backward(loss)
            optimizer.step()
            steps += 1
            start = time.perf_counter()
    return waited, time.perf_counter() - begun, steps


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=96, help="phantom patients to train on")
    parser.add_argument("--case", type=Path, help="folder of a real BraTS case to prepare instead")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "data_loading")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = options.case or write_case(Path(folder))
        (subject,) = list_brats(case.parent, classes=("LGG", "HGG"), graded=False).subjects
        print("| 4 x 240 x 240 x 155 to | read, s | prepare, s | together, s |")
        print("| --- | --- | --- | --- |")
        for name, reading, preparing in time_preparation(subject, repeats=3):
            print(f"| {name} | {reading:.2f} | {preparing:.2f} | {reading + preparing:.2f} |")
    phantom = {"subjects": options.subjects}
    data = GliomaDataModule(phantom=phantom, cache_dir=str(options.cache))
    data.setup()
    print(
        f"\n{os.cpu_count()} cores, batches of 64 at {data.input_shape}, SmallCNN without guidance"
    )
    print("| workers | ms a step | of which waiting | share |\n| --- | --- | --- | --- |")
    for workers in (0, 1, 2):
        waited, total, steps = time_waiting(data, workers, epochs=4)
        print(
            f"| {workers} | {1e3 * total / steps:.0f} | {1e3 * waited / steps:.0f} "
            f"| {waited / total:.0%} |"
        )


if __name__ == "__main__":
    main()
