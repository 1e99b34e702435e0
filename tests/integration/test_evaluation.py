"""What a run says beside its main numbers, and what `evaluate` and `explain` add."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_gaps_are_differences_of_the_accuracies(smoke_run: Path) -> None:
    summary = summary_of(smoke_run)
    behaviour = summary["behaviour"]
    trained = behaviour["as_trained"]["patient"]["accuracy"]["value"]
    assert summary["conditions_left_out"] == {}
    for name, gap in summary["gaps"].items():
        if name == "background_class":
            continue
        there = behaviour[name]["patient"]["accuracy"]["value"]
        assert gap["value"] == pytest.approx(trained - there)
        assert gap["low"] <= gap["value"] <= gap["high"]
    assert "words" in summary["drift"]
    assert set(summary["groups"]["sites"]) <= {"SiteA", "SiteB", "SiteC", "SiteD"}
    assert "intersection_over_union" in summary["relevance"]["test"]


def test_every_test_prediction_has_a_reliability_or_there_is_a_reason(smoke_run: Path) -> None:
    reliability = summary_of(smoke_run)["reliability"]
    with (smoke_run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for level in ("slice", "patient"):
        found = [r["reliability"] for r in rows if r["level"] == level and r["split"] == "test"]
        if reliability[level]["reason"]:
            assert set(found) == {""}
        else:
            assert all(0 <= float(value) <= 1 for value in found)
    assert {r["reliability"] for r in rows if r["split"] == "validation"} == {""}


def test_evaluate_learns_from_the_run_s_validation(
    smoke_run: Path, cli: Cli, tmp_path: Path
) -> None:
    result = cli("evaluate", f"run={smoke_run}", f"output={tmp_path}", "faithfulness=true")
    assert result.returncode == 0, result.stderr
    first, again = summary_of(smoke_run), summary_of(tmp_path)
    assert again["drift"] == first["drift"]
    assert set(again["groups"]) >= {"sites", "tumour_size"}
    for key in ("decision", "reliability"):
        assert _close(first[key], again[key]), key
    assert again["relevance"]["test"] == first["relevance"]["test"]
    faithfulness = again["faithfulness"]
    for curves in faithfulness["curves"].values():
        starts = [curve[0] for curve in curves.values()]
        assert starts == pytest.approx([starts[0]] * 3)  # nothing is replaced yet
        ends = [curve[-1] for curve in curves.values()]
        assert ends == pytest.approx([ends[0]] * 3, abs=1e-4)  # everything is
    assert first["faithfulness"] is None
    page = (tmp_path / "report.html").read_text()
    assert "Faithfulness: shuffled weights" in page
    assert f"run=&lt;folder&gt;/{smoke_run.name} split=test faithfulness=true" in page
    assert str(tmp_path.parent) not in page
    assert str(smoke_run.parent.parent) not in page


def test_evaluate_refuses_to_write_over_the_run(smoke_run: Path, cli: Cli) -> None:
    before = (smoke_run / "summary.json").read_bytes()
    result = cli("evaluate", f"run={smoke_run}", "split=validation", f"output={smoke_run}/")
    assert result.returncode == 2
    assert "output: expected another folder than the run's own" in result.stderr
    assert (smoke_run / "summary.json").read_bytes() == before


def test_evaluate_refuses_an_option_that_is_neither_true_nor_false(
    smoke_run: Path, cli: Cli
) -> None:
    result = cli("evaluate", f"run={smoke_run}", "faithfulness=perhaps")
    assert result.returncode == 2
    assert "faithfulness: expected true or false, found perhaps" in result.stderr


def test_maps_of_test_patients_are_stored_small(smoke_run: Path) -> None:
    with np.load(smoke_run / "relevance/test/maps.npz") as archive:
        assert len(archive.files) == summary_of(smoke_run)["samples"]["test"]["patients"]
        for name in archive.files:
            assert archive[name].dtype == np.float16
            assert np.abs(archive[name]).max() == pytest.approx(1, abs=1e-3)


def test_relevance_is_shared_out_over_the_parts_of_the_tumour(
    smoke_run: Path, cli: Cli, tmp_path: Path
) -> None:
    with (smoke_run / "splits.csv").open(newline="") as file:
        patient = next(csv.DictReader(file))["patient"]
    result = cli("explain", f"run={smoke_run}", f"subject={patient}", f"output={tmp_path}")
    assert result.returncode == 0, result.stderr
    shares = json.loads((tmp_path / "explanation.json").read_text())["region_shares"]
    assert set(shares) == {"necrosis", "oedema", "enhancing", "elsewhere"}
    assert sum(shares.values()) == pytest.approx(1)


def _close(first: object, second: object) -> bool:
    """Equal but for the last digits, which predictions.csv does not hold."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_close(first[k], second[k]) for k in first)
    if isinstance(first, float) and isinstance(second, float):
        return bool(np.isclose(first, second, rtol=1e-4, atol=1e-4))
    return first == second
