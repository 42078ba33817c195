"""The Markdown twin: everything the page has, with markup disarmed."""

import math

from instruct.report import blocks, markdown, read, sections
from tests.report.made_up_run import write_run


def render(*content) -> str:
    section = blocks.Section("s", "Title", content)
    return markdown.render(blocks.Document("doc", "", (section,)))


def test_a_table_is_one_row_a_line():
    row = blocks.Row(("a|b\nc", "1"))
    text = render(blocks.Table(("Name", "n"), (row,)))
    assert "| Name | n |\n| --- | ---: |\n| a\\|b c | 1 |" in text


def test_curves_become_a_few_steps():
    long = blocks.Series("train", tuple((i, float(i)) for i in range(101)))
    short = blocks.Series("eval", ((50, 0.5), (100, math.nan)))
    text = render(blocks.Charts((blocks.Lines("Loss", (long, short)),)))
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(lines) == markdown.CURVE_ROWS
    assert lines[0] == "| 0 | 0 | – |" and lines[5] == "| 56 | 56 | 0.5 |"
    assert lines[-1] == "| 100 | 100 | – |"


def test_code_with_fences_stays_inside():
    text = render(blocks.Code("file", "a\n```\nb"))
    assert "````text\na\n```\nb\n````" in text


def test_a_whole_report(tmp_path):
    write_run(tmp_path, steps=200, num_tasks=6, with_nan=True)
    document = sections.document([read.read_run(tmp_path, "run")])
    text = markdown.render(document)
    for section in document.sections:
        assert f"\n## {section.title}\n" in text
    assert text.count("<details>") == text.count("</details>")
    assert "\n**right** · gym.task" in text and "\n**wrong** · gym.task" in text
    assert "| arithmetic | " in text
    assert set(markdown.WRITERS) == set(blocks.Block.__args__)
