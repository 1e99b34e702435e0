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
        CohortError: If the table has no column Grade.
    """
    frames = []
    for path in tables:
        if path.suffix.lower() != ".csv":
            continue
        table = read_table(path)
        if "Grade" not in table.columns:
            raise CohortError(
                f"{path}: expected a column Grade, found {', '.join(table.columns)}. "
                "Use the table that came with the cohort."
            )
        frames.append(table)
    if not frames:
        return None
    table = pd.concat(frames, ignore_index=True)
    ids = [str(column) for column in table.columns if str(column).startswith("BraTS")]
    sites = [[site_of(str(case)) for case in row] for row in table[ids].to_numpy()]
    table["site"] = [next((site for site in row if site), "") for row in sites]
    table["patient"] = ""
    if TCIA_COLUMN in table.columns:  # a patient can have several ids in an edition
        repeated = table.duplicated(TCIA_COLUMN, keep=False) & ~table[TCIA_COLUMN].isin(["", "NA"])
        table.loc[repeated, "patient"] = table.loc[repeated, TCIA_COLUMN]
    long = table.melt(id_vars=["Grade", "site", "patient"], value_vars=ids, value_name="case")
    return long[long["case"] != ""].drop_duplicates("case").set_index("case")
