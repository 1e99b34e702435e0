"""What validation decides for a network that is trained: its threshold and its temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd

from glioma_xai.experiment.evaluation import patient_table, probabilities_of
from glioma_xai.experiment.scores import Fields
from glioma_xai.metrics.functional.calibration import (
    apply_temperature,
    calibration_bins,
    fit_temperature,
)
from glioma_xai.metrics.functional.classification import (
    classification_intervals,
    expected_calibration_error,
)
from glioma_xai.metrics.functional.decisions import choose_threshold
from glioma_xai.metrics.functional.intervals import Array, bootstrap_interval

AT_THRESHOLD = ("sensitivity", "specificity", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Decision:
    """What was read off validation predictions.

    Args:
        threshold: Probability of the second class, by patient, from which it is decided for; NaN
            if there are no validation predictions, or not two classes.
        temperature: Divides the logits of the samples; NaN if it could not be fitted.
        patients: Validation patients.
        note: What a reader must know; empty if nothing.
    """

    threshold: float
    temperature: float
    patients: int
    note: str = ""


def decide(validation: pd.DataFrame | None, classes: Sequence[str]) -> Decision:
    """Threshold with the best balanced accuracy by patient, temperature with the best likelihood.

    Args:
        validation: One row a sample, as trained; None if the run has none.
        classes: Names.
    """
    if validation is None or not len(validation):
        note = "There are no validation predictions of other patients to choose from."
        return Decision(np.nan, np.nan, 0, note)
    patients = patient_table(validation, classes)
    threshold = np.nan
    if len(classes) == 2:
        threshold = choose_threshold(
            probabilities_of(patients, classes), patients["label"].to_numpy()
        )
    rows, labels = probabilities_of(validation, classes), validation["label"].to_numpy()
    temperature = fit_temperature(_log(rows), labels)
    note = ""
    if (rows.argmax(axis=1) == labels).all():
        note = "Validation has no error to learn the temperature from: any low one fits it."
    return Decision(threshold, temperature, len(patients), note)


def score_decision(
    decision: Decision,
    table: pd.DataFrame,
    *,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Fields]:
    """Scores by patient at the threshold, and calibration by slice and patient before and after.

    Args:
        decision: From other patients than the table's.
        table: One row a sample.
        classes: Names.
        resamples: Draws of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        ``patient_<score>`` at the threshold, and ``<level>_ece`` and
        ``<level>_ece_after_temperature``; without what could not be decided.
    """
    found: dict[str, Fields] = {}
    patients = patient_table(table, classes)
    if not np.isnan(decision.threshold):
        scores = classification_intervals(
            probabilities_of(patients, classes),
            patients["label"].to_numpy(),
            list(patients["patient"]),
            threshold=decision.threshold,
            resamples=resamples,
            seed=seed,
        )
        found |= {f"patient_{name}": asdict(scores[name]) for name in AT_THRESHOLD}
    tempered = table
    if not np.isnan(decision.temperature):
        tempered = _tempered(table, decision.temperature, classes)
    versions: Mapping[str, pd.DataFrame] = {"ece": table, "ece_after_temperature": tempered}
    for name, rows in versions.items():
        if name != "ece" and tempered is table:
            continue
        for level, samples in (("slice", rows), ("patient", patient_table(rows, classes))):
            interval = bootstrap_interval(
                partial(
                    expected_calibration_error,
                    probabilities_of(samples, classes),
                    samples["label"].to_numpy(),
                ),
                list(samples["patient"]),
                resamples=resamples,
                seed=seed,
            )
            found[f"{level}_{name}"] = asdict(interval)
    return found


def bins_of(
    decision: Decision, table: pd.DataFrame, classes: Sequence[str]
) -> dict[str, list[dict[str, float]]]:
    """Confidence and accuracy bin by bin, of slices and of patients, before and after temperature.

    Args:
        decision: From other patients than the table's.
        table: One row a sample.
        classes: Names.

    Returns:
        ``<level>`` and ``<level>_after_temperature`` to the bins that hold a prediction.
    """
    versions = {"": table}
    if not np.isnan(decision.temperature):
        versions["_after_temperature"] = _tempered(table, decision.temperature, classes)
    found = {}
    for words, rows in versions.items():
        for level, samples in (("slice", rows), ("patient", patient_table(rows, classes))):
            bins = calibration_bins(probabilities_of(samples, classes), samples["label"].to_numpy())
            found[f"{level}{words}"] = [asdict(one) for one in bins if one.count]
    return found


def _log(probabilities: Array) -> Array:
    return np.log(np.clip(probabilities, np.finfo(float).tiny, None))


def _tempered(table: pd.DataFrame, temperature: float, classes: Sequence[str]) -> pd.DataFrame:
    probabilities = apply_temperature(_log(probabilities_of(table, classes)), temperature)
    columns = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(classes)}
    return table.assign(**columns)
