"""The page of a run: complete in itself, escaped, readable without eyes or scripts."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from glioma_xai.records import Problem
from glioma_xai.visualization.charts import curves_by_metric, learning_curves, line_chart
from glioma_xai.visualization.contents import (
    Case,
    Estimate,
    LevelResult,
    Picture,
    RunReport,
    ScoreTable,
    Verdict,
)
from glioma_xai.visualization.report import (
    format_estimate,
    format_number,
    format_p_value,
    in_words,
    whisker,
    write_report,
)

EVIL = "<script>alert('1')</script>\"onload=\"x & $\\frac"


def report(name="phantom-0001"):
    level = LevelResult(
        name=f"test, {name}",
        samples=40,
        scores={"auc": Estimate(0.912, 0.88, 0.94, f"delong, {name}"), name: Estimate(np.nan)},
        confusion=np.array([[18, 2], [3, 17]]),
        roc=(np.array([0, 0.1, 1]), np.array([0, 0.9, 1])),
    )
    one = [Picture(f"slice {name}", b"\x89PNG")]
    case = Case(f"{name}, slice 4", f"label {name}", one, f"alternative {name}")
    return RunReport(
        title=f"experiment {name}",
        verdict=Verdict("mixed", f"headline {name}", f"behaviour {name}", f"relevance {name}"),
        classes=["LGG", name],
        settings={f"data.{name}": name, "seed": 3},
        levels=[level],
        history={
            "epoch": [0, 1],
            "train/loss_classification": [0.7, 0.5],
            "train/loss_guidance": [0.9, 0.4],
            f"validation/{name}": [0.5, 0.8],
        },
        selected_epoch=1,
        shortcut={
            "as_trained": {"accuracy": Estimate(1.0, 0.9, 1.0)},
            name: {"accuracy": Estimate(0)},
        },
        shortcut_name=name,
        shortcut_notes=[name],
        relevance={"relevance_mass_accuracy": Estimate(0.9, 0.8, 0.95, name)},
        chance={"relevance_mass_accuracy": 0.05},
        tables=[
            ScoreTable(
                f"By site {name}",
                f"text {name}",
                {name: {"auc": Estimate(0.71, 0.6, 0.8)}, "other": {"accuracy": Estimate(0.65)}},
                name,
                chart=line_chart({name: ([0, 1], [0.2, 0.1])}, name, name),
            )
        ],
        right_cases=[case],
        wrong_cases=[case],
        left_out=[Problem(name, name, name, name)],
        versions={"torch": name},
        reproduce=[f"python -m glioma_xai.train seed={name}"],
        facts={"device": name},
        notes=[name],
    )  # fmt: skip


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.ids, self.links = [], [], set(), set()
        self.attributes = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        found = dict(attrs)
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a":
            self.links.add(found["href"])

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(tmp_path):
    def write(contents):
        write_report(tmp_path / "report.html", contents)
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def test_a_name_cannot_become_markup(page):
    found = page(report(EVIL))
    assert "script" not in found.tags
    assert not any("onload" in names for _, names in found.attributes)
    assert "".join(found.text).count(EVIL) >= 20


def test_the_page_fetches_nothing(page):
    found = page(report())
    assert not {"script", "link", "iframe", "object", "form"} & set(found.tags)
    for tag, names in found.attributes:
        for name in ("src", "href", "xlink:href", "data"):
            value = names.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (tag, value)
    style = "".join(text for text in found.text if "font:" in text)
    assert "url(" not in style.replace("url(#", "")
    assert "@media print" in style


def test_the_page_is_accessible(page):
    found = page(report())
    assert all(names.get("alt") for tag, names in found.attributes if tag == "img")
    assert {link[1:] for link in found.links} <= found.ids
    assert dict(found.attributes[found.tags.index("html")][1])["lang"] == "en"
    assert all("scope" in names for tag, names in found.attributes if tag == "th")
    assert found.tags.count("h1") == 1
    assert all(
        names.get("aria-hidden") == "true" for tag, names in found.attributes if tag == "svg"
    )


def test_numbers_are_on_the_page(page):
    text = " ".join(page(report()).text)
    for number in (
        "0.912 (0.880 to 0.940)",
        "18",
        "0.900 to 1.000",
        "undefined",
        "0.5000",
        "0.600 to 0.800",
    ):
        assert number in text
    assert "epoch 1, whose checkpoint" in text


def test_empty_parts_are_left_out(page):
    whole = report()
    bare = RunReport("t", whole.verdict, whole.classes, whole.settings, levels=())
    found = page(bare)
    assert "img" not in found.tags
    assert {"numbers", "settings"} <= found.ids
    assert not {"shortcut", "relevance", "cases", "training", "left-out", "reproduce"} & found.ids
    several = dataclasses.replace(whole, levels=[dataclasses.replace(whole.levels[0], roc=None)])
    assert "ROC curves" not in " ".join(page(several).text)


def test_the_same_report_is_the_same_file(tmp_path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, report())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_curves_put_losses_first_and_skip_what_is_unknown():
    history = {
        "epoch": [0, 1, 2],
        "validation/auc": [0.5, float("nan"), 0.8],
        "train/loss_guidance": [3, 2, 1],
        "validation/auc_undefined": [0, 0, 0],
        "test/auc": [float("nan")] * 3,
    }
    found = curves_by_metric(history)
    assert list(found) == ["loss_guidance", "auc"]
    assert list(found["auc"]) == ["validation"]
    assert found["auc"]["validation"][0].tolist() == [0, 2]
    assert learning_curves({"epoch": []}) == ""


def test_formats():
    assert format_number(float("nan")) == "undefined"
    assert format_number(12) == "12"
    assert format_number(None) == "–"
    assert [format_p_value(p) for p in (0.0004, 0.0412)] == ["< 0.001", "0.041"]
    assert in_words("patient_auc") == "patient AUC"
    assert format_estimate(Estimate(0.5)) == "0.500"
    assert format_estimate(Estimate(0.5, 0.25, 0.75), 2) == "0.50 (0.25 to 0.75)"
    assert whisker(Estimate(float("nan"))) == whisker(Estimate(3.0)) == ""
    assert re.search(r'cx="75\.0"', whisker(Estimate(0.5, 0.25, 0.75), 0.1))
