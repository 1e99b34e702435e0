"""The epochs that a run keeps beside the best one, and evaluation by one of them."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import Cli


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_lists_the_epochs_that_no_other_beats(smoke_run: Path) -> None:
    listed = json.loads((smoke_run / "checkpoints" / "pareto" / "pareto.json").read_text())
    rows = rows_of(smoke_run)
    for kept in listed["front"]:
        assert (smoke_run / "checkpoints" / "pareto" / kept["file"]).is_file()
        for name, value in kept["scores"].items():
            assert float(rows[kept["epoch"]][name]) == pytest.approx(value, rel=1e-4)


def test_metrics_hold_the_flag_and_the_loss_that_it_is_compared_with(smoke_run: Path) -> None:
    last = rows_of(smoke_run)[-1]
    assert last["validation/fairwashing"] in ("0", "1")
    total = float(last["validation/loss"]) + 3 * float(last["validation/loss_guidance"])
    assert float(last["validation/loss_total"]) == pytest.approx(total, rel=1e-4)


def test_a_kept_epoch_can_be_evaluated(cli: Cli, smoke_run: Path, tmp_path: Path) -> None:
    kept = json.loads((smoke_run / "checkpoints" / "pareto" / "pareto.json").read_text())["front"]
    epoch = kept[0]["epoch"]
    run = [f"run={smoke_run}", f"output={tmp_path}"]
    result = cli("evaluate", *run, f"checkpoint=pareto/{epoch}")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["selected_epoch"] == epoch
    wrong = cli("evaluate", *run, "checkpoint=pareto/99")
    assert wrong.returncode == 2
    assert f"expected one of best, last, pareto/{epoch}" in wrong.stderr
