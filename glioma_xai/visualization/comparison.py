"""Many runs on one page: what differs, what came of it, and whether it is more than chance."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from glioma_xai.visualization.agreement import Similarity, agreement_of_seeds
from glioma_xai.visualization.charts import overlaid_curves, pareto_chart
from glioma_xai.visualization.contents import Case, Estimate, Picture
from glioma_xai.visualization.pooling import (
    Setting,
    differing_keys,
    group_by_setting,
    pareto_front,
    pool,
)
from glioma_xai.visualization.report import write_page
from glioma_xai.visualization.runs import DROP, Run, find_runs
from glioma_xai.visualization.significance import AreaTest, compare_settings

AREA = "metrics/test/patient/auc"
INSIDE = "relevance/test/relevance_mass_accuracy"
SCORES = {
    AREA: "AUC by patient",
    "metrics/test/patient/accuracy": "accuracy by patient",
    INSIDE: "relevance inside",
    "relevance/test/absolute_relevance_mass": "absolute relevance inside",
}
COSTS = {
    "guided_plain_step_ratio": "step, against a plain one",
    "wall_seconds": "wall time, s",
}
WRONG_CUE = (
    "behaviour/swapped/patient/accuracy",
    "behaviour/exchanged_other_class/patient/accuracy",
)
CURVES = (
    "train/loss_classification",
    "train/loss_guidance",
    "validation/accuracy",
    "validation/auc",
    "validation/exchanged_accuracy",
    "validation/relevance_mass_accuracy",
)
CONDITIONS = {
    "exchanged_any": "on another background",
    "exchanged_other_class": "on a background of another class",
    "removed": "without the shortcut",
    "swapped": "with the shortcut swapped",
}
ONLY_IN_DROP = ("exchanged_same_class", "noise_outside")
"""Conditions that have no column of their own; the largest drop counts them."""
MOST_CASES = 4


@dataclass(frozen=True)
class Row:
    """One setting in the table.

    Args:
        setting: The setting.
        scores: One estimate a column.
        in_front: No other setting beats it.
    """

    setting: Setting
    scores: Sequence[Estimate]
    in_front: bool


def compare_runs(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    area_test: AreaTest | None = None,
    similarity: Similarity | None = None,
) -> Path:
    """Write ``comparison.html`` and ``comparison.csv`` about all finished runs in some folders.

    Runs that differ in their seed and fold only are one setting: their scores are pooled, with a t
    interval over the runs. Settings are tested pairwise, with p values corrected for the number of
    tests.

    Args:
        run_dirs: Run folders, sweep folders, or folders of either.
        output: Folder for the page; made if it is missing.
        area_test: Paired test of two areas under the ROC curve, for settings with one run each.
        similarity: Of the relevance maps of two runs, for settings with several seeds.

    Returns:
        The page.

    Raises:
        RunError: If a folder is missing, holds no finished run, or its maps cannot be read.
    """
    runs, others = find_runs(run_dirs)
    settings = group_by_setting(runs)
    columns = _columns(runs)
    wrong_cue = next((path for path in WRONG_CUE if path in columns), "")
    points = _objectives(settings, wrong_cue)
    front = pareto_front(points)
    rows = [
        Row(setting, [pool(setting, path) for path in columns], setting.letter in front)
        for setting in settings
    ]
    tests = {
        path: compare_settings(settings, path, area_test=area_test)
        for path in (AREA, wrong_cue, INSIDE)
        if path in columns
    }
    names = shown_names([*(run.folder for run in runs), *others])
    output.mkdir(parents=True, exist_ok=True)
    _write_table(output / "comparison.csv", columns, rows)
    page = output / "comparison.html"
    write_page(
        page,
        "comparison.html.j2",
        rows=rows,
        columns=columns,
        keys=differing_keys(runs),
        others={names[folder]: reason for folder, reason in others.items()},
        names=names,
        links={folder: _link(folder, output) for folder in names},
        several=sum(len(setting.runs) > 1 for setting in settings),
        folds=len({run.fold for run in runs}) > 1,
        tests={columns[path]: found for path, found in tests.items() if found},
        pareto=Markup(
            pareto_chart(points, front, ("relevance inside", "AUC", columns.get(wrong_cue, "")))
        ),
        curves=Markup(
            overlaid_curves(
                {f"{s.letter} {s.label}": [run.history for run in s.runs] for s in settings}, CURVES
            )
        ),
        cases=_same_cases(settings),
        agreement=_agreement(settings, similarity),
    )
    return page


def shown_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder to its name on a page: from the folder on that all have in common, not the whole path.

    Args:
        folders: Of runs.
    """
    places = {folder: folder.resolve() for folder in folders}
    top = Path(os.path.commonpath([place.parent for place in places.values()]))
    top = top.parent if len({place.parent for place in places.values()}) == 1 else top
    return {folder: place.relative_to(top).as_posix() for folder, place in places.items()}


