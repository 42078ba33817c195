"""Wide tables scroll in a box of their own, and say so where they are cut."""

import re

import pytest

from instruct.report.blocks import Cell, Document, Matrix, Row, Section, Table
from instruct.report.page import render
from instruct.report.scroll_box import CUE, scroll_box
from tests.report import browser


def test_the_cue_stands_where_the_text_is_too_wide():
    narrow = scroll_box("<table>", [("Task", "Score"), ("gym.sums", "41.2")])
    assert CUE not in narrow and narrow.endswith('<div class="scroll" tabindex="0"><table></div>')
    phone = scroll_box("<table>", [["a column of text"] * 5])
    assert f'<p class="cue" aria-hidden="true">{CUE}</p>' in phone
    assert '<p class="cue wide"' in scroll_box("<table>", [["a column of text"] * 12])
    # Text that is broken into lines takes no more room than a line.
    assert CUE not in scroll_box("<table>", [("name", "long " * 40)], {1})


def wide_page():
    cells = tuple("12.3 ± 4.5" for _ in range(9))
    columns = ("Task", *(f"Column {number}" for number in range(9)))
    matrix = Matrix("Task", columns[1:], (("t", tuple(map(Cell, cells))),), "")
    small = Table(("Task", "n"), (Row(("a", "1")),))
    wide = Table(columns, (Row(("a.task", *cells), strong=True), Row(("b", *cells))))
    return render(Document("Wide", "", (Section("one", "One", (small, wide, matrix)),)))


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_cue_on_a_phone_alone(tmp_path, dark):
    (page,), console, _ = browser.look(tmp_path, [wide_page()], 390, dark)
    assert page["width"] == 390 and not console
    assert page["tables"] == [{"wide": False, "cue": False}, *[{"wide": True, "cue": True}] * 2]
    (tmp_path / "wide").mkdir()
    (page,), _, _ = browser.look(tmp_path / "wide", [wide_page()], 1200, dark)
    assert not any(table["wide"] or table["cue"] for table in page["tables"])


def test_the_style_draws_the_edges():
    style = re.search(r"\.scroll\{[^}]*\}", wide_page())
    assert style and style[0].count("local") == 2 and style[0].count("var(--edge)") == 2
