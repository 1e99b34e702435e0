"""Does guidance change the decision? The study behind docs/guidance.md.

    python benchmarks/guidance_study.py [--blocks confirm few_masks] [--workers 2] [--price|--table]

Each run trains one recipe on one phantom cohort whose patients no other seed shares, and asks what
the network decides by: test images as they are in training, with the shortcut removed, swapped
between the classes, and on other patients' backgrounds. Epochs are chosen on validation images with
exchanged backgrounds, never on removed or swapped images. Runs that are in the table are not run
again; a run that was interrupted goes on. Rows land in ``benchmarks/results/guidance_study.csv``,
the epochs of validation in ``guidance_epochs.csv`` beside it.
"""

import argparse
import csv
import json
import multiprocessing
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

RESULTS = Path(__file__).parent / "results" / "guidance_study.csv"
EPOCHS = RESULTS.with_name("guidance_epochs.csv")
SEEDS = (201, 202, 203, 204, 205)  # phantom cohorts on which nothing was ever chosen
FIRST_SEEDS = (101, 102, 103)  # on which the fixed warm start was seen to fail

COMMON = (
    "data.spacing_mm=4.0",
    "data.spatial_size=[48,56]",
    "data.slice_count=3",
    "data.batch_size=32",
    "trainer.max_epochs=20",
    "logger=none",
    "overlays=0",
    "bootstrap=100",
)
SMALL = ("data.phantom.subjects=480", "data.test_share=0.4", "data.validation_share=0.12")
LARGE = (
    "data.phantom.subjects=1200",
    "data.test_share=0.2",
    "data.validation_share=0.08",
    "data.batch_size=64",
)


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Args:
        name: Row of the tables.
        overrides: Beside those that all runs share.
        seeds: One run each, on a cohort of its own.
        minutes: Expected on one core, for the price.
        shortcut: Of the phantom cohort.
    """

    name: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    minutes: float = 1.5
    shortcut: str = "corner_marker"


@dataclass(frozen=True)
class Run:
    """A recipe with one seed."""

    block: str
    recipe: Recipe
    seed: int
    cohort: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a row of the table."""
        return self.block, self.recipe.name, self.recipe.shortcut, str(self.seed)

    @property
    def overrides(self) -> list[str]:
        """Of ``python -m glioma_xai.train``; what a recipe sets comes after what all share."""
        chosen = dict(
            word.split("=", 1) for word in (*COMMON, *self.cohort, *self.recipe.overrides)
        )
        return [
            *(f"{key}={value}" for key, value in chosen.items()),
            f"data.shortcut={self.recipe.shortcut}",
            f"++data.phantom.seed={self.seed}",
            f"seed={self.seed}",
        ]


def _guided(*more: str) -> tuple[str, ...]:
    return ("+experiment=lrp_guided", *more)


def _few(share: float, *more: str) -> tuple[str, ...]:
    few = (f"data.mask_share={share}", "loss.guided_batch=32")
    return ("+experiment=lrp_guided_few_masks", *few, *more)


def _alike(share: float, weight: float) -> tuple[str, ...]:
    few = (f"data.mask_share={share}", "loss.guided_batch=32", "loss.warm_start_on=guided")
    return ("+experiment=consistency", *few, f"loss.consistency_weight={weight}")


def _both(share: float, weight: float, consistency: float) -> tuple[str, ...]:
    guided = f"loss.guidance_weight={weight}"
    return _few(share, guided, f"loss.consistency_weight={consistency}")


def _exchange(share: float) -> tuple[str, ...]:
    return ("+experiment=exchange", f"data.mask_share={share}", "loss.guided_batch=32")


def _masked_alone(share: float) -> tuple[str, ...]:
    return (*_exchange(share), "loss.warm_start_on=guided", "loss.warm_start_epochs=20")


def _rrr(weight: float) -> tuple[str, ...]:
    return ("+experiment=rrr", f"loss.guidance_weight={weight:.0f}")


def _isnet(share: float, decay: float) -> tuple[str, ...]:
    rank = f"loss.guidance.decay={decay}"
    return ("+experiment=isnet", f"loss.guidance_weight={share}", rank)


