"""Several runs' explanations of one scan beside each other, on the scan's own grid."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.files import read_volume
from glioma_xai.errors import CohortError
from glioma_xai.experiment.cases import save_figures, sides_known
from glioma_xai.experiment.drawing import target_words
from glioma_xai.experiment.explanation import Explanation
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.experiment.parts import native_labels
from glioma_xai.metrics.functional.agreement import rank_correlation
from glioma_xai.visualization.panels import background
from glioma_xai.visualization.side_by_side import side_by_side_figure

MOST_SLICES = 3
Volume = NDArray[np.float32]


def write_side_by_side(
    explanations: Mapping[str, Explanation], data: GliomaDataModule, *, output: Path
) -> None:
    """Write ``comparison.json`` and ``comparison.png`` for a scan.

    Args:
        explanations: Run to its explanation of the same scan.
        data: That of the first run, set up; gives the picture and the tumour.
        output: Folder, made if it is missing.

    Raises:
        CohortError: If the scan is not the same file for all runs.
    """
    _require_one_grid(explanations)
    subject = next(iter(explanations.values())).subject
    maps = {
        name: np.asarray(found.relevance.dataobj, dtype=np.float32)
        for name, found in explanations.items()
    }
    anatomy, labels = _anatomy(data, subject), native_labels(data, subject)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", _content(explanations, _agreement(maps, anatomy)))
    lesion = None if labels is None else (labels > 0).astype(np.float32)
    save_figures({"comparison": _figure(explanations, maps, anatomy, lesion, data)}, output)


def _require_one_grid(explanations: Mapping[str, Explanation]) -> None:
    first = next(iter(explanations.values()))
    for name, found in explanations.items():
        if found.relevance.shape != first.relevance.shape or not np.allclose(
            found.relevance.affine, first.relevance.affine, atol=1e-4
        ):
            raise CohortError(
                f"{first.subject}: expected one grid for all runs, found "
                f"{first.relevance.shape} and, for {name}, {found.relevance.shape}. Compare runs "
                "on the same files: add data=... data.root=..."
            )


def _figure(
    explanations: Mapping[str, Explanation],
    maps: Mapping[str, Volume],
    anatomy: Volume,
    lesion: Volume | None,
    data: GliomaDataModule,
) -> Figure:
    first = next(iter(explanations.values()))
    affine, label = first.relevance.affine, first.content["label"]
    shown = {name: _canonical(found, affine) for name, found in maps.items()}
    tumour = None if lesion is None else _canonical(lesion, affine)
    levels = _levels(list(shown.values()), tumour)
    planar = data.cohort.entry(first.subject).subject.slice_index
    classes = [str(name) for name in data.classes]
    what = target_words(
        str(first.content["target"]),
        classes,
        label=classes.index(str(label)) if label else -1,
        guess=classes.index(str(first.content["prediction"])),
    )
    return side_by_side_figure(
        _slices(_canonical(anatomy, affine), levels),
        {name: _slices(found, levels) for name, found in shown.items()},
        None if tumour is None else _slices(tumour, levels),
        levels=levels if planar is None else [planar],
        notes={name: _note(found.content) for name, found in explanations.items()},
        title=f"{first.subject}, {label or 'class unknown'}: {what}",
        sides_known=sides_known(data),
    )


def _anatomy(data: GliomaDataModule, subject_id: str) -> Volume:
    """The modality that maps are laid over, as it is in the file, (X, Y, Z)."""
    subject = data.cohort.entry(subject_id).subject
    name = data.modalities[background(data.modalities)]
    if subject.channels:
        return np.asarray(read_volume(subject.images["image"])[0][subject.channels.index(name)])
    return np.asarray(read_volume(subject.images[name])[0][0])


def _canonical(volume: Volume, affine: NDArray[np.float64]) -> Volume:
    """Axes from left to right, posterior to anterior, inferior to superior, as they are drawn."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    return np.asarray(turned.dataobj, dtype=np.float32)


def _levels(maps: list[Volume], lesion: Volume | None) -> list[int]:
    """At most three slices that all runs explain: most tumour (else relevance), spread out."""
    explained = np.all([np.abs(found).sum(axis=(0, 1)) > 0 for found in maps], axis=0)
    weight = np.abs(maps[0]).sum(axis=(0, 1)) if lesion is None else lesion.sum(axis=(0, 1))
    inside = np.flatnonzero(explained & (weight > 0.2 * (weight * explained).max()))
    if len(inside) == 0:
        return [int(np.abs(maps[0]).sum(axis=(0, 1)).argmax())]
    places = np.linspace(0, len(inside) - 1, min(MOST_SLICES, len(inside)) + 2)[1:-1]
    return sorted({int(inside[round(place)]) for place in places}, reverse=True)


def _slices(volume: Volume, levels: list[int]) -> Volume:
    return np.moveaxis(volume[..., levels], -1, 0)


def _agreement(maps: Mapping[str, Volume], anatomy: Volume) -> dict[str, dict[str, float]]:
    """Rank correlation of every two maps where there is anatomy and any run has relevance."""
    known = (anatomy != 0) & np.any([found != 0 for found in maps.values()], axis=0)
    flat = {name: torch.from_numpy(found[known])[None, None] for name, found in maps.items()}
    return {
        name: {other: float(rank_correlation(first, second)[0]) for other, second in flat.items()}
        for name, first in flat.items()
    }


def _content(
    explanations: Mapping[str, Explanation], agreement: dict[str, dict[str, float]]
) -> dict[str, object]:
    first = next(iter(explanations.values()))
    kept = ("prediction", "probabilities", "target", "composite", "region_shares")
    return {
        "subject": first.subject,
        "label": first.content["label"],
        "runs": {
            name: {key: found.content[key] for key in (*kept, "modality_shares")}
            for name, found in explanations.items()
        },
        "rank_correlation": agreement,
        "rank_correlation_note": "of maps summed over channels, within the image, on its own grid",
    }


def _note(content: Mapping[str, object]) -> str:
    """Prediction, and how much relevance lies in the tumour."""
    probabilities, shares = content["probabilities"], content["region_shares"]
    assert isinstance(probabilities, dict)
    guess = content["prediction"]
    text = f"{guess} ({100 * probabilities[guess]:.0f} %)"
    if isinstance(shares, dict) and shares["elsewhere"] == shares["elsewhere"]:
        text += f", {100 * (1 - shares['elsewhere']):.0f} % of |R| in tumour"
    return text
