"""Which mask value means what, told from the masks themselves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from glioma_xai.data.files import read_volume
from glioma_xai.data.labels import region_values
from glioma_xai.data.layout import LABEL_SCHEMES, Listing
from glioma_xai.errors import CohortError, SubjectError
from glioma_xai.records import Problem

MASKS_READ = 12
"""Masks that are opened to tell the scheme, spread over the cohort."""


def with_label_values(listing: Listing, region: str) -> Listing:
    """Return the listing with its label scheme filled in.

    What the user or the reader said is kept. Otherwise some masks are read: the published scheme
    that has just their values is taken, the one of the cohort's edition before others. Masks with
    one value need no scheme.

    Raises:
        CohortError: If no published scheme has these values, or several have and do not agree on
            what the region is.
        ConfigError: If the scheme does not show the region.
    """
    problems: tuple[Problem, ...] = ()
    values = listing.label_values
    if values is None:
        masks = [s.lesion_mask for s in listing.subjects if s.lesion_mask is not None]
        found = _values_of(masks[:: max(len(masks) // MASKS_READ, 1)])
        values = _scheme_of(found, region, listing.edition)
        problems = _surprise(values, listing.edition)
    region_values(values, region)
    return replace(listing, label_values=values, problems=(*listing.problems, *problems))


def _values_of(masks: Sequence[Path]) -> list[frozenset[float]]:
    """Return the values of each mask that can be read and is not empty, without 0."""
    found = []
    for path in masks:
        try:
            labels, _ = read_volume(path, indices=True)
        except SubjectError:  # is reported when the subject is read
            continue
        values = np.unique(labels[np.isfinite(labels) & (labels != 0)]).tolist()
        if values:
            found.append(frozenset(values))
    return found


def _scheme_of(
    found: Sequence[frozenset[float]], region: str, edition: str | None
) -> Mapping[str, int] | None:
    """Return the scheme that most masks follow, or None if any non-zero value is tumour.

    A mask that does not follow it is reported when its subject is read.
    """
    fitting = {
        name: scheme
        for name, scheme in LABEL_SCHEMES.items()
        if 2 * sum(values <= set(scheme.values()) for values in found) > len(found)
    }
    if edition in fitting or (edition is not None and not found):
        return LABEL_SCHEMES[edition]
    single = Counter(values for values in found if len(values) == 1)
    if not found or (single and 2 * single.most_common(1)[0][1] > len(found)):
        return None
    listed = ", ".join(f"{value:g}" for value in sorted(frozenset().union(*found))[:8])
    fix = "Set data.label_values to what they mean, as in {necrosis: 1, oedema: 2, enhancing: 4}."
    if not fitting:
        raise CohortError(
            f"mask values must be those of a published scheme or one value, found {listed}. {fix}"
        )
    fewest = min(len(scheme) for scheme in fitting.values())
    closest = {name: s for name, s in fitting.items() if len(s) == fewest}
    if edition is not None and "brats2023" in closest:
        return LABEL_SCHEMES["brats2023"]
    if edition == "brats2023" and "brats2024" in closest:  # the ids are alike
        return LABEL_SCHEMES["brats2024"]
    regions = {region_values(scheme, region) for scheme in closest.values()}
    if len(regions) > 1:
        raise CohortError(
            f"mask values {listed} must tell what {region} is, found that they mean something else "
            f"in {' and '.join(f'{name} ({_meanings(s)})' for name, s in closest.items())}. {fix}"
        )
    return next(iter(closest.values()))


def _meanings(scheme: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {part}" for part, value in scheme.items())


def _surprise(values: Mapping[str, int] | None, edition: str | None) -> tuple[Problem, ...]:
    """Warn if the masks do not use the scheme that the ids promise."""
    if edition is None or values is None:
        return ()
    if values["enhancing"] == LABEL_SCHEMES[edition]["enhancing"]:
        return ()
    expected = f"enhancing tumour as {LABEL_SCHEMES[edition]['enhancing']}, as in {edition}"
    fix = "Set data.label_values if that is wrong."
    found = f"masks that use {values['enhancing']}"
    return (Problem("the cohort's masks", expected, found, fix, "warning"),)
