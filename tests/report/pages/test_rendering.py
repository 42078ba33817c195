"""Documents as HTML and Markdown: every block, escaped; wide tables that scroll; the style."""

import math
import re
import typing
from collections.abc import Mapping, Sequence

import pytest

from instruct.report import blocks, charts, read
from instruct.report.pages import rendering, run_page
from instruct.report.pages.compare_faithfulness import marked
from tests.report import browser
from tests.report.made_up_run import HOSTILE, write_run

STYLE = (rendering.TEMPLATES / "style.css").read_text()
CUE = "scroll sideways for all columns →"


def html_of(*content) -> str:
    """The page's part for these blocks."""
    section = blocks.Section("s", "Title", content)
    text = rendering.to_html(blocks.Document("doc", "", (section,)))
    return text.partition("<main>")[2].partition("</main>")[0]


def render(*content) -> str:
    section = blocks.Section("s", "Title", content)
    return rendering.to_markdown(blocks.Document("doc", "", (section,)))


def test_a_table_is_one_row_a_line():
    row = blocks.Row(("a|b\nc", "1"))
    text = render(blocks.Table(("Name", "n"), (row,)))
    assert "| Name | n |\n| --- | ---: |\n| a\\|b c | 1 |" in text


def test_curves_become_a_few_steps():
    long = blocks.Series("train", tuple((i, float(i)) for i in range(101)))
    short = blocks.Series("eval", ((50, 0.5), (100, math.nan)))
    text = render(blocks.Charts((blocks.Chart("Loss", (long, short)),)))
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(lines) == charts.CURVE_ROWS
    assert lines[0] == "| 0 | 0 | – |" and lines[5] == "| 56 | 56 | 0.5 |"
    assert lines[-1] == "| 100 | 100 | – |"


def test_code_with_fences_stays_inside():
    text = render(blocks.Code("file", "a\n```\nb"))
    assert "````text\na\n```\nb\n````" in text


def test_a_whole_report(tmp_path):
    write_run(tmp_path, steps=200, num_tasks=6, with_nan=True)
    document = run_page.document([read.read_run(tmp_path, "run")])
    text = rendering.to_markdown(document)
    for section in document.sections:
        assert f"\n## {section.title}\n" in text
    assert text.count("<details>") == text.count("</details>")
    assert "\n**right** · gym.task" in text and "\n**wrong** · gym.task" in text
    assert "| arithmetic | " in text


def test_every_block_has_a_macro_in_both_templates():
    for ending in ("html", "md"):
        text = (rendering.TEMPLATES / f"blocks.{ending}").read_text()
        macros = set(re.findall(r"macro ([A-Z]\w+)\(", text))
        assert macros == {kind.__name__ for kind in blocks.Block.__args__}


def hostile(kind):
    """A value of a type in whose parts every text is `HOSTILE`."""
    args = typing.get_args(kind)
    if kind is str:
        return HOSTILE
    if kind == Mapping[str, typing.Any]:  # an example line
        texts = dict.fromkeys(("task", "mode", "prompt", "target", "prediction"), HOSTILE)
        return texts | {"correct": True, "scores": {HOSTILE: 1.0}}
    if typing.get_origin(kind) in (tuple, Sequence):
        return tuple(hostile(args[0] if arg is ... else arg) for arg in args)
    if args:
        return hostile(args[0])
    if not issubclass(kind, tuple):
        return kind(1)
    return kind(**{name: hostile(part) for name, part in typing.get_type_hints(kind).items()})


def test_every_text_of_every_block_is_escaped():
    content = tuple(map(hostile, blocks.Block.__args__))
    content += (
        blocks.Charts((hostile(blocks.Chart)._replace(sizes=""),)),
        blocks.Notices((HOSTILE,) * 9),
    )
    content += (blocks.Code(HOSTILE, HOSTILE, fold=False), blocks.Table((HOSTILE,), ()))
    document = hostile(blocks.Document)._replace(sections=(blocks.Section("s", HOSTILE, content),))
    page = rendering.to_html(document)
    assert "&lt;script&gt;" in page and "<script" not in page and "<img" not in page
    assert '"quote"' not in page
    fences = re.compile(r"(`{3,})text\n.*?\n\1", re.DOTALL)
    text = fences.sub("", rendering.to_markdown(document))
    assert r"\<script" in text and not re.search(r"(?<!\\)(<script|<img|`code)", text)


