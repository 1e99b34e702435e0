"""What a user gets wrong: one message with expected, found and fix, the right exit code."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli


@pytest.mark.parametrize(
    ("script", "arguments", "code", "message"),
    [
        ("train", ["data.shortcutt=none"], 2, "Did you mean data.shortcut?"),
        ("train", ["+experiment=lrp_gided"], 2, "Did you mean lrp_guided?"),
        ("train", ["data=brats"], 2, "data.root"),
        ("train", ["data=brats", "data.root=/nowhere/brats"], 1, "/nowhere/brats"),
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
