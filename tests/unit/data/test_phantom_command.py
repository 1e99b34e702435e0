import os
import signal
import sys
from dataclasses import asdict

import pytest

from glioma_xai import phantom
from glioma_xai.config import compose_config
from glioma_xai.data.cohort import PhantomSettings, read_rows
from glioma_xai.errors import ConfigError


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["glioma-xai-phantom", *arguments])
    with pytest.raises(SystemExit) as stop:
        phantom.main()
    return stop.value.code


def test_the_command_writes_a_cohort(monkeypatch, tmp_path, capsys):
    output = tmp_path / "cohort"
    arguments = [f"output={output}", "subjects=2", "slices=2", "shortcut=texture", "progress=false"]
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert len(read_rows(output)) == 2
    assert (output / "variants" / "swapped").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=x", "subjets=3"], "Did you mean subjects?"),
        (["output=x", "shortcut=corner"], "shortcut must be one of none, corner_marker"),
        (["output=x", "subjects=few"], "subjects must be a whole number in [2, 9999], got 'few'"),
        (["subjects=3"], "Add output=<dir>"),
        (["output=x", "subjects=[3"], "ConfigError"),
        (["output=x", "+subjets=3"], "Did you mean subjects?"),
    ],
)
def test_a_bad_command_line_exits_with_2(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_exits_with_1(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, f"output={tmp_path}/file/cohort", "subjects=2") == 1
    assert "Choose another output" in capsys.readouterr().err


def test_foreign_content_exits_with_1(monkeypatch, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(monkeypatch, f"output={tmp_path}", "subjects=2") == 1
    assert "must be new, empty or this phantom cohort" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_the_command_with_their_code(monkeypatch, number, code):
    monkeypatch.setattr(phantom, "write_cohort", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert run(monkeypatch, "output=x") == code
    assert signal.getsignal(number) == before


def test_a_run_knows_every_setting_of_the_phantom():
    config = compose_config("train", ["data.phantom.difficulty=0.4", "data.phantom.seed=7"])
    assert (config.data.phantom.difficulty, config.data.phantom.seed) == (0.4, 7)
    defaults = asdict(PhantomSettings(subjects=300))
    del defaults["shortcut"]  # is data.shortcut
    assert compose_config("train", []).data.phantom == defaults
    with pytest.raises(ConfigError, match=r"phantom\.dificulty: .*Did you mean .*difficulty\?"):
        compose_config("train", ["data.phantom.dificulty=0.4"])
