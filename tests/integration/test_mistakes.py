"""What a user gets wrong: one message with expected, found and fix, the right exit code."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from glioma_xai.config import compose_config
from glioma_xai.errors import ConfigError
from glioma_xai.experiment import instantiate
from tests.conftest import Cli


@pytest.mark.parametrize(
    ("script", "arguments", "code", "message"),
    [
        ("train", ["data.shortcutt=none"], 2, "Did you mean data.shortcut?"),
        ("train", ["+experiment=lrp_gided"], 2, "Did you mean lrp_guided?"),
        ("train", ["data=brats"], 2, "data.root"),
        ("train", ["data=brats", "data.root=/nowhere/brats"], 1, "/nowhere/brats"),
        (
            "train",
            ["data.batch_size=0"],
            2,
            "Error: data.batch_size must be 1 or more, got 0",
        ),
        ("train", ["logger=null"], 2, "logger=null: no such choice. Known: csv, none, wandb."),
        ("train", ["name=${nope}"], 2, "Interpolation key 'nope' not found"),
        ("train", ["seed=-1"], 2, "seed: Input should be greater than or equal to 0, found -1"),
        ("train", ["+experiment=smoke", "optimizer.lr=-1"], 2, "Invalid learning rate: -1"),
        (
            "train",
            ["+experiment=smoke", "callbacks.best.monitor=validation/acc"],
            2,
            "expected a score that training logs",
        ),
        ("train", ["resume=nowhere"], 1, "nowhere: expected a run folder"),
        ("evaluate", [], 2, "run: expected a run folder"),
        ("evaluate", ["run=nowhere"], 1, "nowhere: expected a run folder"),
        ("evaluate", ["run=nowhere", "split=tset"], 2, "split: expected one of train, validation"),
        ("explain", ["run=nowhere"], 2, "subject: expected the id of a subject"),
        ("check", ["data=brats", "data.root=/nowhere/brats"], 1, "/nowhere/brats"),
        ("phantom", ["output=x", "subject=3"], 2, "Did you mean subjects?"),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    script: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"glioma_xai.{script}").main()
    printed = capsys.readouterr()
    assert end.value.code == code
    assert message in printed.err + printed.out
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err + printed.out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+trainer.limit_train_batches=-3", r"trainer: expected settings that .*found: .*-3"),
        ("callbacks.best.monitor=test/auc", "callbacks.best.monitor: expected a metric of the val"),
    ],
)
def test_what_a_constructor_refuses_is_a_mistake_in_the_config(override: str, message: str) -> None:
    config = compose_config("train", [override, "paths.run=run"])
    with pytest.raises(ConfigError, match=message):
        instantiate.build_trainer(
            config,
            callbacks=list(instantiate.build_callbacks(config, run=Path("run")).values()),
            loggers=[],
        )


def test_a_failed_run_says_so_in_its_status(cli: Cli, tmp_path: Path) -> None:
    result = cli("train", "data=brats", "data.root=/nowhere", f"paths.root={tmp_path}")
    assert result.returncode == 1
    (folder,) = (tmp_path / "plain").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert "/nowhere" in status["error"]
    assert not (folder / "summary.json").exists()


def test_check_reads_a_whole_cohort_and_draws_it(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    result = cli("check", "+experiment=smoke", f"page={page}")
    assert result.returncode == 0, result.stderr
    assert "no errors: " in result.stdout
    assert "24 patients" in result.stdout
    assert page.read_text().count("<img") == 24
