"""The tables of docs/guidance.md are those of the rows that are committed."""

from benchmarks.guidance_recipes import BLOCKS
from benchmarks.guidance_tables import PAGE, filled, table_of


def test_the_page_shows_the_rows() -> None:
    page = PAGE.read_text()
    assert page.count("<!-- study: ") >= 10
    assert filled(page) == page


def test_a_table_has_a_line_for_each_recipe_that_was_run() -> None:
    lines = table_of(["confirm", "gamed"]).splitlines()
    assert len(lines) == 2 + len(BLOCKS["confirm"][1]) + len(BLOCKS["gamed"][1])
    assert lines[2].startswith("| clean | none | 5 |")
