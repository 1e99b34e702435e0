"""What the check command prints about a cohort."""

from pathlib import Path

import pytest
from torch import nn

from glioma_xai.errors import CohortError, CompatibilityError, ConfigError
from glioma_xai.experiment.commands import check
from tests.unit.data.small_cohorts import write_case

ODD = (f"model._target_={__name__}.odd_network", "~model.dropout", "~model.batch_norm")
WRONG = ("callbacks.best.monitor=validation/acu", "optimizer.lr=-1")


def odd_network(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network with a layer that relevance cannot pass."""
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    return nn.Sequential(nn.Conv2d(input_shape[0], 4, 3), nn.GELU(), *pool)


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


def test_problems_of_cohort_settings_and_network_are_one_list(
    arguments, brats_root: Path, capsys
) -> None:
    write_case(brats_root / "HGG", "Brats18_CBICA_301_1", t2=None)
    said = r"expected no errors, found 1, listed above\..* 3 of the settings and the network are"
    with pytest.raises(CohortError, match=said):
        check([*arguments, *ODD, *WRONG])
    printed = capsys.readouterr().out
    assert "error: Brats18_CBICA_301_1: expected t2, t1ce, flair, found t1ce, flair" in printed
    assert "GELU at 1: replace it by ReLU" in printed
    assert "error: callbacks.best.monitor=validation/acu: expected a score" in printed
    assert "error: optimizer or scheduler: Invalid learning rate: -1" in printed


def test_settings_are_listed_where_the_cohort_has_no_errors(arguments, capsys) -> None:
    with pytest.raises(ConfigError, match=r"network: expected no errors, found 3, listed above\."):
        check([*arguments, *ODD, *WRONG])
    printed = capsys.readouterr().out
    assert "GELU at 1" in printed
    assert "Did you mean validation/auc?" in printed
    assert "Invalid learning rate" in printed
    with pytest.raises(ConfigError, match="Invalid learning rate"):  # a single one says it itself
        check([*arguments, WRONG[1]])
    with pytest.raises(CompatibilityError, match="GELU at 1"):
        check([*arguments, *ODD])


def test_the_network_is_looked_at_without_any_cohort(arguments, tmp_path: Path, capsys) -> None:
    nowhere = [word for word in arguments if not word.startswith("data.root=")]
    nowhere.append(f"data.root={tmp_path / 'nowhere'}")
    with pytest.raises(CohortError, match=r"found 1, .* 1 of the settings and the network"):
        check([*nowhere, *ODD])
    printed = capsys.readouterr().out
    assert printed.count("nowhere") == 1
    assert "GELU at 1" in printed
    with pytest.raises(CohortError, match=r"found 1, listed above"):
        check([*nowhere, *ODD, "data.spatial_size=null"])
    printed = capsys.readouterr().out
    assert "the network: not looked at" in printed
    assert "GELU" not in printed
