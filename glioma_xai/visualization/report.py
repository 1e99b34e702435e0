"""One page about one run, complete in itself: no script, nothing fetched, prints well."""

import math
import re
from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from glioma_xai.visualization.charts import curves_by_metric, learning_curves, roc_chart
from glioma_xai.visualization.contents import Estimate, RunReport

MOST_CURVES = 2
"""Levels whose ROC curve and confusion matrix are shown: patients and slices of one split."""


def write_report(path: Path, report: RunReport) -> None:
    """Write the page of a run.

    The page is written beside its place and moved there, so that nobody reads half of one.

    Args:
        path: The HTML file; its folder must exist.
        report: What to show; empty parts are left out.
    """
    judged = report.levels[:MOST_CURVES]
    curves = {level.name: level.roc for level in judged if level.roc is not None}
    write_page(
        path,
        "run.html.j2",
        report=report,
        judged=judged,
        curves=Markup(learning_curves(report.history, selected_epoch=report.selected_epoch)),
        panels=curves_by_metric(report.history),
        roc=Markup(roc_chart(curves)),
    )


def write_page(path: Path, template: str, **contents: object) -> None:
    """Fill a template of this package; every text in it is escaped unless it is ``Markup``.

    Args:
        path: The HTML file; its folder must exist.
        template: File in ``templates``.
        contents: Names that the template uses.
    """
    environment = Environment(
        loader=PackageLoader("glioma_xai.visualization"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "estimate": format_estimate,
        "p_value": format_p_value,
        "words": in_words,
        "data_uri": lambda png: f"data:image/png;base64,{b64encode(png).decode()}",
        "whisker": whisker,
        "svg": Markup,
    }
    page = environment.get_template(template).render(**contents)
    part = path.with_name(f".{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def format_number(value: object, decimals: int = 3) -> str:
    """A number with fixed decimals (one from 100 on); NaN and None say so, integers stay whole.

    Args:
        value: A number, or anything, which is shown as it is.
        decimals: Digits after the point.

    Returns:
        Text.
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else str(value)
    return f"{value:.{decimals}f}" if abs(value) < 100 else f"{value:.1f}"


def format_estimate(estimate: Estimate, decimals: int = 3) -> str:
    """Value and interval, such as ``0.912 (0.880 to 0.940)``.

    Args:
        estimate: What to show.
        decimals: Digits after the point.

    Returns:
        Text; without an interval the value alone.
    """
    value = format_number(float(estimate.value), decimals)
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return value
    return f"{value} ({estimate.low:.{decimals}f} to {estimate.high:.{decimals}f})"


def format_p_value(p_value: float) -> str:
    """A p value with three decimals, never 0.

    Args:
        p_value: In [0, 1] or NaN.

    Returns:
        Text.
    """
    return "< 0.001" if p_value < 0.001 else format_number(p_value)


def in_words(name: object) -> str:
    """A name from the code as a reader writes it: ``relevance_mass_accuracy`` with spaces.

    Args:
        name: Snake case.

    Returns:
        Text, with the short names of scores in capitals and names of people as they are written.
    """
    words = str(name).replace("_", " ")
    words = re.sub(r"\bbrier\b", "Brier score", words)
    return re.sub(r"\b(auc|ece)\b", lambda match: match[0].upper(), words)


def whisker(estimate: Estimate, chance: float | None = None) -> Markup:
    """A dot with its interval on a scale from 0 to 1, to compare the rows of a table.

    Args:
        estimate: A share in [0, 1].
        chance: Marked by a thin line.

    Returns:
        SVG; empty if the value is undefined or no share.
    """
    if not (estimate.share and 0 <= estimate.value <= 1):
        return Markup("")
    low, high = (
        estimate.value if math.isnan(end) else min(1.0, max(0.0, end))
        for end in (estimate.low, estimate.high)
    )
    x = [5 + 140 * share for share in (low, high, estimate.value)]
    mark = ""
    if chance is not None and 0 <= chance <= 1:
        at = 5 + 140 * chance
        mark = f'<line class="chance" x1="{at:.1f}" y1="2" x2="{at:.1f}" y2="16"/>'
    return Markup(
        '<svg class="whisker" aria-hidden="true" width="150" height="18" viewBox="0 0 150 18">'
        f'<line class="axis" x1="5" y1="9" x2="145" y2="9"/>{mark}'
        f'<line class="range" x1="{x[0]:.1f}" y1="9" x2="{x[1]:.1f}" y2="9"/>'
        f'<circle cx="{x[2]:.1f}" cy="9" r="4"/></svg>'
    )
