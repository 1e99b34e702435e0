"""From results to the tables of the report that stand behind the main numbers."""

import math
from collections.abc import Mapping
from typing import Any

from glioma_xai.experiment.faithfulness import Faithfulness
from glioma_xai.experiment.results import RunResults
from glioma_xai.experiment.scores import Fields
from glioma_xai.experiment.verdict import condition_words
from glioma_xai.visualization.charts import line_chart
from glioma_xai.visualization.contents import Estimate, ScoreTable


def estimate(fields: Mapping[str, Any], *, share: bool = True, note: str = "") -> Estimate:
    """An interval of the results as the report shows it."""
    value, low, high = (float(fields[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, note or str(fields.get("method", "")), share=share)


def behaviour_rows(results: RunResults) -> dict[str, dict[str, Estimate]]:
    """Condition in words to accuracy, what it loses, and AUC, all by patient."""
    behaviour = results.behaviour
    rows: dict[str, dict[str, Estimate]] = {}
    for name, scores in {**behaviour.scores, **behaviour.without_tumour}.items():
        patient = scores["patient"]
        row = {"accuracy, by patient": estimate(patient["accuracy"])}
        if name in behaviour.gaps:
            row["accuracy lost"] = estimate(behaviour.gaps[name], share=False)
        row["auc, by patient"] = estimate(patient["auc"])
        rows[condition_words(name)] = row
    return rows


def behaviour_notes(results: RunResults) -> list[str]:
    """What must be said below the table of conditions."""
    behaviour = results.behaviour
    notes = []
    if behaviour.without_tumour:
        notes.append(
            "The last rows take the tumour away: near chance is wanted there, and they do not "
            "enter the verdict. The hole that is left may still tell the tumour's size and place. "
            "AUC sees every trace: far from 0.5, above or below, the rest of the image still moves "
            "the score, be it ever so little."
        )
    if "background_class" in behaviour.gaps:
        gap = estimate(behaviour.gaps["background_class"])
        notes.append(
            "What the background says about the class (accuracy on backgrounds of the same class "
            f"less that on backgrounds of any class): {_range(gap)}."
        )
    notes += [
        f"{condition_words(name).capitalize()}: left out, because {reason}."
        for name, reason in behaviour.left_out.items()
    ]
    return notes


def further_tables(results: RunResults) -> list[ScoreTable]:
    """Threshold, calibration, sites, reliability, faithfulness: those that there are."""
    tables = [_threshold(results), _calibration(results), *_groups(results)]
    tables += _reliability(results)
    if results.faithfulness is not None:
        tables += _faithfulness(results.faithfulness)
    return [table for table in tables if table is not None]


def _threshold(results: RunResults) -> ScoreTable | None:
    threshold = results.decision.threshold
    if math.isnan(threshold):
        return None
    as_it_is = results.metrics[results.split]["patient"]
    names = ("sensitivity", "specificity", "accuracy")
    return ScoreTable(
        "Decision threshold",
        "The numbers above decide at a probability of 0.5. The threshold "
        f"{threshold:.3f} has the best balanced accuracy on the {results.decision.patients} "
        "validation patients.",
        {
            "0.500": {name: estimate(as_it_is[name]) for name in names},
            f"{threshold:.3f}": {
                name: estimate(results.decided[f"patient_{name}"]) for name in names
            },
        },
        "threshold, by patient",
    )


def _calibration(results: RunResults) -> ScoreTable:
    decision = results.decision
    text = "The expected calibration error (ECE) is the mean distance of confidence and accuracy."
    if not math.isnan(decision.temperature):
        text += (
            f" Temperature {decision.temperature:.2f}, fitted on the validation slices, divides "
            "the logits: above 1 the network was too sure."
        )
    rows = {
        f"by {level}{words}": {"ece": estimate(results.decided[f"{level}_{key}"])}
        for level in ("patient", "slice")
        for key, words in (("ece", ""), ("ece_after_temperature", ", after temperature"))
        if f"{level}_{key}" in results.decided
    }
    curves: dict[str, tuple[list[float], list[float]]] = {"as it should be": ([0, 1], [0, 1])}
    for words in ("", "_after_temperature"):
        bins = results.bins.get(f"slice{words}", [])
        if len(bins) > 1:
            curves[f"slices{words.replace('_', ' ')}"] = (
                [one["confidence"] for one in bins],
                [one["accuracy"] for one in bins],
            )
    chart = line_chart(curves, "mean confidence of a bin", "accuracy") if len(curves) > 1 else ""
    return ScoreTable(
        "Calibration", f"{text} {decision.note}".strip(), rows, "probabilities", chart=chart
    )


def _groups(results: RunResults) -> list[ScoreTable]:
    groups: Any = results.groups
    found = []
    for key, worst_key, title, row, small in (
        ("sites", "worst", "By site", "site", "No site has the five patients that this needs."),
        (
            "tumour_size",
            "worst_tumour_size",
            "By size of the tumour",
            "tumour, below the median or from it on",
            "Neither half has the five patients that this needs.",
        ),
    ):
        if key not in groups:
            continue
        rows = {
            f"{group} ({scores['accuracy']['samples']} patients)": {
                name: estimate(scores[name])
                for name in ("accuracy", "sensitivity", "specificity")
                if name in scores
            }
            for group, scores in groups[key].items()
        }
        text, worst = small, groups[worst_key]
        if worst is not None:
            text = (
                f"Lowest accuracy: {worst['group']}, {_range(estimate(worst))}. The lowest of "
                "several small groups is low by chance alone: read its interval."
            )
        found.append(ScoreTable(title, text, rows, row))
    return found


def _reliability(results: RunResults) -> list[ScoreTable]:
    tables = []
    for level, found in results.reliability.items():
        title = f"Reliability of one prediction, by {level}"
        if found.reason:
            if level == "patient":
                tables.append(ScoreTable(title, f"Not judged: {found.reason}.", {}))
            continue
        rows: dict[str, dict[str, Estimate]] = {}
        for name in found.curves:
            rows[name.replace("_", " ")] = {"area": estimate(found.scores[name])}
            if f"{name}_less_confidence" in found.scores:
                difference = estimate(found.scores[f"{name}_less_confidence"], share=False)
                rows[name.replace("_", " ")]["less that of confidence"] = difference
        text = (
            f"Learnt from {found.errors} wrong of {found.rows} validation rows, from where the "
            "relevance of the predicted class lies and how sure the softmax is. The area under "
            "risk and coverage is the mean error rate over all shares of predictions that could be "
            "kept: lower is better, and a difference below 0 beats the softmax alone. The column "
            "reliability of predictions.csv is that of the logistic model."
        )
        chart = line_chart(
            {name.replace("_", " "): curve for name, curve in found.curves.items()},
            "share of predictions kept",
            "error rate among them",
        )
        tables.append(ScoreTable(title, text, rows, "sorted by", chart=chart))
    return tables


def _faithfulness(found: Faithfulness) -> list[ScoreTable]:
    count = f"{found.samples} patients, one sample each."
    shown = "patches, mean tissue"
    steps = len(found.curves[shown]["random"])
    chart = line_chart(
        {
            _ORDERS[order]: ([step / (steps - 1) for step in range(steps)], values)
            for order, values in found.curves[shown].items()
        },
        "share of patches replaced by mean tissue",
        "explained score, logit",
    )
    replaced = ScoreTable(
        "Faithfulness: what relevance points to is replaced",
        "Patches, and regions cut along the borders of tumour and brain, are replaced in the order "
        f"of their relevance, and the explained score is watched. {count} Area between the curve "
        "of a random order and that order: above 0 for most relevant first and below 0 for least "
        "relevant first if relevance finds what the network uses.",
        {
            name: {
                order.replace("_", " relevant "): estimate(area, share=False)
                for order, area in areas.items()
            }
            for name, areas in found.areas.items()
        },
        "what is replaced, by what",
        chart=chart,
    )
    tables = [replaced]
    layers: Mapping[str, Fields] = found.similarity
    tables.append(
        ScoreTable(
            "Faithfulness: shuffled weights",
            f"Rank correlation of relevance with that of the network whose weights are shuffled "
            f"from the output down to the layer. {count} It must fall: a map that stays explains "
            "no weights. Compare methods rather than levels.",
            {
                name: {"rank correlation": estimate(fields, share=False)}
                for name, fields in layers.items()
            },
            "down to layer",
        )
    )
    return tables


_ORDERS = {
    "most": "most relevant first",
    "least": "least relevant first",
    "random": "random order",
}


def _range(found: Estimate) -> str:
    text = f"{found.value:.3f}"
    return text if math.isnan(found.low) else f"{text} ({found.low:.3f} to {found.high:.3f})"
