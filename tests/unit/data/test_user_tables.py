import json
from pathlib import Path

import pytest

from glioma_xai.data.user_tables import read_table
from glioma_xai.errors import CohortError


def cells(folder: Path, text: str, name: str = "table.csv") -> list[dict[str, str]]:
    (folder / name).write_text(text, encoding="utf-8")
    return read_table(folder / name).to_dict("records")  # type: ignore[return-value]


EXPECTED = [{"patient": "A", "label": "G2", "note": ""}, {"patient": "B", "label": "", "note": ""}]


@pytest.mark.parametrize(
    "text",
    [
        "patient,label,note\nA,G2,\nB,,\n",
        "patient,label,note\nA,G2,,\nB,,,\n",  # a comma too many in every row
        "patient,label,note\nA,G2\n\nB\n",  # cells that are absent, a blank line
        "\ufeffpatient;label;note\r\nA;G2;\r\nB;;\r\n",  # a spreadsheet's
        "patient\tlabel\tnote\nA\tG2\t\nB\t\t\n",
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, text: str):
    assert cells(tmp_path, text) == EXPECTED


def test_cells_beyond_the_header_would_shift_the_others(tmp_path: Path):
    text = "patient,image,label\nA,a.png,G2\nB,b,1.png,G3\n"
    with pytest.raises(CohortError, match=r"line 3: expected 3 cells, found 4\. Put a cell that"):
        cells(tmp_path, text)


def test_a_column_that_is_there_twice(tmp_path: Path):
    with pytest.raises(CohortError, match="expected every column once, found label repeated"):
        cells(tmp_path, "patient,label,label\nA,G2,G3\n")


def test_numbers_of_json_stay_whole_where_some_are_absent(tmp_path: Path):
    text = json.dumps([{"patient": 1, "label": 2}, {"patient": 2, "label": None}, {"patient": 3}])
    assert cells(tmp_path, text, "table.json") == [
        {"patient": "1", "label": "2"},
        {"patient": "2", "label": ""},
        {"patient": "3", "label": ""},
    ]


def test_what_is_no_table_is_refused(tmp_path: Path):
    with pytest.raises(CohortError, match=r"a table must be CSV or JSON: expected it at .*, found"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(CohortError, match="expected one row a subject, found no rows"):
        cells(tmp_path, "patient,label\n")
    for text in ("{", '{"patient": "A"}', "5", "[1, 2]"):
        with pytest.raises(CohortError, match="expected a CSV with a header or a JSON list"):
            cells(tmp_path, text, "table.json")
