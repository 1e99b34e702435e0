"""The table of BraTS that gives a case's grade, site and ids in other editions."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from glioma_xai.data.user_tables import read_table
from glioma_xai.errors import CohortError

MAPPING_FILE = "name_mapping"
TCIA_COLUMN = "TCGA_TCIA_subject_ID"
SITE = re.compile(r"^(?:brats1[789]|phantom)_([a-z0-9]+)_", re.IGNORECASE)


def site_of(case_id: str) -> str | None:
    """Return the site that an id of BraTS 2017 to 2019 names, such as CBICA or TCIA01."""
    found = SITE.match(case_id)
    return found.group(1) if found else None


def read_mapping(tables: Sequence[Path]) -> pd.DataFrame | None:
    """Return name_mapping.csv with one row for each id that any edition gave a case.

    Args:
        tables: Files called like the table; spreadsheets beside it are passed over.

    Returns:
        ``Grade``, ``site`` (from an id of 2017 to 2019, or empty) and ``patient`` (the TCGA id
        where several cases share it, or empty), indexed by case; None if there is no table.

    Raises:
        CohortError: If the table has no column Grade or no ids, or two grades of a case.
    """
    frames = [read_table(path) for path in tables if path.suffix.lower() == ".csv"]
    graded = [frame for frame in frames if "Grade" in frame.columns]
    if not frames:
        return None
    if not graded:  # that of the validation cases comes without
        found = ", ".join(str(column) for column in frames[0].columns)
        raise CohortError(
            f"{tables[0]}: expected a column Grade, found {found}. "
            "Use the table that came with the cohort."
        )
    table = pd.concat(graded, ignore_index=True).fillna("")
    ids = [str(column) for column in table.columns if str(column).startswith("BraTS")]
    if not ids:
        found = ", ".join(str(column) for column in table.columns)
        raise CohortError(
            f"{tables[0]}: expected columns such as BraTS_2020_subject_ID, found {found}. "
            "Use the table that came with the cohort, or name one in data.grades."
        )
    sites = [[site_of(str(case)) for case in row] for row in table[ids].to_numpy()]
    table["site"] = [next((site for site in row if site), "") for row in sites]
    table["patient"] = ""
    if TCIA_COLUMN in table.columns:  # a patient can have several ids in an edition
        repeated = table.duplicated(TCIA_COLUMN, keep=False) & ~table[TCIA_COLUMN].isin(["", "NA"])
        table.loc[repeated, "patient"] = table.loc[repeated, TCIA_COLUMN]
    long = table.melt(id_vars=["Grade", "site", "patient"], value_vars=ids, value_name="case")
    long = long[~long["case"].isin(["", "NA"])].drop_duplicates(["case", "Grade"])
    contradicted = long.loc[long.duplicated("case"), "case"].tolist()
    if contradicted:
        raise CohortError(
            f"{tables[0]}: expected one grade for each case, found two for "
            f"{', '.join(contradicted[:5])}. Remove all rows but one."
        )
    return long.set_index("case")
