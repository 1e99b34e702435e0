"""Numbers of the phantom's data card: what a small network learns with and without each shortcut.

``python benchmarks/phantom_card.py --seed 0`` takes about five minutes on a core. Patients 0 to 299
train, 300 to 499 test; accuracy by patient is that of the mean probability over four slices.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from glioma_xai.data.anatomy import draw_head, draw_location
from glioma_xai.data.patient import Patient, Stream, build_patient, stream
from glioma_xai.data.plan import PhantomSettings, enrol
from glioma_xai.data.shortcuts import SHORTCUTS, apply_shortcut
from glioma_xai.records import MODALITIES

PATIENTS, TRAIN = 500, 300
SLICES = [1, 3, 4, 6]
CUT_MM = 72.0  # radius of the disc around the tumour's centre that background images lack


def build(settings: PhantomSettings, number: int) -> Patient:
    enrolment = enrol(settings, number)
    return build_patient(
        seed=settings.seed,
        number=number,
        grade=enrolment.grade,
        site=enrolment.site,
        difficulty=settings.difficulty,
        slices=settings.slices,
    )


def to_tensor(patient: Patient, inside: NDArray[np.bool_]) -> Tensor:
    """Z-score with statistics of ``inside``; air stays 0. Slices x 4 x 96 x 112, float32."""
    channels = []
    for modality in MODALITIES:
        image = patient.images[modality].astype(np.float32)
        scaled = (image - image[inside].mean()) / image[inside].std()
        channels.append(np.where(image != 0, scaled, 0)[:, :, SLICES])
    padded = np.pad(np.stack(channels), ((0, 0), (2, 3), (1, 2), (0, 0)))
    return torch.from_numpy(padded).permute(3, 0, 1, 2).contiguous()


def far_from_tumour(settings: PhantomSettings, number: int, patient: Patient) -> NDArray[np.bool_]:
    """Brain more than 72 mm from the tumour's centre, in the plane."""
    head = draw_head(stream(settings.seed, number, Stream.ANATOMY))
    centre = draw_location(stream(settings.seed, number, Stream.GROWTH), head)
    x, y = np.indices(patient.brain_mask.shape[:2])
    far = np.hypot(2 * x - 90 - centre[0], 2 * y - 126 - centre[1]) >= CUT_MM
    return patient.brain_mask & far[:, :, None]


def scaled_background(patient: Patient, far: NDArray[np.bool_], method: str) -> list[float]:
    """Mean, spread and quantiles of the background in each sequence after scaling."""
    brain = patient.brain_mask
    region = {"background": far, "healthy": brain & ~patient.lesion_mask}.get(method, brain)
    numbers: list[float] = []
    for image in patient.images.values():
        inside, shift, scale = image[region], 0.0, 1.0
        if method == "percentile":
            shift, top = np.percentile(inside, (0.5, 99.5))
            scale = top - shift
        elif method != "raw":
            shift, scale = float(inside.mean()), float(inside.std())
        values = (image[far] - shift) / scale
        quantiles = np.percentile(values, (10, 25, 50, 75, 90))
        numbers += [float(values.mean()), float(values.std()), *quantiles.tolist()]
    return numbers


def train(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Small network with batch normalisation, AdamW with one cycle of the learning rate."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for entering, leaving in ((4, 12), (12, 24), (24, 48), (48, 48)):
        stride = 2 if entering == 4 else 1
        layers.append(nn.Conv2d(entering, leaving, 3, padding=1, stride=stride))
        layers += [nn.BatchNorm2d(leaving), nn.ReLU(), nn.MaxPool2d(2)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, 2)]
    network = nn.Sequential(*layers, *pool)
    slices, targets = images.flatten(0, 1), labels.repeat_interleave(len(SLICES))
    steps = epochs * (len(slices) // 64)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(slices))
        for chosen in order[: len(order) // 64 * 64].split(64):
            batch = slices[chosen]
            batch = batch.flip(2) if torch.rand(1) < 0.5 else batch
            loss = nn.functional.cross_entropy(network(batch), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of patients whose mean probability over slices is right."""
    chances = torch.stack([network(slices).softmax(1).mean(0) for slices in images])
    return float((chances.argmax(1) == labels).float().mean())


def score_background(settings: PhantomSettings, patients: list[Patient], labels: Tensor) -> None:
    """Print how much the background tells, to the network and by its intensities alone."""
    far = [far_from_tumour(settings, i, patient) for i, patient in enumerate(patients)]
    pairs = list(zip(patients, far, strict=True))
    padded = [torch.from_numpy(np.pad(x.any(axis=2), ((2, 3), (1, 2)))) for x in far]
    background = torch.stack([to_tensor(p, x) * c for (p, x), c in zip(pairs, padded, strict=True)])
    network = train(background[:TRAIN], labels[:TRAIN], epochs=10)
    score = accuracy(network, background[TRAIN:], labels[TRAIN:])
    print(f"background only  {score:.3f}", flush=True)
    for method in ("raw", "background", "healthy", "zscore", "percentile"):
        rows = np.array([scaled_background(p, x, method) for p, x in pairs])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
        score = cross_val_score(model, rows, labels.numpy(), cv=10).mean()
        print(f"its intensities scaled by {method:<10} {score:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    settings = PhantomSettings(seed=parser.parse_args().seed)
    patients = [build(settings, number) for number in range(PATIENTS)]
    labels = torch.tensor([int(enrol(settings, i).grade == "HGG") for i in range(PATIENTS)])
    known = torch.tensor([int(patient.malignancy > 0) for patient in patients])
    print(f"perfect reader   {float((known == labels)[TRAIN:].float().mean()):.3f}", flush=True)

    clean = torch.stack([to_tensor(patient, patient.brain_mask) for patient in patients])
    network = train(clean[:TRAIN], labels[:TRAIN], epochs=12)
    print(f"no shortcut      {accuracy(network, clean[TRAIN:], labels[TRAIN:]):.3f}", flush=True)
    for name in SHORTCUTS[1:]:
        marked = torch.empty_like(clean)
        for number, patient in enumerate(patients):
            rng = stream(settings.seed, number, Stream.SHORTCUT)
            changed = apply_shortcut(name, patient, rng)
            marked[number] = to_tensor(changed, changed.brain_mask)
        high = (labels == 1)[:, None, None, None, None]
        trained, swapped = torch.where(high, marked, clean), torch.where(high, clean, marked)
        network = train(trained[:TRAIN], labels[:TRAIN], epochs=10)
        scores = [accuracy(network, x[TRAIN:], labels[TRAIN:]) for x in (trained, clean, swapped)]
        print(f"{name:<17}" + " / ".join(f"{score:.3f}" for score in scores), flush=True)
    score_background(settings, patients, labels)


if __name__ == "__main__":
    main()
