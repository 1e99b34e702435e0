"""The command line of the comparison: where the page goes and what the exit codes say."""

import sys
from pathlib import Path

import pytest

from glioma_xai import compare


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        compare.main()
    return end.value.code


def test_the_page_goes_into_the_first_folder_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    run_folder = tmp_path / "a"
    (run_folder / ".hydra").mkdir(parents=True)
    (run_folder / ".hydra/config.yaml").write_text("seed: 0\n")
    (run_folder / "summary.json").write_text("{}")
    assert run(monkeypatch, run_folder) == 0
    assert run(monkeypatch, run_folder, "--output", tmp_path / "c") == 0
    pages = [Path(line) for line in capsys.readouterr().out.split()]
    assert pages == [
        run_folder / "comparison/comparison.html",
        tmp_path / "c/comparison.html",
    ]
    assert all(page.is_file() for page in pages)


def test_exit_codes(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "missing") == 1
    assert "RunError:" in capsys.readouterr().err
    assert run(monkeypatch) == 2
