"""The whole table of exactness, row by row; ``python -m benchmarks.exactness`` prints it."""

import pytest

from tests.unit.attribution.exactness import Case, cases, measure


@pytest.mark.exact
@pytest.mark.parametrize(
    "case", cases(), ids=lambda case: f"{case.network}-{case.dims}d-{case.mode}-{case.composite}"
)
def test_weight_gradients_agree_with_finite_differences(case: Case) -> None:
    row = measure(case)
    print(f"\n{row}")
    assert row.worst <= 1e-6
    assert row.kinks <= 0.1
