"""What the check command prints about a cohort."""

from pathlib import Path

import pytest

from glioma_xai.errors import CohortError
from glioma_xai.experiment.commands import check
from tests.unit.data.small_cohorts import write_case


@pytest.fixture
def arguments(brats_root: Path, tmp_path: Path) -> list[str]:
    return [
        "data=brats",
        f"data.root={brats_root}",
        "data.spatial_size=[20,24]",
        "data.spacing_mm=null",
        "data.test_share=0.34",
        "data.validation_share=0.17",
        f"paths.cache={tmp_path / 'cache'}",
        "logger=none",
    ]


def test_tables_and_problems_are_printed_at_once(arguments, brats_root: Path, capsys):
    write_case(brats_root / "HGG", "Brats18_CBICA_301_1", t2=None)
    write_case(brats_root / "LGG", "Brats18_CBICA_302_1", seg=None, seed=302)
    with pytest.raises(CohortError, match=r"expected no errors, found 1, listed above\. Mend"):
        check(arguments)
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "subjects 7 6" in lines
    assert "patients: site TCIA01 3 3" in lines
    assert "modality class 1 % 50 % 90 % 99 % 99 % from - to" in lines
    assert any(line.startswith("error: Brats18_CBICA_301_1: expected t2, t1ce,") for line in lines)
    assert any(line.startswith("warning: Brats18_CBICA_302_1: expected a seg") for line in lines)
    assert (
        "warning: the cohort: expected every subject, found without 0 of 7 LGG, 1 of 7 HGG"
        in printed
    )


def test_with_on_error_skip_it_goes_on_and_says_so(arguments, brats_root: Path, capsys):
    write_case(brats_root / "HGG", "Brats18_CBICA_301_1", t2=None)
    check([*arguments, "data.on_error=skip"])
    printed = capsys.readouterr().out
    assert "error: Brats18_CBICA_301_1: expected t2, t1ce, flair, found t1ce, flair" in printed
    assert "1 errors left out: 36 samples of 12 patients" in printed
