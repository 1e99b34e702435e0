"""From results to files: predictions.csv, summary.json, overlays and report.html."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import confusion_matrix, roc_curve

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import draw_test_cases, right_and_wrong
from glioma_xai.experiment.evaluation import patient_table
from glioma_xai.experiment.lifecycle import versions
from glioma_xai.experiment.results import RunResults, Scores, write_tables
from glioma_xai.records import Split
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.visualization.contents import Case, Estimate, LevelResult, RunReport, Verdict
from glioma_xai.visualization.report import write_report

_HEADLINE = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
_NOTES = (
    "Relevance inside the tumour does not prove that the network decides by the tumour: read the "
    "table of behaviour first.",
    "Exchanged backgrounds come from other patients of the test split, their tumours left out.",
)


def write_results(
    results: RunResults,
    config: DictConfig,
    *,
    data: GliomaDataModule,
    module: GuidedClassifier,
    folder: Path,
) -> dict[str, Any]:
    """Write everything that a run leaves behind, the report last; return the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    split = cast("Split", list(results.tables)[-1])
    table = results.tables[split]
    pictures = draw_test_cases(
        module, data, table, split=split, count=config.overlays, folder=folder / "relevance" / split
    )
    content = write_tables(results, config, data=data, folder=folder)
    right, wrong = _cases(table, pictures, data.classes)
    report = RunReport(
        title=f"{config.name}, seed {config.seed}",
        verdict=Verdict(**content["verdict"]),
        classes=list(data.classes),
        settings=_flat(OmegaConf.to_container(config, resolve=False)),
        levels=[
            _level(
                f"{name}, by {level}", rows, cast("Any", results.metrics[name][level]), data.classes
            )
            for name, samples in reversed(list(results.tables.items()))
            for level, rows in (
                ("patient", patient_table(samples, data.classes)),
                ("slice", samples),
            )
        ],
        history=_history(folder / "metrics.csv"),
        selected_epoch=results.epoch,
        shortcut=_behaviour(results.behaviour),
        shortcut_name=str(config.data.get("shortcut", "none")).replace("_", " "),
        relevance={
            name: Estimate(v["value"], v["low"], v["high"], f"{v['undefined_samples']} undefined")
            for name, v in cast("dict[str, Any]", results.relevance[split]).items()
            if name != "lesion_share"
        },
        chance=_chance(results.relevance[split]),
        left_out=data.left_out,
        versions=versions(),
        reproduce=[f"python -m glioma_xai.evaluate run={folder}"],
        facts={key: str(value) for key, value in results.training.items()},
        notes=_NOTES,
        right_cases=right,
        wrong_cases=wrong,
    )
    write_report(folder / "report.html", report)
    return content


def _level(
    name: str, rows: pd.DataFrame, scores: Mapping[str, Mapping[str, Any]], classes: tuple[str, ...]
) -> LevelResult:
    labels, guesses = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    roc = None
    if len(classes) == 2 and len(set(labels)) == 2:
        false, true, _ = roc_curve(labels, rows[f"probability_{classes[1]}"].to_numpy())
        roc = (false, true)
    return LevelResult(
        name=name,
        samples=len(rows),
        scores={
            score: Estimate(v["value"], v["low"], v["high"], v["method"])
            for score, v in scores.items()
        },
        confusion=confusion_matrix(labels, guesses, labels=range(len(classes))).astype(np.int64),
        roc=roc,
    )


def _behaviour(conditions: Mapping[str, Scores]) -> dict[str, dict[str, Estimate]]:
    return {
        name.replace("_", " "): {
            f"{score}, by patient": Estimate(v["value"], v["low"], v["high"], v["method"])
            for score, v in cast("dict[str, Any]", scores["patient"]).items()
            if score in {"accuracy", "auc", "sensitivity", "specificity"}
        }
        for name, scores in conditions.items()
    }


def _chance(relevance: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    share = float(relevance.get("lesion_share", {}).get("value", np.nan))
    return {
        "relevance_mass_accuracy": share,
        "absolute_relevance_mass": share,
        "relevance_rank_accuracy": share,
        "pointing_game": share,
        "focus_score": 0.5,
    }


def _cases(
    table: pd.DataFrame, pictures: Mapping[str, bytes], classes: tuple[str, ...]
) -> tuple[list[Case], list[Case]]:
    """Pictures of right and of wrong predictions."""
    right: list[Case] = []
    wrong: list[Case] = []
    rows = table.loc[right_and_wrong(table, count=len(pictures))]
    for (_, row), (name, png) in zip(rows.iterrows(), pictures.items(), strict=True):
        label, guess = classes[row["label"]], classes[row["prediction"]]
        inside = row.get("absolute_relevance_mass", np.nan)
        caption = (
            f"{label}, predicted {guess} ({100 * row[f'probability_{guess}']:.0f} %); "
            f"{100 * inside:.0f} % of absolute relevance in the tumour"
        )
        case = Case(name, caption, png, f"Slice of {name} with relevance. {caption}.")
        (right if label == guess else wrong).append(case)
    return right, wrong


def _history(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    return {str(name): table[name].astype(float).tolist() for name in table}


def _flat(node: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat


def headline(summary: Mapping[str, Any], *, split: str = "test") -> str:
    """The numbers that a run prints at its end, a few lines."""
    patient = summary["metrics"][split]["patient"]
    lines = [f"{summary['name']}, seed {summary['seed']}, {split} split, by patient:"]
    for score in (name for name in _HEADLINE if name in patient):
        v = patient[score]
        lines.append(f"  {score:<20} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]")
    inside = summary["relevance"][split].get("absolute_relevance_mass")
    if inside is not None:
        lines.append(f"  {'relevance in tumour':<20} {inside['value']:.3f}")
    for name, scores in summary["behaviour"].items():
        v = scores["patient"]["accuracy"]
        lines.append(f"  accuracy {name.replace('_', ' '):<24} {v['value']:.3f}")
    lines.append(f"verdict: {summary['verdict']['headline']}")
    return "\n".join(lines)
