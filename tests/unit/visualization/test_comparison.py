"""Many runs on one page: grouping, pooling, tests and the folders they are read from."""

import csv
import json
import math

import numpy as np
import pytest
import yaml
from scipy import stats

from glioma_xai.errors import RunError
from glioma_xai.metrics.functional.delong import delong_test
from glioma_xai.visualization.comparison import compare_runs, shown_names
from glioma_xai.visualization.contents import Estimate
from glioma_xai.visualization.pooling import group_by_setting, pareto_front, pool
from glioma_xai.visualization.runs import Run, estimates, find_runs
from glioma_xai.visualization.significance import compare_settings, holm

AREA = "metrics/test/patient/auc"
PICTURE = b"\x89PNG not really"


def interval(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "method": "delong"}


def write_run(folder, *, weight=0.0, seed=0, auc=0.9, swapped=0.5, state="finished", name="x"):
    (folder / ".hydra").mkdir(parents=True)
    config = {"seed": seed, "name": name, "loss": {"guidance_weight": weight}, "paths": {"a": seed}}
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps({"state": state, "error": "out of memory"}))
    if state != "finished":
        return folder
    summary = {
        "seed": seed,
        "wall_seconds": 120.0 + seed,
        "metrics": {"test": {"patient": {"auc": interval(auc), "accuracy": interval(0.8)}}},
        "relevance": {
            "test": {"relevance_mass_accuracy": interval(weight / 4 + seed * weight / 90)}
        },
        "behaviour": {
            "as_trained": {"patient": {"accuracy": interval(0.9)}},
            "removed": {"patient": {"accuracy": interval(0.85)}},
            "swapped": {"patient": {"accuracy": interval(swapped)}},
        },
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    columns = "epoch,train/loss_guidance,validation/accuracy\n"
    (folder / "metrics.csv").write_text(f"{columns}0,0.9,0.5\n1,0.4,0.{seed + 7}\n2,,0.8\n")
    rows = "level,split,patient,label,probability_LGG,probability_HGG\n"
    for patient in range(12):
        score = ((patient * 5 + seed + int(weight)) % 12) / 12
        rows += f"patient,test,p{patient},{patient % 2},{1 - score},{score}\n"
    (folder / "predictions.csv").write_text(rows + "slice,test,p0,0,0.5,0.5\n")
    (folder / "relevance/test").mkdir(parents=True)
    (folder / "relevance/test/p0_4.png").write_bytes(PICTURE)
    return folder


@pytest.fixture
def sweep(tmp_path):
    for weight in (0.0, 3.0):
        for seed in (0, 1, 2):
            swapped, auc = (
                0.1 + 0.25 * weight + seed * weight / 200,
                0.9 + weight / 100 - seed ** (1 + weight) / 500,
            )
            folder = tmp_path / "sweep" / f"{int(weight)}{seed}"
            write_run(folder, weight=weight, seed=seed, swapped=swapped, auc=auc)
    return tmp_path / "sweep"


def runs_of(values, seeds=None):
    seeds = seeds or range(len(values))
    return [
        Run(None, seed, {}, {AREA: Estimate(value, value - 0.1, value + 0.1)})
        for seed, value in zip(seeds, values, strict=True)
    ]


def setting(letter, values, seeds=None):
    (found,) = group_by_setting(runs_of(values, seeds))
    return type(found)(letter, letter, found.runs)


def test_runs_that_differ_in_seed_and_place_are_one_setting(sweep):
    runs, others = find_runs([sweep, sweep / "00"])
    assert (len(runs), others) == (6, {})
    settings = group_by_setting(runs)
    assert [(s.letter, s.label, len(s.runs)) for s in settings] == [
        ("A", "loss.guidance_weight=0.0", 3),
        ("B", "loss.guidance_weight=3.0", 3),
    ]
    assert runs[0].scores["behaviour/largest_drop"].value == pytest.approx(0.8)
    assert math.isnan(runs[0].history["train/loss_guidance"][2])


def test_the_same_command_twice_is_one_run(sweep):
    again = write_run(sweep / "9", weight=0.0, seed=1, auc=0.9)
    runs, others = find_runs([sweep])
    assert others == {sweep / "01": "the same settings, seed and patients as 9"}
    assert len(runs) == 6
    assert runs[-1].folder == again
    assert [len(s.runs) for s in group_by_setting(runs)] == [3, 3]


def test_evaluations_inside_a_run_are_not_runs(tmp_path):
    inner = write_run(tmp_path / "a") / "evaluations/1"
    inner.mkdir(parents=True)
    (inner / "summary.json").write_text("{}")
    runs, others = find_runs([tmp_path])
    assert (len(runs), others) == (1, {})


def test_pooling_is_the_t_interval_over_seeds():
    values = [0.8, 0.9, 0.85]
    found = pool(setting("A", values), AREA)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert pool(setting("A", [0.99, 0.9]), AREA).high == 1.0
    assert pool(setting("A", [0.8]), AREA) == Estimate(0.8, pytest.approx(0.7), pytest.approx(0.9))
    assert math.isnan(pool(setting("A", [0.8]), "no/such/score").value)


def test_settings_are_tested_over_seeds():
    a, b, c = [0.80, 0.84, 0.79], [0.90, 0.92, 0.91], [0.85, 0.86]
    settings = [setting("A", a), setting("B", b), setting("C", c, [7, 8])]
    first, second, third = compare_settings(settings, AREA)
    raw = [
        stats.ttest_rel(a, b).pvalue,
        stats.ttest_ind(a, c, equal_var=False).pvalue,
        stats.ttest_ind(b, c, equal_var=False).pvalue,
    ]
    assert [d.p_value for d in (first, second, third)] == pytest.approx(holm(raw))
    assert first.test == "paired t test over 3 seeds"
    assert second.test == "Welch's t test, 3 and 2 seeds"
    assert first.estimate.value == pytest.approx(np.mean(a) - np.mean(b))
    assert first.estimate.low < first.estimate.value < first.estimate.high
    (same,) = compare_settings([settings[0], setting("D", a)], AREA)
    assert (same.estimate.value, same.p_value) == (0.0, 1.0)


def test_single_runs_are_tested_on_their_patients(tmp_path):
    write_run(tmp_path / "a", weight=0.0)
    write_run(tmp_path / "b", weight=3.0)
    settings = group_by_setting(find_runs([tmp_path])[0])
    assert compare_settings(settings, AREA) == []
    (found,) = compare_settings(settings, AREA, area_test=delong_test)
    a, b = (s.runs[0].patient_probabilities() for s in settings)
    direct = delong_test([v for _, v in a.values()], [v for _, v in b.values()], [0, 1] * 6)
    assert found.p_value == pytest.approx(direct.p_value)
    assert "12 patients" in found.test


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    found = holm([math.nan, 0.02])
    assert math.isnan(found[0])
    assert found[1] == 0.02


def test_pareto_front_by_hand():
    points = {"A": (1, 1), "B": (2, 0), "C": (1, 0), "D": (math.nan, 9), "E": (1, 1)}
    assert pareto_front(points) == {"A", "B", "E"}


def test_summary_numbers_by_path():
    found = estimates(
        {"a": {"b": {"value": 1, "low": None, "high": 2}}, "c": 3, "d": "x", "e": True}
    )
    assert set(found) == {"a/b", "c"}
    assert math.isnan(found["a/b"].low)


def test_the_page(sweep, tmp_path):
    write_run(sweep / "failed", state="failed", name="<script>x</script>")
    page = compare_runs([sweep], tmp_path / "out", area_test=delong_test)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    for words in (
        "Comparison of 2 settings, 6 runs",
        "loss.guidance_weight=3.0",
        "paired t test over 3 seeds",
        "AUC by patient: 1 pair, ",
        "accuracy with the shortcut swapped",
        "out of memory",
        "p0_4",
    ):
        assert words in text
    assert text.count("data:image/png;base64,") == 2
    assert "paths.a" not in text
    with (tmp_path / "out/comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["in Pareto front"] for row in table] == ["no", "yes"]
    assert float(table[0]["wall time, s"]) == pytest.approx(121.0)
    assert table[0]["wall time, s low"] == "nan"
    assert "121.0" in text
    assert float(table[1]["AUC by patient"]) == pytest.approx(0.93 - 17 / 1500)


def test_a_single_run_and_names_with_markup(tmp_path):
    write_run(tmp_path / "a", name="<b>bold</b>", weight=1.0)
    write_run(tmp_path / "b", name="plain", weight=1.0)
    text = compare_runs([tmp_path], tmp_path / "out").read_text(encoding="utf-8")
    assert "<b>bold" not in text
    assert "<code>&lt;b&gt;bold&lt;/b&gt;</code>" in text
    alone = compare_runs([tmp_path / "a"], tmp_path / "out").read_text(encoding="utf-8")
    assert "Nothing but the seed" in alone


def test_settings_are_called_by_what_tells_them_apart(tmp_path):
    for folder, name, weight in (("a", "plain", 0.0), ("b", "guided", 1.0), ("c", "guided", 3.0)):
        write_run(tmp_path / folder, name=name, weight=weight)
    labels = [found.label for found in group_by_setting(find_runs([tmp_path])[0])]
    assert labels == [
        "plain",
        "guided loss.guidance_weight=1.0",
        "guided loss.guidance_weight=3.0",
    ]


def test_runs_are_named_from_their_common_folder_on_and_lead_to_their_pages(tmp_path, monkeypatch):
    write_run(tmp_path / "home/runs/x/one")
    write_run(tmp_path / "home/runs/y/two words", weight=1.0)
    write_run(tmp_path / "home/runs/y/broken", state="failed")
    (tmp_path / "home/runs/y/two words/report.html").write_text("page")
    monkeypatch.chdir(tmp_path / "home")
    page = compare_runs([tmp_path / "home/runs"], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    for shown in ("<code>x/one</code>", "<code>y/two words</code>", "<code>y/broken</code>"):
        assert shown in text
    assert 'href="../home/runs/y/two%20words/report.html"' in text
    assert str(tmp_path) not in text
    (alone,) = shown_names([tmp_path / "home/runs/x/one"]).values()
    assert alone == "x/one"


def test_folds_are_pooled_and_paired_with_the_same_folds(tmp_path):
    values = {0.0: (0.80, 0.70, 0.75), 3.0: (0.84, 0.78, 0.77)}
    for weight, areas in values.items():
        for fold, auc in enumerate(areas):
            folder = write_run(tmp_path / f"{weight}{fold}", weight=weight, auc=auc)
            path = folder / ".hydra/config.yaml"
            config = yaml.safe_load(path.read_text())
            config["data"] = {"folds": 3, "fold": fold, "split_seed": None}
            path.write_text(yaml.safe_dump(config))
    settings = group_by_setting(find_runs([tmp_path])[0])
    assert [len(found.runs) for found in settings] == [3, 3]
    assert pool(settings[0], AREA).value == pytest.approx(0.75)
    (found,) = compare_settings(settings, AREA)
    assert found.test == "paired t test over 3 runs"
    assert found.p_value == pytest.approx(stats.ttest_rel(*values.values()).pvalue)
    text = compare_runs([tmp_path], tmp_path / "out").read_text(encoding="utf-8")
    assert "Folds share training patients" in text
    assert "<td>fold 2</td>" in text


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(RunError, match=r"missing: expected a run folder or a sweep folder"):
        find_runs([tmp_path / "missing"])
    write_run(tmp_path / "a", state="running")
    with pytest.raises(RunError, match=r"found none: .*running: out of memory. Let a run finish"):
        find_runs([tmp_path])
    write_run(tmp_path / "b")
    (tmp_path / "b/summary.json").write_text("{")
    write_run(tmp_path / "c")
    (tmp_path / "c/.hydra/config.yaml").unlink()
    write_run(tmp_path / "d")
    runs, others = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["d"]
    assert [folder.name for folder in others] == ["a", "b", "c"]
    assert [reason.split(" (")[0] for reason in others.values()] == [
        "running: out of memory",
        "cannot be read",
        "config.yaml is missing",
    ]


def rank_correlation(first, second):
    return np.array(
        [
            stats.spearmanr(a.ravel(), b.ravel()).statistic
            for a, b in zip(first, second, strict=True)
        ]
    )


def test_seeds_are_compared_on_the_test_cases_that_they_share(sweep, tmp_path):
    """Two of three runs share one case, on which they are opposite; the third shares both."""
    ramp = np.arange(6, dtype=np.float16).reshape(2, 3)
    stored = [{"a_0": ramp}, {"a_0": -ramp, "b_1": ramp}, {"a_0": ramp, "b_1": ramp, "c_2": ramp}]
    for seed, maps in enumerate(stored):
        np.savez_compressed(sweep / f"3{seed}" / "relevance/test/maps.npz", **maps)
    page = compare_runs([sweep], tmp_path, similarity=rank_correlation).read_text()
    assert "Agreement between seeds" in page
    assert "0.000 (-1.000 to 1.000)" in page  # pairs: -1; 1; the mean of -1 and 1
    assert "3 pairs of runs, 4 pairs of maps" in page
    assert "Agreement" not in compare_runs([sweep], tmp_path).read_text()
    (sweep / "31/relevance/test/maps.npz").write_bytes(b"PK broken")
    with pytest.raises(RunError, match="expected an archive of relevance maps"):
        compare_runs([sweep], tmp_path, similarity=rank_correlation)
