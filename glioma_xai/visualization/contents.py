"""What a report shows: plain data, filled in by whoever has run something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glioma_xai.records import Problem

Judgement = Literal["good", "mixed", "bad", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Args:
        value: NaN is shown as undefined.
        low: Lower end; NaN if there is no interval.
        high: Upper end; NaN if there is none.
        note: A few words, say how the interval was made or how many samples were left out.
        share: A number in [0, 1], which is drawn on that scale.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    note: str = ""
    share: bool = True


@dataclass(frozen=True)
class Verdict:
    """What the run comes to, in words.

    Args:
        judgement: Sets the colour and the word beside it.
        headline: One sentence.
        behaviour: What the network decides by, and how that was measured.
        relevance: Where its relevance lies.
    """

    judgement: Judgement
    headline: str
    behaviour: str
    relevance: str


@dataclass(frozen=True)
class Picture:
    """A drawn slice.

    Args:
        name: Which slice.
        png: From :func:`glioma_xai.visualization.overlays.to_png`.
        main: The one that is shown first, and printed.
    """

    name: str
    png: bytes
    main: bool = True


@dataclass(frozen=True)
class Case:
    """A sample in pictures.

    Args:
        title: Patient and slice.
        caption: Label, prediction, scores.
        pictures: One, or some slices of a volume to leaf through; one of them is the main one.
        alternative: What the pictures show, for those who cannot see them.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]
    alternative: str


@dataclass(frozen=True)
class LevelResult:
    """Results of one level, slices or patients, of one split.

    Args:
        name: Such as ``test, by patient``.
        samples: Rows that were scored.
        scores: Score to estimate.
        confusion: Counts, rows are labels and columns predictions, (K, K); None if not counted.
        roc: False and true positive rates of the curve; None for more than two classes.
    """

    name: str
    samples: int
    scores: Mapping[str, Estimate]
    confusion: NDArray[np.int64] | None = None
    roc: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class ScoreTable:
    """A further table of a page: scores by site, of reliability, of faithfulness.

    Args:
        title: Heading.
        text: What the rows are and how to read them.
        rows: Name of a row to score to estimate; a score may be absent from a row.
        row_name: What a row is, such as ``site``.
        chart: SVG from ``charts``, above the rows; empty for none.
    """

    title: str
    text: str
    rows: Mapping[str, Mapping[str, Estimate]]
    row_name: str = "group"
    chart: str = ""


@dataclass(frozen=True)
class RunReport:
    """Everything the page of one run shows; a part that is empty is left out of the page.

    Args:
        title: Name of the experiment.
        verdict: What the run comes to.
        classes: Names of the classes, the positive one last.
        settings: Key of the config, with dots, to value.
        levels: Results by level; the first gives the numbers at the top.
        history: Column of ``metrics.csv`` to values, one an epoch, among them ``epoch``.
        selected_epoch: Epoch of the checkpoint that was evaluated; None if unknown.
        shortcut: Condition (as trained, removed, swapped, ...), in words, to score to estimate.
        shortcut_name: Which shortcut the cohort has; empty or ``none`` if it has none.
        shortcut_notes: Sentences below that table.
        relevance: Score to estimate; ``note`` says how many samples were undefined.
        chance: Score to its level by chance.
        tables: Further tables, in this order, after relevance.
        right_cases: Pictures of right predictions.
        wrong_cases: Pictures of wrong predictions.
        left_out: Subjects left out, and why.
        versions: Package to version.
        reproduce: Commands, one a line.
        facts: Other short facts, such as wall time, by name.
        notes: Sentences a reader must know, such as what a table cannot say.
    """

    title: str
    verdict: Verdict
    classes: Sequence[str]
    settings: Mapping[str, object]
    levels: Sequence[LevelResult]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    selected_epoch: int | None = None
    shortcut: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    shortcut_name: str = ""
    shortcut_notes: Sequence[str] = ()
    relevance: Mapping[str, Estimate] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    tables: Sequence[ScoreTable] = ()
    right_cases: Sequence[Case] = ()
    wrong_cases: Sequence[Case] = ()
    left_out: Sequence[Problem] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    reproduce: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