def _link(folder: Path, output: Path) -> str:
    """Address of a run's own page, seen from the folder of this one; empty if it has none."""
    page = folder.resolve() / "report.html"
    if not page.is_file():
        return ""
    return quote(Path(os.path.relpath(page, output.resolve())).as_posix())


def _agreement(settings: Sequence[Setting], similarity: Similarity | None) -> dict[str, Estimate]:
    """Letter to the agreement of relevance between seeds, where there are several with maps."""
    if similarity is None:
        return {}
    found = {s.letter: agreement_of_seeds(s, similarity) for s in settings if len(s.runs) > 1}
    return {letter: estimate for letter, estimate in found.items() if estimate is not None}


def _objectives(
    settings: Sequence[Setting], wrong_cue: str
) -> dict[str, tuple[float, float, float]]:
    """Letter to relevance inside, AUC and accuracy under the wrong cue, where all are known."""
    found = {}
    for setting in settings:
        inside, area, accuracy = (pool(setting, path).value for path in (INSIDE, AREA, wrong_cue))
        if not any(map(math.isnan, (inside, area, accuracy))):
            found[setting.letter] = (inside, area, accuracy)
    return found


def _columns(runs: Sequence[Run]) -> dict[str, str]:
    """Path of each score that some run has, to the name of its column."""
    present = dict.fromkeys(path for run in runs for path in run.scores)
    columns = {DROP: "largest drop of accuracy"} if DROP in present else {}
    for path in present:
        part = path.split("/")
        shown = part[0] == "behaviour" and part[1] not in ONLY_IN_DROP
        if shown and part[-2:] == ["patient", "accuracy"]:
            columns[path] = f"accuracy {CONDITIONS.get(part[1], part[1].replace('_', ' '))}"
    repeated = "metrics/test/patient/accuracy" if columns else ""  # it is the one as trained
    scores = {path: SCORES[path] for path in SCORES if path in present and path != repeated}
    return columns | scores | {path: COSTS[path] for path in COSTS if path in present}


def _write_table(path: Path, columns: dict[str, str], rows: Sequence[Row]) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ends = [f"{name}{end}" for name in columns.values() for end in ("", " low", " high")]
        writer.writerow(["setting", "overrides", "seeds", "folds", "in Pareto front", *ends])
        for row in rows:
            numbers = [n for e in row.scores for n in (e.value, e.low, e.high)]
            seeds = " ".join(str(run.seed) for run in row.setting.runs)
            front = "yes" if row.in_front else "no"
            folds = "; ".join(dict.fromkeys(run.fold for run in row.setting.runs if run.fold))
            writer.writerow([row.setting.letter, row.setting.label, seeds, folds, front, *numbers])
    part.replace(path)


def _same_cases(settings: Sequence[Setting]) -> dict[str, list[Case]]:
    """Name of a test case to its picture in each setting that drew it, at least two of them."""
    found: dict[str, list[Case]] = {}
    for setting in settings:
        drawn: dict[str, Path] = {}
        for run in setting.runs:
            drawn = {**run.pictures, **drawn}  # of several seeds, the first one's picture
        for name, path in drawn.items():
            alternative = f"Relevance of {name} in setting {setting.letter}, {setting.label}."
            picture = Picture(name, path.read_bytes())
            case = Case(f"{setting.letter}:", setting.label, [picture], alternative)
            found.setdefault(name, []).append(case)
    shared = {name: cases for name, cases in found.items() if len(cases) > 1}
    most = sorted(shared, key=lambda name: (-len(shared[name]), name))[:MOST_CASES]
    return {name: shared[name] for name in most}
