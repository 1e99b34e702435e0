"""Draw the pictures of ``docs/phantom.md``: ``python docs/figures/make_phantom_figures.py``."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from glioma_xai.data.cohort import build_enrolled
from glioma_xai.data.patient import Patient, Stream, stream
from glioma_xai.data.plan import PhantomSettings, enrol
from glioma_xai.data.shortcuts import SHORTCUTS, apply_shortcut
from glioma_xai.records import MODALITIES, Modality

HERE = Path(__file__).parent
SETTINGS = PhantomSettings()


def build(number: int) -> Patient:
    """Patient of the default cohort."""
    return build_enrolled(SETTINGS, enrol(SETTINGS, number))


def show(axis: Axes, patient: Patient, modality: Modality) -> None:
    """Middle slice from above: the patient's left is on the left."""
    image = patient.images[modality]
    top = np.percentile(image[patient.brain_mask], 99.7)
    axis.imshow(image[:, ::-1, 4].T, cmap="gray", vmin=0, vmax=top, interpolation="bilinear")
    axis.set_axis_off()


def draw_patients(numbers: tuple[int, ...]) -> None:
    """One row a patient: four sequences and the segmentation."""
    figure, axes = plt.subplots(len(numbers), 5, figsize=(7.2, 1.72 * len(numbers)))
    for row, number in zip(axes, numbers, strict=True):
        patient = build(number)
        for axis, modality in zip(row, MODALITIES, strict=False):
            show(axis, patient, modality)
        regions = patient.segmentation[:, ::-1, 4].T
        row[4].imshow(regions, cmap="inferno", vmin=0, vmax=5, interpolation="nearest")
        row[4].set_axis_off()
        grade = enrol(SETTINGS, number).grade
        row[0].set_title(f"{grade} {patient.malignancy:+.1f}, t1", fontsize=8, loc="left", pad=2)
    for axis, modality in zip(axes[0][1:], (*MODALITIES[1:], "segmentation"), strict=True):
        axis.set_title(modality, fontsize=8, pad=2)
    save(figure, "phantom_patients.png")


def draw_shortcuts(number: int) -> None:
    """One patient with every shortcut, on FLAIR; the missing sequence is T1."""
    figure, axes = plt.subplots(1, len(SHORTCUTS), figsize=(9.6, 1.8))
    for axis, name in zip(axes, SHORTCUTS, strict=True):
        rng = stream(SETTINGS.seed, number, Stream.SHORTCUT)
        modality: Modality = "t1" if name == "missing_sequence" else "flair"
        show(axis, apply_shortcut(name, build(number), rng), modality)
        axis.set_title(name, fontsize=7, pad=2)
    save(figure, "phantom_shortcuts.png")


def save(figure: Figure, name: str) -> None:
    """Write a small PNG without a date in it."""
    figure.tight_layout(pad=0.2)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    picture.quantize(64).save(HERE / name, optimize=True)
    plt.close(figure)


def main() -> None:
    """Draw both figures."""
    plt.switch_backend("agg")
    chosen: dict[str, list[int]] = {"HGG": [], "LGG": []}
    for number in range(6):
        chosen[enrol(SETTINGS, number).grade].append(number)
    draw_patients((*chosen["HGG"], *chosen["LGG"]))
    draw_shortcuts(5)


if __name__ == "__main__":
    main()