def test_comparisons_beyond_the_open_ones_are_folded_and_all_text_is_escaped():
    spans = (blocks.Span("<b>", "invented", 'a "note"'), blocks.Span("&"))
    output = blocks.Output("after", spans, 1, ("invented: <b>",))
    item = blocks.Comparison("id<1>", "s", "in<put>", (spans,), (output, output))
    text = html_of(blocks.SideBySide("T", (item,) * 3, open_items=1))
    assert "2 more" in text and text.count("<article>") == 3
    assert "<b>id&lt;1&gt;</b>" in text and "in&lt;put&gt;" in text
    assert '<mark class="invented" title="a &#34;note&#34;">&lt;b&gt;</mark>&amp;' in text


def test_cells_are_shaded_by_size_and_sign():
    shades = (0.0, 0.1, 0.3, -0.6, 1.0, float("nan"))
    cells = tuple(blocks.Cell(f"c{n}", shade) for n, shade in enumerate(shades))
    text = html_of(blocks.Matrix("Task", ("a",) * 6, (("t_x", cells),)))
    shaded = dict(re.findall(r'<td class="(up\d|down\d)">(c\d)', text))
    assert shaded == {"up1": "c2", "down2": "c3", "up3": "c4"}
    assert "t_<wbr>x" in text


def test_the_cue_stands_where_the_text_is_too_wide():
    def table(*rows, texts=1):
        return html_of(blocks.Table(rows[0], tuple(map(blocks.Row, rows[1:])), texts))

    narrow = table(("Task", "Score"), ("gym.sums", "41.2"))
    assert CUE not in narrow and '<div class="scroll" tabindex="0"><table>' in narrow
    phone = table(("a column of text",) * 5, texts=0)
    assert f'<p class="cue" aria-hidden="true">{CUE}</p>' in phone
    assert '<p class="cue wide"' in table(("a column of text",) * 12, texts=0)
    # Text that is broken into lines takes no more room than a line.
    assert CUE not in table(("name", "long " * 40), texts=2)


def wide_page():
    cells = tuple("12.3 ± 4.5" for _ in range(9))
    columns = ("Task", *(f"Column {number}" for number in range(9)))
    matrix = blocks.Matrix("Task", columns[1:], (("t", tuple(map(blocks.Cell, cells))),), "")
    small = blocks.Table(("Task", "n"), (blocks.Row(("a", "1")),))
    rows = (blocks.Row(("a.task", *cells), strong=True), blocks.Row(("b", *cells)))
    section = blocks.Section("one", "One", (small, blocks.Table(columns, rows), matrix))
    return rendering.to_html(blocks.Document("Wide", "", (section,)))


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_cue_on_a_phone_alone(tmp_path, dark):
    (page,), console, _ = browser.look(tmp_path, [wide_page()], 390, dark)
    assert page["width"] == 390 and not console
    assert page["tables"] == [{"wide": False, "cue": False}, *[{"wide": True, "cue": True}] * 2]
    (tmp_path / "wide").mkdir()
    (page,), _, _ = browser.look(tmp_path / "wide", [wide_page()], 1200, dark)
    assert not any(table["wide"] or table["cue"] for table in page["tables"])


def test_the_style_draws_the_edges():
    style = re.search(r"\.scroll \{[^}]*\}", wide_page())
    assert style and style[0].count("local") == 2 and style[0].count("var(--edge)") == 2


def test_dark_redefines_every_colour():
    light, dark = re.findall(r":root \{([^}]*)\}", STYLE)
    colours = set(re.findall(r"(--[\w-]+): #", light))
    assert colours == set(re.findall(r"(--[\w-]+): #", dark))
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLE))
    assert used <= set(re.findall(r"(--[\w-]+):", light))


def test_the_palette_is_complete():
    for number in range(charts.PALETTE_SIZE):
        assert f".s{number} {{ color: var(--c{number}) }}" in STYLE


def test_marks_cut_a_text_without_losing_any_of_it():
    text = "Anna met Bob."
    spans = marked(text, {(9, 12): ("invented", "name"), (0, 4): ("known", "name")})
    assert [(span.text, span.mark) for span in spans] == [
        ("Anna", "known"), (" met ", ""), ("Bob", "invented"), (".", "")
    ]  # fmt: skip
    overlapping = marked(text, {(0, 8): ("known", "name"), (5, 8): ("invented", "date")})
    assert "".join(span.text for span in overlapping) == text
    assert marked("", {}) == ()
