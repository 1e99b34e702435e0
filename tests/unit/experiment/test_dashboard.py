"""The W&B workspace, tested by its definition: nothing is sent."""

import json
import sys

import pytest

from glioma_xai import dashboard
from glioma_xai.experiment.dashboards import build_workspace, definition
from glioma_xai.experiment.tracking import headline_numbers

pytest.importorskip("wandb_workspaces")


def sections():
    content = json.loads(definition("project", "team"))
    bank = content["spec"]["section"]["panelBankConfig"]
    return content, {section["name"]: section["panels"] for section in bank["sections"]}


def of_type(found, kind):
    return [p for panels in found.values() for p in panels if p["viewType"] == kind]


def test_behaviour_comes_first_and_has_all_conditions():
    content, found = sections()
    assert (content["project"], content["entity"]) == ("project", "team")
    words = [name.split(":")[0] for name in found]
    assert words == ["Behaviour", "Relevance", "Losses", "Pictures"]
    bars = of_type(found, "Bar Chart")
    assert [bar["config"]["metrics"] for bar in bars] == [
        ["behaviour/as_trained"],
        ["behaviour/exchanged_any"],
        ["behaviour/removed"],
        ["behaviour/swapped"],
    ]
    assert all((b["config"]["xAxisMin"], b["config"]["xAxisMax"]) == (0, 1) for b in bars)


def test_lines_share_the_epoch_as_their_axis():
    _, found = sections()
    lines = [
        p for panels in found.values() for p in panels if p["viewType"] == "Run History Line Plot"
    ]
    assert len(lines) == 11
    assert {line["config"]["xAxis"] for line in lines} == {"epoch"}
    drawn = {name for line in lines for name in line["config"]["metrics"]}
    assert {"train/loss_classification", "train/loss_guidance", "validation/accuracy"} <= drawn


def test_runs_are_grouped_and_the_table_shows_the_headline():
    content, _ = sections()
    (runs,) = content["spec"]["section"]["runSets"]
    assert [key["name"] for key in runs["grouping"]] == ["group"]
    pinned = set(runs["runFeed"]["columnPinned"])
    assert {"summary:behaviour/largest_drop", "summary:test/auc", "summary:judgement"} <= pinned


def test_pictures_and_predictions_are_where_a_run_puts_them():
    _, found = sections()
    media = [
        p["config"]["mediaKeys"] for p in found["Pictures"] if p["viewType"] == "Media Browser"
    ]
    assert media == [["panels/validation"], ["layers/validation"], ["panels/test"]]
    assert "predictions/patient" in json.dumps(found["Pictures"][-1])


def test_what_it_shows_is_what_runs_log():
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    patient = {"patient": {"accuracy": interval}}
    conditions = ("as_trained", "exchanged_any", "exchanged_other_class", "removed", "swapped")
    logged = headline_numbers(
        {
            "metrics": {"test": {"patient": {"auc": interval}}},
            "relevance": {"test": {"absolute_relevance_mass": interval}},
            "behaviour": dict.fromkeys(conditions, patient),
            "guided_plain_step_ratio": 2.0,
            "verdict": {"headline": "words", "judgement": "good"},
        }
    )
    content, found = sections()
    pinned = content["spec"]["section"]["runSets"][0]["runFeed"]["columnPinned"]
    names = {c.removeprefix("summary:") for c in pinned if c.startswith("summary:")}
    bars = of_type(found, "Bar Chart")
    names |= {name for bar in bars for name in bar["config"]["metrics"]}
    (scatter,) = (p for panels in found.values() for p in panels if p["viewType"] == "Scatter Plot")
    names |= {scatter["config"][axis].removeprefix("summary:") for axis in ("xAxis", "yAxis")}
    assert names <= set(logged)


def test_the_definition_is_the_same_every_time_and_the_library_reads_it_back():
    assert definition("project", "") == definition("project", "")
    workspace = build_workspace("project", "team")
    again = type(workspace)._from_model(workspace._to_model())
    for mine, theirs in zip(workspace.sections, again.sections, strict=True):
        assert mine.name == theirs.name
        for first, second in zip(mine.panels, theirs.panels, strict=True):
            assert first._to_model().view_type == second._to_model().view_type
            if type(first).__name__ != "WeavePanelSummaryTable":  # comes back as a general one
                assert first._to_model() == second._to_model()


def test_the_command_needs_no_network(monkeypatch, capsys):
    monkeypatch.setattr("socket.socket.connect", None)  # any connection would raise
    monkeypatch.setattr(sys, "argv", ["dashboard", "project", "--json"])
    with pytest.raises(SystemExit) as end:
        dashboard.main()
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["entity"] == ""


def test_exit_codes(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dashboard", *arguments])
        with pytest.raises(SystemExit) as end:
            dashboard.main()
        return end.value.code, capsys.readouterr().err

    assert run()[0] == 2
    monkeypatch.setattr("glioma_xai.experiment.dashboards.build_workspace", lambda *_: 1 / 0)
    code, words = run("project", "--entity", "team")
    assert code == 1
    assert "wandb login" in words
    assert "Traceback" not in words
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    code, words = run("project", "--json")
    assert code == 1
    assert "glioma-xai[dashboard]" in words
