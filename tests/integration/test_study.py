"""The guidance study: recipes as configs of a sweep, which goes on where it stopped."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from benchmarks import guidance_study, guidance_tables
from benchmarks.guidance_recipes import BLOCKS, runs_of
from benchmarks.guidance_runs import Recipe
from glioma_xai.config import check_config, compose_config

TINY = (
    "data.phantom.subjects=20",
    "data.slice_count=1",
    "data.batch_size=16",
    "trainer.max_epochs=1",
    "bootstrap=20",
)
WARM_START = ("loss.warm_start_epochs=0", "loss.warm_start_limit=0")


@pytest.mark.parametrize("block", ["texture", "few_masks_others", "factors", "resnet", "kinds"])
def test_a_run_as_a_config_is_the_run_of_its_command_line(block: str, tmp_path: Path) -> None:
    run = list(runs_of([block]))[1]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / f"{run.name}.yaml").write_text(run.config)
    config = compose_config("train", [f"+study={run.name}"], config_dirs=[str(tmp_path)])
    by_words = compose_config("train", run.overrides)
    by_words.name = config.name
    assert OmegaConf.to_container(config) == OmegaConf.to_container(by_words)
    config.paths.run = "runs/run"
    check_config(config)


def test_no_two_runs_have_the_same_name() -> None:
    names = [run.name for run in runs_of(BLOCKS)]
    assert len(set(names)) == len(names)


def test_a_study_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guided = ("+experiment=lrp_guided", "attribution=zplus", *WARM_START)
    recipes = (Recipe("plain", ("+experiment=baseline",), (201,)), Recipe("z+", guided, (201,)))
    monkeypatch.setitem(BLOCKS, "tiny", (TINY, recipes))
    for module in (guidance_study, guidance_tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "study.csv")
    monkeypatch.setattr(guidance_study, "EPOCHS", tmp_path / "epochs.csv")

    def study(*more: str) -> int:
        words = ["--blocks", "tiny", "--root", str(tmp_path / "runs"), *more]
        monkeypatch.setattr(sys, "argv", ["guidance_study", *words])
        return guidance_study.main()

    assert study("--price") == 0
    assert capsys.readouterr().out == "2 runs to do, 0 done; 3 minutes of a core\n"
    assert study() == 0
    rows = pd.read_csv(tmp_path / "study.csv")
    assert rows["recipe"].tolist() == ["plain", "z+"]
    assert rows[["as_trained", "swapped", "inside"]].notna().all(axis=None)
    assert "attribution=zplus" in rows["command"][1]

    status = tmp_path / "runs" / "sweep_000" / "1" / "status.json"  # as if it had been stopped
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "interrupted"}))
    rows[:1].to_csv(tmp_path / "study.csv", index=False)
    assert study() == 0
    assert pd.read_csv(tmp_path / "study.csv")["recipe"].tolist() == ["plain", "z+"]
    assert [path.name for path in (tmp_path / "runs").glob("sweep_*")] == ["sweep_000"]
    assert json.loads(status.read_text())["state"] == "finished"
    assert study() == 0  # nothing is left
    assert "0 runs to do, 2 done" in capsys.readouterr().out
