"""Samples with their relevance as slices that are ready to be drawn."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from glioma_xai.experiment.evaluation import attribution_at_input
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.visualization.layers import Layers, to_layers
from glioma_xai.visualization.overlays import overlay_figure
from glioma_xai.visualization.panels import common_limit

BEYOND = 2
"""Slices below and above a tumour that are worth a look."""


@dataclass(frozen=True)
class ShownSlice:
    """One slice of a sample.

    Args:
        level: Its number in the volume.
        image: (C, H, W).
        relevance: (C, H, W).
        lesion_mask: (1, H, W); None where no voxel's annotation is known.
    """

    level: int
    image: Tensor
    relevance: Tensor
    lesion_mask: Tensor | None


@dataclass(frozen=True)
class ShownCase:
    """A sample with its relevance.

    Args:
        subject: Its id.
        subtitle: Label, prediction, and what relevance is of.
        modalities: Names of the channels.
        sides_known: Left and right are known.
        slices: The sample itself, or some slices of a volume from its lowest to its highest.
        main: Position of the slice with most tumour (else most relevance).
        unit: What relevance is measured in.
    """

    subject: str
    subtitle: str
    modalities: Sequence[str]
    sides_known: bool
    slices: Sequence[ShownSlice]
    main: int
    unit: str = "logit per pixel"

    @property
    def name(self) -> str:
        """Subject and main slice, as the name of a file."""
        return file_name(f"{self.subject}_{self.slices[self.main].level}")

    def figure(self, position: int | None = None) -> Figure:
        """Anatomy and relevance of a slice; slices of one volume share their colour scale.

        Args:
            position: Of the slice; None for the main one.
        """
        shown = self.slices[self.main if position is None else position]
        several = len(self.slices) > 1
        return overlay_figure(
            shown.image,
            shown.relevance,
            shown.lesion_mask,
            modalities=self.modalities,
            title=f"{self.subject}, slice {shown.level}",
            subtitle=self.subtitle,
            sides_known=self.sides_known,
            limit=common_limit([s.relevance for s in self.slices]) if several else None,
            unit=self.unit,
        )

    def layers(self) -> Layers:
        """The main slice as layers."""
        shown = self.slices[self.main]
        return to_layers(
            shown.image, shown.relevance, shown.lesion_mask, modalities=self.modalities
        )


def show_cases(
    module: GuidedClassifier,
    batch: Batch,
    *,
    classes: Sequence[str],
    modalities: Sequence[str],
    sides: bool = True,
    slices: int = 1,
) -> list[ShownCase]:
    """One entry a sample.

    Args:
        module: In ``eval()`` mode.
        batch: Few samples.
        classes: Names in the order of the logits.
        modalities: Names of the channels.
        sides: Left and right are known.
        slices: Of a volume, at most; the main one is among them.
    """
    attribution = attribution_at_input(module)
    logits, relevance = attribution.measure(
        module.model, batch["image"].to(module.device), batch["label"].to(module.device)
    )
    target = attribution.measured_target(batch["label"])
    probabilities, maps = logits.softmax(dim=1).cpu(), relevance.detach().cpu()
    unit = "logit per voxel" if batch["image"].ndim == 5 else "logit per pixel"
    cases = []
    for i, subject in enumerate(batch["subject_id"]):
        shown, main = _slices_of(
            batch["image"][i],
            maps[i],
            batch["lesion_mask"][i],
            index=int(batch["slice_index"][i]),
            most=slices,
        )
        label, guess = int(batch["label"][i]), int(probabilities[i].argmax())
        named = classes[label] if label >= 0 else "class unknown"
        subtitle = (
            f"{named}, predicted {classes[guess]} ({100 * float(probabilities[i, guess]):.0f} %); "
            f"{target_words(target, classes, label=label, guess=guess)}, {attribution.composite}"
        )
        cases.append(ShownCase(subject, subtitle, modalities, sides, shown, main, unit))
    return cases


def target_words(target: str, classes: Sequence[str], *, label: int, guess: int) -> str:
    """What orange speaks for, in words.

    Args:
        target: That relevance explains, as it is measured.
        classes: Names.
        label: Position of the true class, -1 if it is unknown.
        guess: Position of the predicted class.
    """
    chosen = guess if target == "predicted" or label < 0 else label
    words = f"relevance for {classes[chosen]}"
    if target != "contrastive":
        return words
    others = [name for place, name in enumerate(classes) if place != chosen]
    return f"{words} against {others[0] if len(others) == 1 else 'the others'}"


def _slices_of(
    image: Tensor, relevance: Tensor, lesion: Tensor, *, index: int, most: int
) -> tuple[list[ShownSlice], int]:
    """The image itself, or axial slices of a volume spread over its tumour (else its brain)."""
    known = None if bool(lesion.isnan().all()) else lesion
    if image.ndim == 3:
        return [ShownSlice(index, image, relevance, known)], 0
    weight = relevance.abs().sum(dim=0) if known is None else lesion.nan_to_num(0.0)[0]
    main = int(weight.sum(dim=(0, 1)).argmax())
    extent = (image != 0).any(dim=0) if known is None or not known.nan_to_num(0.0).any() else weight
    inside = (extent.sum(dim=(0, 1)) > 0).nonzero()[:, 0].tolist()
    levels = levels_around(main, inside, most=most, depth=image.shape[-1])
    shown = [
        ShownSlice(
            level,
            image[..., level],
            relevance[..., level],
            None if known is None else known[..., level],
        )
        for level in levels
    ]
    return shown, levels.index(main)


def levels_around(main: int, inside: Sequence[int], *, most: int, depth: int) -> list[int]:
    """Slices to look at: some from just below to just above a structure, and the main one.

    Args:
        main: Slice that is always among them.
        inside: Slices that the structure reaches.
        most: How many at most.
        depth: Slices of the volume.

    Returns:
        Slices in rising order.
    """
    if most < 2 or not inside:
        return [main]
    lowest, highest = max(0, min(inside) - BEYOND), min(depth - 1, max(inside) + BEYOND)
    spread = np.linspace(lowest, highest, most).round().astype(int).tolist()
    spread[int(np.argmin([abs(level - main) for level in spread]))] = main
    return sorted(set(spread))


def file_name(subject: str) -> str:
    """A subject's id as the name of a file: other signs than letters, digits, ``._-`` replaced.

    Two ids that would have the same name are told apart by a few digits at the end.
    """
    name = re.sub(r"[^\w.-]+", "_", subject, flags=re.ASCII).strip(".") or "subject"
    name = name[:100]
    return name if name == subject else f"{name}_{sha256(subject.encode()).hexdigest()[:6]}"
