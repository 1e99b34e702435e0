"""The pages in a real browser: nothing is fetched, keys work, narrow windows and paper too."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from glioma_xai.metrics.functional.delong import delong_test
from glioma_xai.visualization.comparison import compare_runs
from glioma_xai.visualization.contents import (
    Case,
    Estimate,
    LevelResult,
    Picture,
    RunReport,
    Verdict,
)
from glioma_xai.visualization.overlays import overlay_figure, to_png
from glioma_xai.visualization.report import write_report
from tests.reference.browser import CHROMIUM, Browser
from tests.unit.visualization.test_comparison import write_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
TAB, RIGHT = ("Tab", 9), ("ArrowRight", 39)
SHOWN = """[...document.querySelectorAll('.stack')].map(
    stack => [...stack.children].filter(i => i.offsetHeight).map(i => i.alt.split(':')[0]))"""
CONTROLS = "nav, .skip, .slices input, .slices label"
WRONG = ("Log.entryAdded", "Runtime.exceptionThrown")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("tornado")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def drawn(level):
    generator = torch.Generator().manual_seed(level)
    lesion_mask = torch.zeros(1, 24, 20)
    lesion_mask[0, 8 : 10 + level, 6:12] = 1
    relevance = torch.randn(2, 24, 20, generator=generator)
    return to_png(
        overlay_figure(
            torch.rand(2, 24, 20, generator=generator),
            relevance,
            lesion_mask,
            modalities=("t1", "flair"),
            title=f"subject, slice {level}",
            limit=2.0,
        )
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    volume = [Picture(f"slice {level}", drawn(level), main=level == 3) for level in (1, 2, 3, 4, 5)]
    cases = [Case(f"subject {k}", "HGG", volume, "relevance on a slice") for k in (1, 2)]
    level = LevelResult(
        name="test, by patient",
        samples=40,
        scores={name: Estimate(0.9, 0.8, 0.95, "delong") for name in ("auc", "specificity")},
        confusion=np.array([[18, 2], [3, 17]]),
        roc=(np.array([0, 0.1, 1]), np.array([0, 0.9, 1])),
    )
    conditions = ("as trained", "with the shortcut removed", "on a background of another class")
    row = {name: Estimate(0.9, 0.8, 0.95) for name in ("accuracy, by patient", "auc, by patient")}
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        RunReport(
            title="guided",
            verdict=Verdict("good", "It decides by the tumour.", "0.9 everywhere", "0.8 inside"),
            classes=["LGG", "HGG"],
            settings={f"data.key_{k}.with.a.rather.long.name": "value" * k for k in range(12)},
            levels=[level],
            history={"epoch": [0, 1], "train/loss": [0.7, 0.5], "validation/auc": [0.5, 0.9]},
            shortcut=dict.fromkeys(conditions, row),
            right_cases=cases,
            reproduce=["python -m glioma_xai.evaluate run=<folder>"],
        ),
    )
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for weight in (0.0, 1.0, 3.0):
        for seed in (0, 1):
            folder = write_run(root / f"{weight}{seed}", weight=weight, seed=seed)
            (folder / "relevance/test/p0_4.png").write_bytes(drawn(seed))
    return compare_runs([root], root / "out")


@pytest.fixture(params=["report", "comparison"])
def page(request):
    return request.getfixturevalue(request.param)


def test_nothing_is_fetched_and_nothing_goes_wrong(browser, page):
    browser.open(page)
    asked = {
        event["params"]["request"]["url"].partition(":")[0]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert not [e for e in browser.events if e["method"] in WRONG]
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.value("getComputedStyle(document.body).maxWidth") != "none"  # styles apply


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_fits_its_window(browser, page, width):
    browser.open(page, width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    with Image.open(BytesIO(browser.picture())) as picture:
        assert picture.size[0] == width
        assert len(picture.convert("L").getcolors()) > 20  # not blank


def test_the_first_tab_leads_past_the_navigation(browser, page):
    browser.open(page)
    browser.press(*TAB)
    assert browser.value("document.activeElement.className") == "skip"
    assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press(*TAB)
    assert browser.value("document.activeElement.closest('nav') !== null")
    outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_arrow_keys_leaf_through_the_slices_of_one_case(browser, report):
    browser.open(report)
    assert browser.value(SHOWN) == [["slice 3"], ["slice 3"]]
    browser.value("document.querySelector('.slices input:checked').focus()")
    for expected in ("slice 4", "slice 5", "slice 1"):
        browser.press(*RIGHT)
        assert browser.value(SHOWN) == [[expected], ["slice 3"]]


def test_paper_shows_one_slice_a_case_and_no_controls(browser, report):
    browser.open(report)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value(SHOWN) == [["slice 3"], ["slice 3"]]
        hidden = f"[...document.querySelectorAll('{CONTROLS}')].every(e => !e.offsetHeight)"
        assert browser.value(hidden)
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_paper_shows_what_is_folded(browser, tmp_path):
    for weight in range(6):
        write_run(tmp_path / str(weight), weight=float(weight))
    browser.open(compare_runs([tmp_path], tmp_path / "out", area_test=delong_test))
    shown = "document.querySelector('details tbody tr').offsetHeight"
    assert browser.value("document.querySelector('details').open") is False  # 15 pairs
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value(shown) > 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_it_can_be_printed(browser, page):
    browser.open(page)
    content = browser.pdf()
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000
