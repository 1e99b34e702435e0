"""Where do networks look, by explainers that none of them was trained on?

    python -m benchmarks.localisation runs/study/sweep_000/0 ...

For finished runs of ``guidance_study.py`` (their folders): the share of the absolute effect that
lies in the tumour, mean over test patients (the slice with the largest tumour), by gradient times
input, by integrated gradients (16 steps from black), and by occlusion: patches of the image, cut
along the tumour's border, are replaced by the mean of the healthy brain, outside the brain by 0,
and what that does to the decision, one logit less the other, counts. Beside it the size of the
shortcut's own effect: how far the decision moves when the shortcut is removed, as a share of its
distance from 0. Rows go to ``benchmarks/results/localisation.csv``.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from benchmarks.guidance_tables import append
from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.cases import collect, one_of_each_patient
from glioma_xai.experiment.saved import load_module, open_run
from glioma_xai.metrics.functional.faithfulness import cut_regions, mean_tissue, patch_regions
from glioma_xai.metrics.functional.localization import absolute_relevance_mass
from glioma_xai.records import Batch

RESULTS = Path(__file__).parent / "results" / "localisation.csv"
PATCH = 6  # pixels; 24 mm in the study


def by_explainers(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Share inside for each image, (B,), by explainer."""
    images, mask = batch["image"], batch["lesion_mask"]
    found = {"occlusion": by_occlusion(model, batch)}
    for name, composite, method in (
        ("gradient_times_input", "gradient_times_input", None),
        ("integrated_gradients", "gradient", "integrated_gradients"),
    ):
        built = build_composite(composite, model, input_shape=images.shape[1:])
        _, relevance = compute_relevance(
            model, images, built, labels=batch["label"], target="contrastive", method=method
        )
        found[name] = absolute_relevance_mass(relevance, mask)
    return found


@torch.no_grad()
def by_occlusion(model: nn.Module, batch: Batch) -> Tensor:
    """Share of the decision's absolute change that patches inside the tumour bring about, (B,)."""
    images, inside = batch["image"], batch["lesion_mask"] > 0.5
    fill = mean_tissue(images, batch["brain_mask"], batch["lesion_mask"])
    fill = torch.where(batch["brain_mask"] > 0.5, fill, 0)  # air, or a marker in it, becomes air
    regions = cut_regions(patch_regions(tuple(images.shape[2:]), PATCH), inside)
    decision = decide(model, images)
    effects = torch.zeros(len(images), 2, dtype=torch.float64)
    for region in regions.unique().tolist():
        chosen = regions == region
        change = decide(model, torch.where(chosen, fill, images)) - decision
        effects[:, region % 2] += change.abs().double()  # odd: inside
    return effects[:, 1] / effects.sum(dim=1)


def decide(model: nn.Module, images: Tensor) -> Tensor:
    """One logit less the other, (B,)."""
    logits: Tensor = model(images)
    return logits[:, 1] - logits[:, 0]


def shortcut_effect(model: nn.Module, batch: Batch, without: Batch) -> Tensor:
    """Absolute change of the decision, and its absolute value, (B, 2)."""
    with torch.no_grad():
        decision = decide(model, batch["image"])
        change = decide(model, without["image"]) - decision
    return torch.stack([change.abs(), decision.abs()], dim=1)


def row_of(folder: Path) -> dict[str, object]:
    """Means over the test patients of a run."""
    saved = open_run(folder, [])
    data = instantiate.build_data(saved.config)
    data.setup("test")
    module, epoch = load_module(saved, data)
    positions = one_of_each_patient(data, "test", most=len(data.table))
    shares: dict[str, list[Tensor]] = {}
    effects: list[Tensor] = []
    bare = data.evaluation_loader("test", variant="removed").dataset
    for start in range(0, len(positions), 64):
        batch = collect(data, "test", positions[start : start + 64])
        without = default_collate([bare[place] for place in positions[start : start + 64]])
        effects.append(shortcut_effect(module.model.eval(), batch, without))
        for name, values in by_explainers(module.model, batch).items():
            shares.setdefault(name, []).append(values)
    means = {name: round(float(torch.cat(parts).nanmean()), 4) for name, parts in shares.items()}
    moved, whole = torch.cat(effects).mean(dim=0).tolist()
    means["shortcut_effect"] = round(moved / whole, 4)
    block, recipe, shortcut, seed = str(saved.config.name).split("-")
    keys = {"block": block, "recipe": recipe, "shortcut": shortcut, "seed": seed}
    return {**keys, "epoch": epoch, "patients": len(positions), **means}


def main() -> int:
    """Measure and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    for folder in parser.parse_args().runs:
        row = row_of(folder)
        append(RESULTS, [row])
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
