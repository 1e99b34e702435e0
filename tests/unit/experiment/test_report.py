"""The report's cases: pictures and rows are of the same samples, however few there are."""

import pandas as pd
import pytest

from glioma_xai.experiment.cases import right_and_wrong
from glioma_xai.experiment.report import _cases
from glioma_xai.visualization.contents import Picture


@pytest.mark.parametrize("right", [0, 1, 4, 8])
def test_every_picture_has_its_row(right: int) -> None:
    table = pd.DataFrame(
        {
            "patient": [f"P{number}" for number in range(8)],
            "label": [0] * 8,
            "prediction": [0] * right + [1] * (8 - right),
            "probability_L": 0.5,
            "probability_H": 0.5,
        }
    )
    rows = right_and_wrong(table, count=6)
    pictures = {str(row): [Picture("slice", b"", main=True)] for row in rows}
    shown = _cases(table, pictures, ("L", "H"), count=6)
    assert [len(cases) for cases in shown] == [
        sum(row < right for row in rows),
        sum(row >= right for row in rows),
    ]
