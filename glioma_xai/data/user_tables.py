"""Tables that users write: CSV as spreadsheets save it, or JSON."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TextIO

import pandas as pd

from glioma_xai.errors import CohortError

DELIMITERS = ",;\t"


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV with a header, or a JSON list of records, every cell as text.

    Commas, semicolons or tabs may separate cells. The index says which line of a CSV a row ends
    on, which record of a JSON list it is.

    Raises:
        CohortError: If the file is absent, is no table, or has no rows.
    """
    if not path.is_file():
        raise CohortError(
            f"a table must be CSV or JSON: expected it at {path}, found none. "
            "Set data.manifest or data.grades to the table's path."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = _from_json(file) if path.suffix.lower() == ".json" else _from_csv(file, path)
    except (ValueError, csv.Error) as error:
        if isinstance(error, CohortError):
            raise
        raise CohortError(
            f"{path}: expected a CSV with a header or a JSON list of records, found something "
            f"else ({error}). Repair the table."
        ) from error
    if table.empty:
        raise CohortError(f"{path}: expected one row a subject, found no rows. Fill the table.")
    return table


def _from_json(file: TextIO) -> pd.DataFrame:
    rows = json.load(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"no list of records but {str(rows)[:40]}")
    table = pd.DataFrame(rows, dtype=object, index=range(1, len(rows) + 1))
    return table.where(table.notna(), "").astype(str)


def _from_csv(file: TextIO, path: Path) -> pd.DataFrame:
    head = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(DELIMITERS, key=head.count))
    header = [name.strip() for name in next(reader, [])]
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise CohortError(
            f"{path}: expected every column once, found {', '.join(twice)} repeated. "
            "Rename or remove one of them."
        )
    rows: dict[int, list[str]] = {}
    for cells in reader:
        if any(cells[len(header) :]):
            raise CohortError(
                f"{path} line {reader.line_num}: expected {len(header)} cells, found "
                f"{len(cells)}. Put a cell that holds a comma into quotes."
            )
        if any(cell.strip() for cell in cells):
            rows[reader.line_num] = [*cells, *[""] * len(header)][: len(header)]
    return pd.DataFrame(list(rows.values()), index=list(rows), columns=header, dtype=str)
