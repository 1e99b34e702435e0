"""Overlays of chosen cases: validation cases during training, right and wrong test cases after."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule
from torch.utils.data import default_collate

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.layout import NIFTI_ENDINGS
from glioma_xai.experiment.drawing import ShownCase, show_cases
from glioma_xai.records import Batch, Split
from glioma_xai.training.callbacks import Panel
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.visualization.contents import Picture
from glioma_xai.visualization.overlays import to_png

SLICES = 7
"""Slices of a volume that a reader can leaf through in the report."""


def draw_cases(
    module: GuidedClassifier,
    batch: Batch,
    *,
    classes: Sequence[str],
    modalities: Sequence[str],
    sides: bool = True,
) -> dict[str, Figure]:
    """One figure a sample, named by subject and slice; the names serve as names of files.

    Args:
        module: In ``eval()`` mode.
        batch: Few samples.
        classes: Names in the order of the logits.
        modalities: Names of the channels.
        sides: Left and right are known.
    """
    cases = show_cases(module, batch, classes=classes, modalities=modalities, sides=sides)
    return {case.name: case.figure() for case in cases}


def collect(data: GliomaDataModule, split: Split, positions: Sequence[int]) -> Batch:
    """A batch of the named rows of a split."""
    dataset = data.evaluation_loader(split).dataset
    batch: Batch = default_collate([dataset[position] for position in positions])
    return batch


def draw_validation_cases(
    data: GliomaDataModule, *, count: int
) -> Callable[[LightningModule], dict[str, Panel]]:
    """A function that draws the same cases every time: one a patient, classes in turn."""
    rows = data.table[data.table["split"] == "validation"].reset_index(drop=True)
    firsts = rows.reset_index().groupby("patient_id", sort=True)["index"].first()
    by_class = [firsts[rows.loc[firsts, "label"].to_numpy() == c] for c in range(len(data.classes))]
    in_turn = [int(p) for group in zip(*by_class, strict=False) for p in group][:count]
    batch = collect(data, "validation", in_turn) if in_turn else None
    sides = sides_known(data)

    def draw(module: LightningModule) -> dict[str, Panel]:
        if batch is None or not isinstance(module, GuidedClassifier):
            return {}
        cases = show_cases(
            module, batch, classes=data.classes, modalities=channel_names(data), sides=sides
        )
        return {case.name: Panel(case.figure(), case.layers()) for case in cases}

    return draw


def right_and_wrong(table: pd.DataFrame, *, count: int) -> list[int]:
    """Positions of rows worth looking at: surest wrong ones first, then surest right ones.

    At most one row a patient, half of the count for each kind where there are enough.
    """
    columns = [name for name in table if str(name).startswith("probability_")]
    ranked = table.assign(
        right=table["prediction"] == table["label"], sure=table[columns].max(axis=1)
    ).sort_values("sure", ascending=False)
    ranked = ranked.drop_duplicates(["patient", "right"])
    wrong, right = ranked[~ranked["right"]], ranked[ranked["right"]]
    chosen = list(wrong.index[: count // 2])
    chosen += [i for i in right.index if i not in chosen][: count - len(chosen)]
    return [int(i) for i in chosen]


def one_of_each_patient(data: GliomaDataModule, split: Split, *, most: int) -> list[int]:
    """Positions of each patient's sample with the largest tumour, the same for every run.

    Where there are more patients than asked for, an order that depends on their names alone
    chooses, so that runs whose splits differ choose the same of those they share.
    """
    rows = data.cohort.rows(split).reset_index(drop=True)
    largest = rows.sort_values("lesion_area", ascending=False, kind="stable")
    firsts = largest.reset_index().groupby("patient_id")["index"].first()
    names = sorted(firsts.index, key=lambda name: sha256(str(name).encode()).digest())
    return sorted(int(firsts[name]) for name in names[:most])


def channel_names(data: GliomaDataModule) -> list[str]:
    """Names of the channels: modalities, and those of neighbouring slices with their distance."""
    reach = (data.input_shape[0] // len(data.modalities) - 1) // 2
    steps = [f" {step:+d}" if step else "" for step in range(-reach, reach + 1)]
    return [f"{modality}{step}" for step in steps for modality in data.modalities]


def sides_known(data: GliomaDataModule) -> bool:
    """Whether left and right are known: NIfTI files say it, PNG and TIFF do not."""
    files = [
        path.name for entry in data.cohort.entries[:1] for path in entry.subject.images.values()
    ]
    return all(name.lower().endswith(NIFTI_ENDINGS) for name in files)


def save_figures(figures: Mapping[str, Figure], folder: Path) -> dict[str, bytes]:
    """Write each figure as PNG into the folder and return the files' contents."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for name, figure in figures.items():
        contents[name] = to_png(figure)
        (folder / f"{name}.png").write_bytes(contents[name])
    return contents


def draw_test_cases(
    module: GuidedClassifier,
    data: GliomaDataModule,
    table: pd.DataFrame,
    *,
    split: Split,
    count: int,
    folder: Path,
) -> dict[str, list[Picture]]:
    """Overlays of right and wrong cases of a split, written as PNG.

    Returns:
        Name to the case's picture, or to pictures of several slices of a volume; the one in the
        folder is the main one.
    """
    positions = right_and_wrong(table, count=count)
    if not positions:
        return {}
    module.eval()
    with torch.enable_grad():
        cases = show_cases(
            module,
            collect(data, split, positions),
            classes=data.classes,
            modalities=channel_names(data),
            sides=sides_known(data),
            slices=SLICES,
        )
    written = save_figures({case.name: case.figure() for case in cases}, folder)
    return {case.name: _pictures(case, written[case.name]) for case in cases}


def _pictures(case: ShownCase, main: bytes) -> list[Picture]:
    return [
        Picture(
            f"slice {shown.level}",
            main if position == case.main else to_png(case.figure(position)),
            main=position == case.main,
        )
        for position, shown in enumerate(case.slices)
    ]
