"""What a plain network learns on the phantom: with no shortcut, with each, and with no tumour.

``python benchmarks/phantom_study.py`` (``make phantom-study``) writes a row for every condition and
seed to ``benchmarks/results/phantom_study.csv`` and passes over the rows that are there, so it can
be stopped and started again. A row takes one to two minutes on a quiet core. 300 patients train
the paper's small CNN on 4 slices each (at 4 mm; ``--spacing 2`` for the default size, which takes
four times as long), 200 others test it; accuracy by patient is that of the mean probability over
the slices, its standard error about .02.

``background_*`` networks see what is more than 72 mm from where the tumour started, in the plane,
scaled in one of three ways; the last column is a logistic regression on the intensities there.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.anatomy import draw_head, draw_location
from glioma_xai.data.cohort import read_rows
from glioma_xai.data.patient import Stream, stream
from glioma_xai.data.shortcuts import SHORTCUTS
from glioma_xai.models.networks import SmallCNN
from glioma_xai.records import MODALITIES, Split

OUTPUT = Path(__file__).parent / "results" / "phantom_study.csv"
BACKGROUNDS = ("background_own", "background_healthy", "background_zscore")
CUT_MM = 72.0  # radius of the disc around the tumour's start that background images lack
EPOCHS, BATCH, RATE = 12, 64, 3e-3
COLUMNS = (
    "condition", "spacing_mm", "seed", "train_patients", "test_patients", "perfect_reader",
    "as_trained", "removed", "swapped", "intensities", "seconds",
)  # fmt: skip


def load(data: GliomaDataModule, split: Split, variant: str | None = None) -> dict[str, Tensor]:
    """All samples of a split as tensors: image (N, C, H, W), label, patient and where (N, 1, H, W).

    ``far`` is 1 in the brain away from the tumour's start; its patients are numbered.
    """
    batches = list(data.evaluation_loader(split, variant=variant))
    subjects = [subject for batch in batches for subject in batch["subject_id"]]
    places = {subject: far_from_tumour(data, subject) for subject in dict.fromkeys(subjects)}
    brain = torch.cat([batch["brain_mask"] for batch in batches])
    return {
        "image": torch.cat([batch["image"] for batch in batches]),
        "label": torch.cat([batch["label"] for batch in batches]),
        "patient": torch.tensor([list(places).index(subject) for subject in subjects]),
        "far": brain * torch.stack([places[subject] for subject in subjects]),
    }


def far_from_tumour(data: GliomaDataModule, subject_id: str) -> Tensor:
    """1 more than 72 mm from where the tumour started, whatever the class, (1, H, W)."""
    seed, number = data.phantom_settings.seed, int(subject_id.split("_")[2]) - 1
    head = draw_head(stream(seed, number, Stream.ANATOMY))
    centre = draw_location(stream(seed, number, Stream.GROWTH), head)
    affine = np.array(data.cohort.entry(subject_id).geometry["model_affine"])
    index = np.indices(data.input_shape[1:]).reshape(2, -1)
    x, y = affine[:2, :2] @ index + affine[:2, 3:]
    far = np.hypot(x - centre[0], y - centre[1]) >= CUT_MM
    return torch.from_numpy(far.reshape(1, *data.input_shape[1:]).astype(np.float32))


def background_only(samples: dict[str, Tensor], *, own_scale: bool) -> dict[str, Tensor]:
    """Blank everything but the far brain; ``own_scale`` z-scores it by each patient's own."""
    image, far = samples["image"].clone(), samples["far"]
    for patient in range(int(samples["patient"].max()) + 1 if own_scale else 0):
        rows = samples["patient"] == patient
        inside = far[rows].expand_as(image[rows]) == 1
        for channel in range(image.shape[1]):
            values = image[rows][:, channel][inside[:, channel]]
            spread, mean = torch.std_mean(values, correction=0)
            image[rows, channel] = (image[rows, channel] - mean) / spread
    return samples | {"image": image * far}


