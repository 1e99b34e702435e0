"""From results to files: predictions.csv, summary.json, overlays and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from sklearn.metrics import confusion_matrix, roc_curve

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.cases import draw_test_cases, right_and_wrong
from glioma_xai.experiment.evaluation import patient_table
from glioma_xai.experiment.lifecycle import versions
from glioma_xai.experiment.maps import save_maps
from glioma_xai.experiment.parts import FOCUS_ON
from glioma_xai.experiment.public import public_settings, public_words, without_folders
from glioma_xai.experiment.report_tables import (
    behaviour_notes,
    behaviour_rows,
    estimate,
    further_tables,
)
from glioma_xai.experiment.result_files import write_tables
from glioma_xai.experiment.results import RunResults
from glioma_xai.experiment.verdict import TOLERATED_CHANGE, condition_words
from glioma_xai.training.module import GuidedClassifier
from glioma_xai.visualization.contents import (
    Case,
    Estimate,
    LevelResult,
    Picture,
    RunReport,
    Verdict,
)
from glioma_xai.visualization.report import write_report

_HEADLINE = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
_NOTE = (
    "Relevance inside the tumour does not prove that the network decides by the tumour: read the "
    "table of behaviour first."
)


def write_results(
    results: RunResults,
    config: DictConfig,
    *,
    data: GliomaDataModule,
    module: GuidedClassifier,
    folder: Path,
    run: Path | None = None,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Write everything that a run leaves behind, the report last; return the summary.

    Args:
        results: Of the run.
        config: Of the run.
        data: That was evaluated.
        module: The network.
        folder: Where to write.
        run: The run's folder, if that is another one.
        options: Words of `evaluate` besides the run and the split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = run or folder
    split = results.split
    table = results.tables[split]
    pictures = draw_test_cases(
        module, data, table, split=split, count=config.overlays, folder=folder / "relevance" / split
    )
    save_maps(module, data, split=split, path=folder / "relevance" / split / "maps.npz")
    content = write_tables(results, config, data=data, folder=folder, run=run)
    right, wrong = _cases(table, pictures, data.classes, count=config.overlays)
    report = RunReport(
        title=f"{config.name}, seed {config.seed}",
        verdict=Verdict(**content["verdict"]),
        classes=list(data.classes),
        settings=public_settings(config),
        levels=_levels(results, data.classes),
        history=_history(run / "metrics.csv"),
        selected_epoch=results.epoch,
        shortcut=behaviour_rows(results),
        shortcut_name=str(config.data.get("shortcut", "none")).replace("_", " "),
        shortcut_notes=behaviour_notes(results),
        relevance=_relevance(results.relevance[split], results.iou_threshold),
        chance=_chance(results.relevance[split]),
        tables=further_tables(results),
        left_out=[without_folders(problem, config) for problem in data.left_out],
        versions=versions(),
        reproduce=[
            f"python -m glioma_xai.evaluate run=<folder>/{run.resolve().name} "
            + " ".join([f"split={split}", *public_words(options)])
        ],
        facts=_facts(results),
        notes=[_NOTE, *_training_notes(content)],
        right_cases=right,
        wrong_cases=wrong,
    )
    write_report(folder / "report.html", report)
    return content


def _training_notes(content: Mapping[str, Any]) -> list[str]:
    """What the epochs of training say about how far relevance can be trusted."""
    drift, flagged = content["drift"], content["fairwashing_epochs"]
    notes = [drift["words"]] if drift and drift["lost"] > TOLERATED_CHANGE else []
    if flagged:
        notes.append(
            f"Possible fairwashing in {len(flagged)} epochs, the last of them {flagged[-1]}: "
            "relevance lay in the tumour while validation accuracy fell on other backgrounds."
        )
    return notes


def _levels(results: RunResults, classes: tuple[str, ...]) -> list[LevelResult]:
    """The judged split first, patients before slices."""
    return [
        _level(f"{split}, by {level}", rows, cast("Any", results.metrics[split][level]), classes)
        for split, samples in reversed(list(results.tables.items()))
        for level, rows in (("patient", patient_table(samples, classes)), ("slice", samples))
    ]


def _relevance(
    scores: Mapping[str, Mapping[str, Any]], iou_threshold: float
) -> dict[str, Estimate]:
    rows = {}
    for name, fields in scores.items():
        note = f"{fields['undefined_samples']} undefined"
        if name == "intersection_over_union":
            note += f"; of pixels above {iou_threshold:.3g} of the highest"
        if name != "lesion_share":
            rows[name] = estimate(fields, note=note)
    return rows


def _facts(results: RunResults) -> dict[str, str]:
    """What a reader wants to know of the training, in words."""
    training = results.training
    facts = {"epoch": f"{results.epoch}, counted from 0"} if results.epoch >= 0 else {}
    if "data" in training:
        facts["data"] = str(training["data"])
    if "selected_by" in training:
        facts["chosen by"] = f"{training['selected_by']} ({training['selection_score']:.3f})"
    if "wall_seconds" in training:
        facts["wall time"] = f"{training['wall_seconds']:.0f} s"
    if isinstance(training.get("guided_plain_step_ratio"), float):
        facts["step, against a plain one"] = f"{training['guided_plain_step_ratio']:.1f}"
    return facts


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
        scores={name: estimate(fields) for name, fields in scores.items()},
        confusion=confusion_matrix(labels, guesses, labels=range(len(classes))).astype(np.int64),
        roc=roc,
    )


def _chance(relevance: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    share = float(relevance.get("lesion_share", {}).get("value", np.nan))
    return {
        "relevance_mass_accuracy": share,
        "absolute_relevance_mass": share,
        "relevance_rank_accuracy": share,
        "pointing_game": share,
        "focus_score": 0.5,
        **{name: 0.5 for name in relevance if name.startswith(FOCUS_ON)},
    }


def _cases(
    table: pd.DataFrame,
    pictures: Mapping[str, Sequence[Picture]],
    classes: tuple[str, ...],
    *,
    count: int,
) -> tuple[list[Case], list[Case]]:
    """Pictures of right and of wrong predictions, which were drawn of the same count of rows."""
    right: list[Case] = []
    wrong: list[Case] = []
    rows = table.loc[right_and_wrong(table, count=count)]
    for (_, row), (name, drawn) in zip(rows.iterrows(), pictures.items(), strict=True):
        label, guess = classes[row["label"]], classes[row["prediction"]]
        inside = row.get("absolute_relevance_mass", np.nan)
        caption = (
            f"{label}, predicted {guess} ({100 * row[f'probability_{guess}']:.0f} %); "
            f"{100 * inside:.0f} % of absolute relevance in the tumour"
        )
        case = Case(name, caption, drawn, f"Slice of {name} with relevance. {caption}.")
        (right if label == guess else wrong).append(case)
    return right, wrong


def _history(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    return {str(name): table[name].astype(float).tolist() for name in table}


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
        words = "as trained" if name == "as_trained" else condition_words(name)
        lines.append(f"  accuracy {words:<36} {v['value']:.3f}")
    lines.append(f"verdict: {summary['verdict']['headline']}")
    if summary["left_out"]:
        lines.append(f"left out by data.on_error=skip ({len(summary['left_out'])}):")
        lines += [f"  {problem}" for problem in summary["left_out"]]
    return "\n".join(lines)
