"""A network that is known to be gamed is found out by its run; one guided by the recipe is not."""

import json
from pathlib import Path

import pytest

from benchmarks.guidance_recipes import FROM_SCRATCH, GAMED
from tests.conftest import Cli

COHORT = (
    "data.spacing_mm=4.0",
    "data.spatial_size=[48,56]",
    "data.slice_count=3",
    "data.batch_size=32",
    "data.phantom.subjects=240",
    "logger=none",
    "overlays=0",
    "bootstrap=100",
)


@pytest.mark.parametrize(
    ("recipe", "epochs", "gamed"),
    [((*GAMED, *FROM_SCRATCH), 8, True), (("loss.warm_start_epochs=3",), 8, False)],
    ids=["epsilon rule in the first layer, weight 1", "recipe"],
)
def test_flag(
    cli: Cli, tmp_path: Path, recipe: tuple[str, ...], epochs: int, *, gamed: bool
) -> None:
    words = ("+experiment=lrp_guided", *COHORT, *recipe, f"trainer.max_epochs={epochs}")
    result = cli("train", *words, f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    report = (tmp_path / "run" / "report.html").read_text()
    swapped = summary["behaviour"]["swapped"]["patient"]["accuracy"]["value"]
    assert bool(summary["fairwashing_epochs"]) is gamed
    assert ("Possible fairwashing" in result.stdout + result.stderr) is gamed
    assert ("Possible fairwashing" in report) is gamed
    assert summary["verdict"]["headline"].startswith("Possible fairwashing") is gamed
    assert (swapped < 0.6) is gamed