RRR_WEIGHTS = (3e2, 3e3, 3e4, 3e5, 3e6, 3e7, 3e8)
ISNETS = (
    (0.7, 0.996),
    (0.9, 0.996),
    (0.97, 0.996),
    (0.7, 0.98),
    (0.9, 0.98),
    (0.95, 0.98),
    (0.9, 0.95),
    (0.9, 0.9),
)
PLAIN = ("+experiment=baseline",)
CLEAN = (*PLAIN, "callbacks.best.monitor=validation/balanced_accuracy")  # what is reported
ON_IMAGE = ("loss.probe=image",)
FROM_SCRATCH = ("loss.warm_start_epochs=0", "loss.warm_start_limit=0")
GAMED = (*ON_IMAGE, "attribution.first_layer=null", "loss.guidance_weight=1")
GAMED += ("callbacks.best.monitor=validation/auc",)
DRIFTING = (*ON_IMAGE, "attribution.first_layer=null", "loss.guidance_weight=10")
STRENGTH_90 = "++data.phantom.shortcut_strength=0.9"
RESNET = ("model=resnet10", "+model.channels=[32,64,128,256]")
THREE = SEEDS[:3]
ONE = SEEDS[:1]

FIXED = _guided("loss.warm_start_limit=0")
BLOCKS: dict[str, tuple[tuple[str, ...], tuple[Recipe, ...]]] = {
    # the default recipe as it was found, on patients that it was not found on
    "confirm": (
        SMALL,
        (
            Recipe("clean", CLEAN, minutes=0.7, shortcut="none"),
            Recipe("plain", PLAIN, minutes=0.7),
            Recipe("lrp_guided", _guided()),
            Recipe("lrp_guided", _guided(), shortcut="bright_spot"),
            Recipe("plain", PLAIN, THREE, minutes=0.7, shortcut="bright_spot"),
        ),
    ),
    # the recipe before: a warm start of three epochs, whatever has been learnt by then
    "first_round": (
        SMALL,
        (
            Recipe("clean", PLAIN, FIRST_SEEDS, minutes=0.7, shortcut="none"),
            Recipe("plain", PLAIN, FIRST_SEEDS, minutes=0.7),
            Recipe("lrp_guided", FIXED, FIRST_SEEDS),
            Recipe("lrp_guided", FIXED, FIRST_SEEDS, shortcut="bright_spot"),
            Recipe("plain", PLAIN, FIRST_SEEDS[:2], minutes=0.7, shortcut="bright_spot"),
        ),
    ),
    # stripes of 7 mm, which pixels of 4 mm do not show
    "texture": (
        (*SMALL, "data.spacing_mm=2.0", "data.spatial_size=[96,112]", "data.slice_count=2"),
        (
            Recipe("clean", CLEAN, minutes=2, shortcut="none"),
            Recipe("plain", PLAIN, THREE, minutes=2, shortcut="texture"),
            Recipe("lrp_guided", _guided(), minutes=4, shortcut="texture"),
        ),
    ),
    # masks for 10 % (86) and 3 % (26) of 864 training patients, labels for all
    "few_masks": (
        LARGE,
        (
            Recipe("guided 10 %, weight 10", _few(0.1, "loss.guidance_weight=10"), minutes=3),
            Recipe("guided 3 %, weight 30", _few(0.03, "loss.guidance_weight=30"), minutes=3),
        ),
    ),
    "few_masks_others": (
        LARGE,
        (
            Recipe("clean", CLEAN, minutes=1.5, shortcut="none"),
            Recipe("consistency 3 %, weight 100", _alike(0.03, 100), THREE, minutes=2),
            Recipe("exchange 3 %", _exchange(0.03), THREE, minutes=1.5),
            Recipe("consistency 10 %, weight 30", _alike(0.1, 30), THREE, minutes=2),
            Recipe("exchange 10 %", _exchange(0.1), THREE, minutes=1.5),
            Recipe("masked alone 10 %", _masked_alone(0.1), THREE, minutes=1.5),
            Recipe("masked alone 3 %", _masked_alone(0.03), THREE, minutes=1.5),
        ),
    ),
    # masks for 25 % (216) and 1 % (9); the weight goes on as one over the share
    "few_masks_more": (
        LARGE,
        (
            Recipe("guided 1 %, weight 100", _few(0.01, "loss.guidance_weight=100"), THREE, 3),
            Recipe("masked alone 1 %", _masked_alone(0.01), THREE, minutes=1.5),
            Recipe("consistency 1 %, weight 300", _alike(0.01, 300), THREE, minutes=2),
            Recipe("guided 25 %, weight 4", _few(0.25, "loss.guidance_weight=4"), THREE, 3),
        ),
    ),
    # relevance and equal logits together; the weights were chosen on validation data of cohort 101
    "few_masks_both": (
        LARGE,
        (
            *(
                Recipe(f"both 1 %, weights {g} and 300", _both(0.01, g, 300), (101,), 4)
                for g in (10, 30)
            ),
        ),
    ),
    # what a reviewer asks for
    "baselines": (
        SMALL,
        (
            Recipe("exchange", ("+experiment=exchange",), minutes=0.8),
            Recipe("consistency", ("+experiment=consistency",), minutes=1),
            Recipe("masked input", ("+experiment=masked_input",), minutes=0.7),
            Recipe("warm start alone", _guided("loss.guidance_weight=0"), minutes=0.8),
            Recipe("lrp_guided_paper", ("+experiment=lrp_guided_paper",)),
            Recipe("rrr", ("+experiment=rrr",), THREE, minutes=3),
            Recipe("isnet", ("+experiment=isnet",), THREE, minutes=5),
            Recipe("shuffled masks", ("+experiment=random_mask_control",)),
            Recipe("guided and consistent", ("+experiment=lrp_guided_consistency",)),
        ),
    ),
    # the weights of RRR and ISNet: chosen by exchanged validation images of a cohort of its own
    "tuning": (
        SMALL,
        (
            *(Recipe(f"rrr, weight {w:.0e}", _rrr(w), FIRST_SEEDS[:1]) for w in RRR_WEIGHTS),
            *(Recipe(f"isnet, P {p}, d {d}", _isnet(p, d), FIRST_SEEDS[:1]) for p, d in ISNETS),
        ),
    ),
    # masks drawn in a hurry, and shortcuts that are wrong now and then
    "conditions": (
        SMALL,
        (
            Recipe("boxes", _guided("data.annotation.shape=box"), THREE),
            Recipe("masks 8 mm too wide", _guided("data.annotation.dilation_mm=8"), THREE),
            Recipe("plain, marker right in 90 %", (*PLAIN, STRENGTH_90), THREE, minutes=0.7),
            Recipe("guided, marker right in 90 %", _guided(STRENGTH_90), THREE),
        ),
    ),
    # a spot on the tumour's border, half of it inside the mask
    "margin": (
        SMALL,
        (
            Recipe("plain", PLAIN, THREE, minutes=0.7, shortcut="rim_spot"),
            Recipe("lrp_guided", _guided(), THREE, shortcut="rim_spot"),
            Recipe("exchange", ("+experiment=exchange",), THREE, 0.8, "rim_spot"),
        ),
    ),
    # known to be gamed: relevance on the image itself, epsilon rule in the first layer, weight 1,
    # and the epoch chosen as usual, by validation AUC
    "gamed": (
        SMALL,
        (
            Recipe("gamed", _guided(*GAMED, *FROM_SCRATCH), THREE),
            Recipe("gamed later", _guided(*GAMED, "loss.warm_start_epochs=1"), THREE),
            Recipe("drifting", _guided(*DRIFTING), THREE),
        ),
    ),
    # MONAI's ResNet10, half as wide
    "resnet": (
        SMALL,
        (
            Recipe("clean", (*CLEAN, *RESNET), minutes=2, shortcut="none"),
            Recipe("plain", (*PLAIN, *RESNET), minutes=2),
            Recipe("lrp_guided", _guided(*RESNET), minutes=4),
            Recipe("exchange", ("+experiment=exchange", *RESNET), minutes=2),
        ),
    ),
    # one factor at a time around the recipe
    "factors": (
        SMALL,
        (
            Recipe("weight 1", _guided("loss.guidance_weight=1"), THREE),
            Recipe("weight 10", _guided("loss.guidance_weight=10"), ONE),
            Recipe("target label", _guided("attribution.target=label"), THREE),
            Recipe("target random sign", _guided("attribution.target=random_sign"), ONE),
            Recipe("probe image", _guided(*ON_IMAGE), THREE),
            Recipe("probe scaled", _guided("loss.probe=scaled"), ONE),
            Recipe("probe noise", _guided("loss.probe=noise"), ONE),
            Recipe("probe changed at random", _guided("loss.perturbation=random"), ONE),
            Recipe("probe changed the worst way", _guided("loss.perturbation=worst"), ONE, 2.5),
            Recipe("epsilon in the first layer", _guided("attribution.first_layer=null"), THREE),
            Recipe("w-square in the first layer", _guided("attribution.first_layer=wsquare"), ONE),
            Recipe("zplus", _guided("attribution=zplus"), THREE),
            Recipe("epsilon_plus_flat", _guided("attribution=epsilon_plus_flat"), ONE),
            Recipe("gradient", _guided("attribution=gradient"), ONE),
            Recipe("no warm start", _guided(*FROM_SCRATCH), THREE),
            Recipe("constant learning rate", _guided("scheduler=none"), ONE),
            Recipe("60 epochs", _guided("trainer.max_epochs=60"), ONE, minutes=4.5),
        ),
    ),
}