def train(samples: dict[str, Tensor], seed: int) -> nn.Module:
    """Fit the small CNN by AdamW with one cycle of the learning rate; images are flipped."""
    torch.manual_seed(seed)
    images, labels = samples["image"], samples["label"]
    network = SmallCNN(input_shape=tuple(images.shape[1:]), classes=2)
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for chosen in order[: len(order) // BATCH * BATCH].split(BATCH):
            batch = images[chosen]
            flipped = (torch.rand(len(batch), 1, 1, 1) < 0.5).expand_as(batch)
            batch = torch.where(flipped, batch.flip(2), batch)
            loss = nn.functional.cross_entropy(network(batch), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, samples: dict[str, Tensor]) -> float:
    """Share of patients whose mean probability over slices is right."""
    chances = torch.cat([network(part).softmax(1) for part in samples["image"].split(256)])
    patients = int(samples["patient"].max()) + 1
    by_patient = torch.zeros(patients, 2).index_add_(0, samples["patient"], chances)
    labels = torch.zeros(patients, dtype=torch.long).index_copy_(
        0, samples["patient"], samples["label"]
    )
    return float((by_patient.argmax(1) == labels).float().mean())


def intensity_accuracy(parts: list[dict[str, Tensor]]) -> float:
    """Tenfold accuracy of a logistic regression on what the far brain's intensities look like."""
    rows: list[NDArray[np.float32]] = []
    labels: list[int] = []
    for samples in parts:
        for patient in range(int(samples["patient"].max()) + 1):
            own = samples["patient"] == patient
            inside = samples["far"][own][:, 0] == 1
            values = samples["image"][own].movedim(1, 0)[:, inside].numpy()  # C pixels
            quantiles = np.percentile(values, (10, 25, 50, 75, 90), axis=1).ravel()
            rows.append(np.concatenate([values.mean(1), values.std(1), quantiles]))
            labels.append(int(samples["label"][own][0]))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    return float(cross_val_score(model, np.array(rows), labels, cv=10).mean())


def perfect_reader(data: GliomaDataModule) -> float:
    """How often the sign of the malignancy is right in the test split."""
    tested = set(data.table.loc[data.table["split"] == "test", "subject_id"])
    rows = [row for row in read_rows(data.cohort.source.root) if row.patient_id in tested]
    return float(np.mean([(row.malignancy > 0) == (row.grade == "HGG") for row in rows]))


def measure(
    condition: str, *, seed: int, subjects: int, spacing_mm: float, folder: Path
) -> dict[str, object]:
    """One row: write the cohort, train on it, test it and its variants."""
    started = time.perf_counter()
    background = condition in BACKGROUNDS
    scale = condition.removeprefix("background_") if background else "zscore"
    data = GliomaDataModule(
        shortcut="none" if background else condition,
        phantom={"subjects": subjects, "seed": seed},
        modalities=MODALITIES,
        normalisation="none" if scale == "own" else scale,
        spacing_mm=spacing_mm,
        spatial_size=[round(192 / spacing_mm), round(224 / spacing_mm)],
        test_share=0.4,
        validation_share=0.0,
        cache_dir=str(folder),
    )
    data.setup()
    training, tested = load(data, "train"), load(data, "test")
    intensities = ""
    if background:
        own = scale == "own"
        training, tested = (background_only(s, own_scale=own) for s in (training, tested))
        intensities = f"{intensity_accuracy([training, tested]):.3f}"
    network = train(training, seed)
    changed = {name: f"{accuracy(network, load(data, 'test', name)):.3f}" for name in data.variants}
    return {
        "condition": condition,
        "spacing_mm": spacing_mm,
        "seed": seed,
        "train_patients": int(training["patient"].max()) + 1,
        "test_patients": int(tested["patient"].max()) + 1,
        "perfect_reader": f"{perfect_reader(data):.3f}",
        "as_trained": f"{accuracy(network, tested):.3f}",
        **changed,
        "intensities": intensities,
        "seconds": round(time.perf_counter() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--spacing", type=float, default=4.0, help="mm, of the network's pixels")
    parser.add_argument("--conditions", nargs="+", default=[*SHORTCUTS, *BACKGROUNDS])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    keys = ("condition", "spacing_mm", "seed")
    done: set[tuple[str, ...]] = set()
    if options.output.exists():
        with options.output.open(newline="") as file:
            done = {tuple(row[key] for key in keys) for row in csv.DictReader(file)}
    else:
        options.output.write_text(",".join(COLUMNS) + "\n")
    for seed in options.seeds:
        for condition in options.conditions:
            if (condition, str(options.spacing), str(seed)) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                row = measure(
                    condition,
                    seed=seed,
                    subjects=options.subjects,
                    spacing_mm=options.spacing,
                    folder=Path(folder),
                )
            with options.output.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n").writerow(row)
            print(", ".join(f"{key} {value}" for key, value in row.items() if value != ""))


if __name__ == "__main__":
    main()
