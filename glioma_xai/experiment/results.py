"""What is measured of a run's network: scores of each split, behaviour, reliability."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
from omegaconf import DictConfig

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.behaviour import Behaviour, measure_behaviour
from glioma_xai.experiment.decision import Decision, bins_of, decide, score_decision
from glioma_xai.experiment.evaluation import predict_table
from glioma_xai.experiment.faithfulness import Faithfulness, measure_faithfulness
from glioma_xai.experiment.maps import choose_overlap
from glioma_xai.experiment.parts import score_parts
from glioma_xai.experiment.reliability import Reliability, judge_predictions
from glioma_xai.experiment.scores import Fields, Scores, score_groups, score_relevance, score_table
from glioma_xai.records import Split
from glioma_xai.training.module import GuidedClassifier


@dataclass(frozen=True)
class RunResults:
    """Results of a run; behaviour and all below it are of the last split.

    Args:
        epoch: Epoch that validation chose, counted from 0.
        tables: Split to one row a sample.
        metrics: Split to level (``slice``, ``patient``) to score to interval.
        relevance: Split to relevance score to interval.
        behaviour: The same samples under conditions.
        decision: Threshold and temperature that validation chose.
        decided: Scores at that threshold, and calibration before and after.
        bins: Confidence and accuracy bin by bin.
        groups: Scores by site and by size of the tumour; without what is not known.
        iou_threshold: Share of a map's highest pixel that validation chose for its overlap with
            the tumour; NaN if it could not be chosen.
        reliability: Level to the reliability of each prediction.
        faithfulness: Perturbation and shuffled weights; None if not asked for.
        training: How it was trained: monitor, its value, wall time.
    """

    epoch: int
    tables: Mapping[Split, pd.DataFrame]
    metrics: Mapping[str, Scores]
    relevance: Mapping[str, dict[str, Fields]]
    behaviour: Behaviour
    decision: Decision
    decided: Mapping[str, Fields]
    bins: Mapping[str, list[dict[str, float]]]
    groups: Mapping[str, object]
    reliability: Mapping[str, Reliability]
    iou_threshold: float = math.nan
    faithfulness: Faithfulness | None = None
    training: Mapping[str, object] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """The split that is judged: the last one."""
        return list(self.tables)[-1]

    def with_training(self, **values: object) -> "RunResults":
        """The same with more said about the training."""
        return replace(self, training={**self.training, **values})


def evaluate_splits(
    config: DictConfig,
    *,
    data: GliomaDataModule,
    module: GuidedClassifier,
    splits: tuple[Split, ...] = ("validation", "test"),
    epoch: int = -1,
    validation: pd.DataFrame | None = None,
    iou_threshold: float = math.nan,
    faithfulness: bool = False,
) -> RunResults:
    """Scores of each split, and everything else of the last one.

    Args:
        config: Of the run.
        data: Set up.
        module: The trained network.
        splits: To evaluate; the last one is judged.
        epoch: Epoch that validation chose.
        validation: Predictions of the run's own validation samples, where ``splits`` does not hold
            them; threshold, temperature and reliability are learnt from them.
        iou_threshold: What validation chose, where ``splits`` does not hold it.
        faithfulness: Perturb images and shuffle weights too.
    """
    module.eval()
    if "validation" in splits:
        iou_threshold = choose_overlap(module, data)
    resamples, seed = int(config.bootstrap), int(config.seed)
    tables: dict[Split, pd.DataFrame] = {
        split: predict_table(
            module,
            data.evaluation_loader(split),
            classes=data.classes,
            iou_threshold=iou_threshold,
            parts=partial(score_parts, data),
        )
        for split in splits
    }
    judged = splits[-1]
    rows = tables[judged]
    known = tables.get("validation", validation) if judged != "validation" else None
    decision = decide(known, data.classes)
    locate = partial(score_relevance, resamples=resamples, seed=seed)

    def score(table: pd.DataFrame) -> Scores:
        return score_table(table, classes=data.classes, resamples=resamples, seed=seed)

    return RunResults(
        epoch=epoch,
        tables=tables,
        metrics={split: score(table) for split, table in tables.items()},
        relevance={split: locate(table) for split, table in tables.items()},
        behaviour=measure_behaviour(
            module, data, split=judged, as_trained=rows, resamples=resamples, seed=seed
        ),
        decision=decision,
        decided=score_decision(
            decision, rows, classes=data.classes, resamples=resamples, seed=seed
        ),
        bins=bins_of(decision, rows, data.classes),
        groups=score_groups(rows, classes=data.classes, resamples=resamples, seed=seed),
        reliability=judge_predictions(
            known, rows, classes=data.classes, resamples=resamples, seed=seed
        ),
        iou_threshold=iou_threshold,
        faithfulness=measure_faithfulness(
            module, data, split=judged, resamples=resamples, seed=seed
        )
        if faithfulness
        else None,
    )