def runs_of(blocks: Sequence[str]) -> Iterator[Run]:
    """Every run of the blocks, seed by seed, so that an early stop leaves whole comparisons."""
    for block in blocks:
        cohort, recipes = BLOCKS[block]
        for seed in (*FIRST_SEEDS, *SEEDS):
            for recipe in recipes:
                if seed in recipe.seeds:
                    yield Run(block, recipe, seed, cohort)


def done_keys() -> set[tuple[str, ...]]:
    """Rows that are in the table."""
    if not RESULTS.is_file():
        return set()
    with RESULTS.open(newline="") as file:
        rows = csv.DictReader(file)
        return {(r["block"], r["recipe"], r["shortcut"], r["seed"]) for r in rows}


def carry_out(run: Run, root: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train, evaluate, and return the row and its epochs; called in a process of its own."""
    import torch
    from omegaconf import OmegaConf

    from glioma_xai.config import check_config, compose_config
    from glioma_xai.experiment.run import run as train

    torch.set_num_threads(1)
    name = re.sub(r"[^\w.-]+", "_", "-".join(run.key))
    folder = Path(root).resolve() / name
    if not _finished(folder):
        config = compose_config(
            "train", [*run.overrides, f"paths.run={folder}", f"paths.cache={Path(root) / 'cache'}"]
        )
        check_config(config)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        train(config, folder, resume=(folder / "checkpoints" / "last.ckpt").is_file())
    return row_of(run, folder), epochs_of(run, folder)


def _finished(folder: Path) -> bool:
    status = folder / "status.json"
    return status.is_file() and json.loads(status.read_text())["state"] == "finished"


def row_of(run: Run, folder: Path) -> dict[str, Any]:
    """The numbers of a finished run that the study reports."""
    summary = json.loads((folder / "summary.json").read_text())
    history = pd.read_csv(folder / "metrics.csv").iloc[-1]
    row: dict[str, Any] = dict(zip(("block", "recipe", "shortcut", "seed"), run.key, strict=True))
    conditions = {**summary["behaviour"], **summary["without_tumour"]}
    for name in CONDITIONS:
        scores = conditions.get(name)
        row[name] = None if scores is None else round(scores["patient"]["accuracy"]["value"], 4)
    test, shown = summary["metrics"]["test"]["patient"], summary["relevance"]["test"]
    row |= {
        "auc": round(test["auc"]["value"], 4),
        "inside": round(shown["absolute_relevance_mass"]["value"], 4),
        "epoch": summary["selected_epoch"],
        "selection_score": round(summary["selection_score"], 4),
        "last_validation": history["validation/accuracy"],
        "last_validation_exchanged": history["validation/exchanged_accuracy"],
        "last_inside": history["validation/absolute_relevance_mass"],
        "auc_tumour_removed": _auc(conditions, "tumour_removed"),
        "auc_background_alone": _auc(conditions, "background_alone"),
        "verdict": summary["verdict"]["judgement"],
        "headline": summary["verdict"]["headline"],
        "fairwashing_epochs": " ".join(map(str, summary["fairwashing_epochs"])),
        "drift_epoch": (summary["drift"] or {}).get("epoch"),
        "step_ratio": round(summary.get("guided_plain_step_ratio") or 1.0, 2),
        "seconds": summary["wall_seconds"],
        "command": "python -m glioma_xai.train " + " ".join(run.overrides),
    }
    return row


def _auc(conditions: dict[str, Any], name: str) -> float | None:
    """By patient; .5 where no trace of the class is left."""
    scores = conditions.get(name)
    return None if scores is None else round(scores["patient"]["auc"]["value"], 4)


CONDITIONS = (
    "as_trained",
    "removed",
    "swapped",
    "exchanged_any",
    "exchanged_same_class",
    "exchanged_other_class",
    "noise_outside",
    "tumour_removed",
    "background_alone",
)


def epochs_of(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Validation scores of every epoch: how a recipe got where it ended."""
    history = pd.read_csv(folder / "metrics.csv")
    keys = dict(zip(("block", "recipe", "shortcut", "seed"), run.key, strict=True))
    return [
        {**keys, "epoch": int(row["epoch"])}
        | {name: row.get(f"validation/{name}", "") for name in SCORES}
        for row in history.to_dict("records")
    ]


SCORES = ("accuracy", "exchanged_accuracy", "absolute_relevance_mass", "loss")
SCORES += ("loss_guidance",)


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def carry_out_all(pending: Sequence[Run], *, workers: int, root: str) -> int:
    """Run what is missing; return how many failed."""
    failed = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        waiting = {pool.submit(carry_out, run, root): run for run in pending}
        for future in as_completed(waiting):
            run = waiting[future]
            try:
                row, epochs = future.result()
            except Exception:  # one run must not stop the others
                failed += 1
                print(f"FAILED {run.key}", file=sys.stderr)
                traceback.print_exc()
                continue
            append(RESULTS, [row])
            append(EPOCHS, epochs)
            print(
                f"{time.strftime('%H:%M:%S')} {run.key}: as trained {row['as_trained']}, removed "
                f"{row['removed']}, swapped {row['swapped']}, inside {row['inside']}, "
                f"{row['seconds']} s",
                flush=True,
            )
    return failed


def table_of(block: str) -> str:
    """A block's table in Markdown: means over the cohorts, of swapped accuracy the worst too."""
    rows = pd.read_csv(RESULTS)
    rows = rows[rows["block"] == block]
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    for (recipe, shortcut), group in rows.groupby(["recipe", "shortcut"], sort=False):
        mean = group.mean(numeric_only=True)
        cells = [recipe, shortcut.replace("_", " "), str(len(group))]
        cells += [_three(mean[name]) for name in ("as_trained", "auc", "removed")]
        worst = _three(group["swapped"].min())
        cells.append(f"{_three(mean['swapped'])} ({worst})" if worst else "")
        cells += [_three(mean[name]) for name in ("exchanged_other_class", "inside")]
        cells.append("" if mean["step_ratio"] == 1 else f"{mean['step_ratio']:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _three(value: float) -> str:
    """Three digits; nothing for what was not measured."""
    return "" if pd.isna(value) else f"{value:.3f}".removeprefix("0")


COLUMNS = ("recipe", "shortcut", "cohorts", "as trained", "AUC", "removed", "swapped (worst)")
COLUMNS += ("backgrounds of the other class", "relevance inside", "step")


def main() -> int:
    """Parse the command line; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--seeds", nargs="+", type=int, help="these cohorts alone")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--root", default="runs/study", help="folder of runs and prepared data")
    parser.add_argument("--price", action="store_true", help="only say what would be run")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    if arguments.table:
        print("\n\n".join(f"{block}\n\n{table_of(block)}" for block in arguments.blocks))
        return 0
    done = done_keys()
    pending = [run for run in runs_of(arguments.blocks) if run.key not in done]
    if arguments.seeds:
        pending = [run for run in pending if run.seed in arguments.seeds]
    minutes = sum(run.recipe.minutes for run in pending) / arguments.workers
    print(f"{len(pending)} runs to do, {len(done)} done; about {minutes:.0f} minutes", flush=True)
    if arguments.price:
        return 0
    return int(carry_out_all(pending, workers=arguments.workers, root=arguments.root) > 0)


if __name__ == "__main__":
    sys.exit(main())
