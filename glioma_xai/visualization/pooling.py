"""Runs of one setting pooled over seeds and folds, and the settings that no other beats."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from glioma_xai.visualization.contents import Estimate
from glioma_xai.visualization.runs import DROP, Run

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed, and in which patients they trained on, only.

    Args:
        letter: Short name on the page.
        label: The experiment's name where names differ, and as overrides what tells it from other
            settings of that name.
        runs: At least one.
    """

    letter: str
    label: str
    runs: Sequence[Run]


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Keys of the config that do not have the same value in all runs, in their order.

    Args:
        runs: What is compared.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]


def group_by_setting(runs: Sequence[Run]) -> list[Setting]:
    """Put together the runs whose config differs in the seed and the split of patients only.

    Args:
        runs: What is compared.

    Returns:
        One entry a setting, lettered in the order of the first run.
    """
    keys = differing_keys(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.get(key, "–") for key in keys), []).append(run)
    members = list(groups.values())
    return [
        Setting(_letter(position), _label(group[0], [other[0] for other in members]), group)
        for position, group in enumerate(members)
    ]


def _label(run: Run, others: Sequence[Run]) -> str:
    """What a reader calls a setting, given one run of each."""
    name = run.settings.get("name", "")
    namesakes = [other for other in others if other.settings.get("name", "") == name]
    keys = differing_keys(namesakes)
    plain = [key for key in keys if not key.endswith(("_target_", "_partial_"))] or keys
    words = [f"{key}={run.settings.get(key, '–')}" for key in plain]
    if len(namesakes) < len(others):
        words.insert(0, name)
    return " ".join(words) or "all alike"


def pool(setting: Setting, score: str) -> Estimate:
    """Mean of a score over the runs of a setting.

    Args:
        setting: Runs of one setting.
        score: Path in ``summary.json``.

    Returns:
        With two runs or more the mean and its 95 % t interval over runs, cut to what the score can
        be: how sure the mean over runs is. With one run its own interval: how far other
        patients may lie. Costs, which stand at the top of the summary, have a mean alone. NaN if
        no run has the score.
    """
    found = [run.scores[score] for run in setting.runs if score in run.scores]
    values = np.array([estimate.value for estimate in found if not math.isnan(estimate.value)])
    if not found:
        return Estimate(math.nan, note=NOT_MEASURED)
    if len(setting.runs) == 1:
        return found[0]
    if len(values) < 2 or "/" not in score:
        mean = float(values.mean()) if len(values) else math.nan
        return Estimate(mean, note=f"{len(values)} runs")
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    mean = float(values.mean())
    least = -1.0 if score == DROP else 0.0  # every other score of a run is a share
    return Estimate(mean, max(least, mean - half), min(1.0, mean + half), f"{len(values)} runs")


def pareto_front(points: Mapping[str, Sequence[float]]) -> set[str]:
    """Names that no other beats: at least as good in everything and better in something.

    Args:
        points: Name to objectives, higher is better; one with a NaN is never in the front.

    Returns:
        Names of the front.
    """
    known = {name: np.asarray(p) for name, p in points.items() if not np.isnan(p).any()}

    def beaten(name: str) -> bool:
        own = known[name]
        return any((p >= own).all() and (p > own).any() for p in known.values())

    return {name for name in known if not beaten(name)}


def _letter(position: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letters = ""
    position += 1
    while position:
        position, remainder = divmod(position - 1, 26)
        letters = chr(ord("A") + remainder) + letters
    return letters
