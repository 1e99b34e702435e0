"""The tables of README and docs/guidance.md are those of the rows that are committed."""

from pathlib import Path

import pytest

from benchmarks.guidance_recipes import BLOCKS
from benchmarks.guidance_tables import PAGES, filled, table_of


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_shows_the_rows(path: Path) -> None:
    page = path.read_text()
    marks = page.count("<!-- study: ") + page.count("<!-- summary: ")
    assert marks >= (10 if path.name == "guidance.md" else 1)
    assert filled(page) == page


def test_a_table_has_a_line_for_each_recipe_that_was_run() -> None:
    lines = table_of(["confirm", "gamed"]).splitlines()
    assert len(lines) == 2 + len(BLOCKS["confirm"][1]) + len(BLOCKS["gamed"][1])
    assert lines[2].startswith("| clean | none | 5 |")
