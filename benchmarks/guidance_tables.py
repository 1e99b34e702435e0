"""The guidance study's tables: rows out of finished runs, and Markdown out of rows."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.guidance_recipes import BLOCKS
from benchmarks.guidance_runs import Recipe, Run

RESULTS = Path(__file__).parent / "results" / "guidance_study.csv"
PAGE = Path(__file__).parent.parent / "docs" / "guidance.md"
EPOCHS = RESULTS.with_name("guidance_epochs.csv")


def done_keys() -> set[tuple[str, ...]]:
    """Rows that are in the table."""
    if not RESULTS.is_file():
        return set()
    with RESULTS.open(newline="") as file:
        rows = csv.DictReader(file)
        return {(r["block"], r["recipe"], r["shortcut"], r["seed"]) for r in rows}


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


COLUMNS = ("recipe", "shortcut", "cohorts", "as trained", "AUC", "removed", "swapped (worst)")
COLUMNS += ("backgrounds of the other class", "relevance inside")
_MARK = re.compile(r"(<!-- study: ([\w ]+) -->\n)(?:\|.*\n)*")


def table_of(blocks: Sequence[str]) -> str:
    """Blocks' table in Markdown: means over the cohorts, of swapped accuracy the worst too."""
    rows = pd.read_csv(RESULTS)
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    for block in blocks:
        for recipe in BLOCKS[block][1]:
            chosen = (rows["block"] == block) & (rows["recipe"] == recipe.name)
            group = rows[chosen & (rows["shortcut"] == recipe.shortcut)]
            if len(group):
                lines.append("| " + " | ".join(_cells(recipe, group)) + " |")
    return "\n".join(lines) + "\n"


def _cells(recipe: Recipe, group: pd.DataFrame) -> list[str]:
    mean = group.mean(numeric_only=True)
    worst = _three(group["swapped"].min())
    return [
        *(recipe.name, recipe.shortcut.replace("_", " "), str(len(group))),
        *(_three(mean[name]) for name in ("as_trained", "auc", "removed")),
        f"{_three(mean['swapped'])} ({worst})" if worst else "",
        *(_three(mean[name]) for name in ("exchanged_other_class", "inside")),
    ]


def _three(value: float) -> str:
    """Three digits; nothing for what was not measured."""
    return "" if pd.isna(value) else f"{value:.3f}".removeprefix("0")


def filled(page: str) -> str:
    """A page with the tables of today under its marks, ``<!-- study: confirm -->``."""
    return _MARK.sub(lambda mark: mark[1] + table_of(mark[2].split()), page)
