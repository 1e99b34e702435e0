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
_ROOT = Path(__file__).parent.parent
PAGES = (_ROOT / "README.md", _ROOT / "docs" / "guidance.md")
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
COLUMNS += ("backgrounds of the other class", "last epoch, validation", "relevance inside")
_MARK = re.compile(r"(<!-- (study|losses|summary): ([\w ]+) -->\n)(?:\|.*\n)*")
_SUMMARY = (
    ("confirm", "clean", "none", "plain, no marker in the cohort"),
    ("confirm", "plain", "corner_marker", "plain"),
    ("confirm", "lrp_guided", "corner_marker", "`lrp_guided`"),
    ("confirm", "lrp_guided", "bright_spot", "`lrp_guided`, a bright spot for a marker"),
    ("texture", "clean", "none", "plain, pixels of 2 mm, no stripes"),
    ("texture", "lrp_guided", "texture", "`lrp_guided`, stripes over the tissue"),
    ("resnet", "clean", "none", "plain ResNet10, no marker"),
    ("resnet", "lrp_guided", "corner_marker", "`lrp_guided`, ResNet10"),
    ("few_masks_others", "clean", "none", "plain, 864 patients, no marker"),
    ("few_masks", "guided 10 %, weight 10", "corner_marker", "`lrp_guided_few_masks`, 86 masks"),
    ("few_masks", "guided 3 %, weight 30", "corner_marker", "the same, 26 masks, weight 30"),
    ("baselines", "warm start alone", "corner_marker", "`lrp_guided`, its warm start alone"),
    ("baselines", "exchange", "corner_marker", "`exchange`: others' backgrounds, no relevance"),
    ("baselines", "consistency", "corner_marker", "`consistency`: equal logits on them"),
    ("baselines", "lrp_guided_paper", "corner_marker", "`lrp_guided_paper`: z+, label's logit"),
    ("baselines", "rrr", "corner_marker", "`rrr`, weight chosen by validation"),
    ("baselines", "isnet", "corner_marker", "`isnet`, weights chosen by validation"),
)


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
        _three(mean["exchanged_other_class"]),
        _three(mean["last_validation_exchanged"]),
        _three(mean["inside"]),
    ]


def _three(value: float) -> str:
    """Three digits; nothing for what was not measured."""
    return "" if pd.isna(value) else f"{value:.3f}".removeprefix("0")


def losses_table(blocks: Sequence[str]) -> str:
    """The epoch that validation loss plus guidance loss would choose, beside the best, by run."""
    epochs, rows = pd.read_csv(EPOCHS), pd.read_csv(RESULTS)
    keys = ["block", "recipe", "shortcut", "seed"]
    commands = rows.set_index(keys)["command"]
    lines = [
        "| recipe | cohort | best epoch on exchanged backgrounds | epoch of the least loss |",
        "| --- | --- | --- | --- |",
    ]
    for block in blocks:
        for key, run in epochs[epochs["block"] == block].groupby(keys, sort=False):
            found = re.search(r"loss\.guidance_weight=([\d.]+)", commands[key])
            total = run["loss"] + float(found[1] if found else 3) * run["loss_guidance"]
            accuracy = run["exchanged_accuracy"]
            chosen = (accuracy.idxmax(), total.idxmin())
            cells = [f"{run['epoch'][i]}: {_three(accuracy[i])}" for i in chosen]
            lines.append(f"| {key[1]} | {key[3]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def summary_table(_: Sequence[str]) -> str:
    """The README's rows: means over the cohorts, of swapped accuracy the worst too."""
    rows = pd.read_csv(RESULTS)
    columns = ("training", "cohorts", "as trained", "removed", "swapped (worst)")
    lines = ["| " + " | ".join((*columns, "relevance inside")) + " |", "| --- " * 6 + "|"]
    for block, recipe, shortcut, words in _SUMMARY:
        chosen = (rows["block"] == block) & (rows["recipe"] == recipe)
        group = rows[chosen & (rows["shortcut"] == shortcut)]
        _, _, cohorts, trained, _, removed, swapped, *_, inside = _cells(
            Recipe(recipe, (), shortcut=shortcut), group
        )
        lines.append(f"| {' | '.join((words, cohorts, trained, removed, swapped, inside))} |")
    return "\n".join(lines) + "\n"


def filled(page: str) -> str:
    """A page with the tables of today's rows under its marks.

    ``<!-- study: confirm -->`` stands before :func:`table_of`, ``<!-- losses: gamed -->`` before
    :func:`losses_table`, ``<!-- summary: study -->`` before :func:`summary_table`.
    """
    tables = {"study": table_of, "losses": losses_table, "summary": summary_table}
    return _MARK.sub(lambda mark: mark[1] + tables[mark[2]](mark[3].split()), page)
