"""Similar training patients as files: a JSON, and a picture for each of them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import channel_names, save_figures, sides_known
from glioma_xai.experiment.drawing import file_name
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.experiment.similar import (
    PARTS,
    Neighbour,
    Similar,
    find_similar,
    patch_size,
)
from glioma_xai.records import Batch
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.visualization.links import Link, Side, links_figure
from glioma_xai.visualization.panels import background

_LISTED, _DRAWN = 50, 12


def write_similar(
    module: GuidedClassifier,
    data: GliomaDataModule,
    training: GliomaDataModule,
    subject: str,
    *,
    count: int,
    layer: str | None,
    output: Path,
) -> Similar:
    """Write ``similar.json`` and one PNG for each similar patient.

    Args:
        module: In ``eval()`` mode.
        data: That of the case, set up.
        training: The run's own, set up.
        subject: Id of a subject or a patient; its sample with the largest tumour is taken.
        count: Patients to find.
        layer: Whose output the features are; None for what the last layer reads.
        output: Folder, made if it is missing.
    """
    batch = _largest(data, subject)
    found = find_similar(module, training, batch, count=count, layer=layer)
    classes, modalities = data.classes, channel_names(data)
    with torch.no_grad():
        logits = module.model(batch["image"].to(module.device))[0]
    probabilities = logits.double().softmax(dim=0).cpu()
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "similar.json", _content(found, probabilities, classes))
    figures = {}
    for place, neighbour in enumerate(found.neighbours, start=1):
        name = file_name(f"similar_{place}_{neighbour.batch['subject_id'][0]}")
        figures[name] = links_figure(
            _side(found.batch, neighbour.of_case, probabilities, classes, modalities),
            _side(
                neighbour.batch, neighbour.of_patient, neighbour.probabilities, classes, modalities
            ),
            drawn_links(neighbour, tuple(batch["image"].shape[2:]), most=_DRAWN),
            title=f"What makes them alike for the network: cosine {neighbour.cosine:.3f}, "
            f"number {place} of {found.patients} training patients",
            caption=_caption(found, neighbour, volume=batch["image"].ndim == 5),
            sides_known=sides_known(data) and sides_known(training),
        )
    save_figures(figures, output)
    return found


def _largest(data: GliomaDataModule, subject: str) -> Batch:
    """The sample with the largest tumour; the middle one of a scan without a mask."""
    batches: list[Batch] = [default_collate([sample]) for sample in data.sample(subject)]
    areas = [int((batch["lesion_mask"] > 0.5).sum()) for batch in batches]
    return batches[areas.index(max(areas)) if max(areas) else len(batches) // 2]


def drawn_links(neighbour: Neighbour, shape: tuple[int, ...], *, most: int) -> list[Link]:
    """The strongest links as places in the two images, of one prepared shape.

    Args:
        neighbour: With links between patches.
        shape: Spatial shape of both images.
        most: Number of links.
    """
    size = patch_size(shape)
    across = -(-shape[1] // size)
    order = neighbour.links.abs().flatten().argsort(descending=True, stable=True)[:most]

    def centre(patch: int) -> tuple[float, float]:
        corner = (patch // across * size, patch % across * size)
        first, second = (
            (start + min(start + size, length) - 1) / 2
            for start, length in zip(corner, shape, strict=False)
        )
        return first, second

    return [
        Link(
            centre(place // neighbour.links.shape[1]),
            centre(place % neighbour.links.shape[1]),
            float(neighbour.links.flatten()[place]),
        )
        for place in order.tolist()
    ]


def _content(found: Similar, probabilities: Tensor, classes: Sequence[str]) -> dict[str, object]:
    return {
        **_who(found.batch, probabilities, classes),
        "compared_by": f"cosine of the {found.layer}",
        "training_patients": found.patients,
        "features": found.features[0],
        "features_looked_at": found.features[1],
        "composite": found.composite,
        "links_note": (
            "relevance of each pair for the cosine, places as pixels of the prepared image; what "
            "the links do not sum to is absorbed by biases, or lies on other features"
        ),
        "neighbours": [
            {
                **_who(neighbour.batch, neighbour.probabilities, classes),
                "cosine": neighbour.cosine,
                "share_of_features": neighbour.share,
                "sum_of_links": float(neighbour.links.sum()),
                "parts": {
                    f"{first} with {second}": float(neighbour.parts[i, j])
                    for i, first in enumerate(PARTS)
                    for j, second in enumerate(PARTS)
                },
                "links": [
                    {"here": link.first, "there": link.second, "relevance": link.relevance}
                    for link in drawn_links(
                        neighbour, tuple(neighbour.batch["image"].shape[2:]), most=_LISTED
                    )
                ],
            }
            for neighbour in found.neighbours
        ],
    }


def _who(batch: Batch, probabilities: Tensor, classes: Sequence[str]) -> dict[str, object]:
    label = int(batch["label"][0])
    return {
        "subject": batch["subject_id"][0],
        "patient": batch["patient_id"][0],
        "slice": int(batch["slice_index"][0]),
        "label": classes[label] if label >= 0 else None,
        "prediction": classes[int(probabilities.argmax())],
        "probabilities": dict(zip(classes, probabilities.tolist(), strict=True)),
    }


def _side(
    batch: Batch,
    relevance: Tensor,
    probabilities: Tensor,
    classes: Sequence[str],
    modalities: Sequence[str],
) -> Side:
    """One image of the picture; of a volume the slice with most tumour, else most relevance."""
    image, lesion = batch["image"][0, background(modalities)], batch["lesion_mask"][0, 0]
    total, level = relevance.sum(dim=0), int(batch["slice_index"][0])
    if image.ndim == 3:
        weight = lesion.nan_to_num(0.0) if bool((lesion > 0.5).any()) else total.abs()
        level = int(weight.sum(dim=(0, 1)).argmax())
        image, lesion, total = image[..., level], lesion[..., level], total[..., level]
    label, guess = int(batch["label"][0]), int(probabilities.argmax())
    named = classes[label] if label >= 0 else "class unknown"
    return Side(
        image,
        total,
        lesion,
        title=f"{batch['subject_id'][0]}, slice {level}",
        subtitle=f"{named}, predicted {classes[guess]} ({100 * float(probabilities[guess]):.0f} %)",
    )


def _caption(found: Similar, neighbour: Neighbour, *, volume: bool) -> str:
    drawn = neighbour.links.abs().flatten().sort(descending=True).values
    share = float(drawn[:_DRAWN].sum() / drawn.sum())
    tumours = float(neighbour.parts[0, 0] / neighbour.parts.sum())
    return (
        f"Above: the {_DRAWN} strongest links between patches, {100 * share:.0f} % of all, orange "
        "for and blue against"
        + (", each summed over all slices." if volume else ".")
        + f" Tumour with tumour: {100 * tumours:.0f} % of the similarity.\n"
        f"Below: links of each image summed over the other. BiLRP, {found.composite}, "
        f"{found.features[1]} of {found.features[0]} features ({found.layer}) with "
        f"{100 * neighbour.share:.0f} % of the cosine."
    )
