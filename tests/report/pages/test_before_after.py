"""Before and after: pairs, numbers, warnings; the page complete, escaped, right in a browser."""

import re
from pathlib import Path

import pytest

from instruct.errors import UserError
from instruct.report.pages.before_after import (
    CompareConfig,
    compare,
    differing_conditions,
    write_comparison,
)
from tests.report import browser
from tests.report.made_up_summaries import plain_rows, summary_rows, write_evaluation

SECTIONS = ["overview", "scores", "faithfulness", "outputs", "conditions"]


@pytest.fixture
def runs(tmp_path):
    """Folders of a bad and of a good model."""
    task = "dialogsum.main"
    write_evaluation(tmp_path / "bad", {task: summary_rows(0.1)})
    good = {task: summary_rows(0.9, seed=1)}
    write_evaluation(tmp_path / "good", good, step=500, group="held_in", decode="beam 4")
    return str(tmp_path / "bad"), str(tmp_path / "good")


def test_numbers_are_paired_and_inventions_counted(runs: tuple[str, str]):
    found = compare(*runs, CompareConfig("dialogsum"))
    assert found.rank_by == "rougeL" and list(found.tests) == ["rouge1", "rougeL"]
    test = found.tests["rougeL"]
    rows = [summary_rows(0.1), summary_rows(0.9, seed=1)]
    means = [sum(row["scores"]["rougeL"] for row in part) / 24 for part in rows]
    assert (test.first, test.second) == pytest.approx(tuple(means))
    assert test.clear and test.n == 24 == len(found.pairs)
    assert len(found.checked) == 24
    for pair, both in zip(found.pairs, found.checked):
        for row, checked in zip(pair.lines, (both.before, both.after)):
            said = {mention.text for mention in checked.invented}
            if row["prediction"].startswith("They meet Roderick in Bombay"):
                assert {"Roderick", "Bombay", "Tuesday"} <= said
            else:
                assert said == set() and checked.missed == ()


def test_what_differs_is_told(runs: tuple[str, str], tmp_path):
    page, numbers = write_comparison(*runs, tmp_path / "out", CompareConfig("dialogsum"))
    text = page.read_text()
    assert "decode is not the same: before greedy, after beam 4." in text
    assert "parameters is not" not in text
    assert "before (bad, step_0) · after (good, step_500)" in text
    assert numbers["n"] == 24 and numbers["metrics"]["rougeL"]["difference"] > 20
    assert numbers["outputs_that_invent"]["change"] < -30
    rows = summary_rows(0.5, n=20)
    rows[3] |= {"target": "another"}
    rows[4] |= {"prompt": "Another wording."}
    rows[5] |= {"source": ""}
    rows[6] |= {"prediction": " "}
    write_evaluation(tmp_path / "third", {"dialogsum.main": rows})
    third = compare(runs[0], str(tmp_path / "third"), CompareConfig())
    told = " ".join(third.left_out)
    assert len(third.pairs) == 19
    assert "4 examples were only evaluated before" in told
    assert "1 example has another id or target" in told
    assert "1 of 19 prompts are not the same" in told
    assert "1 output is empty (0 before, 1 after): these invent nothing." in told


def test_what_cannot_be_compared_is_told(runs: tuple[str, str], tmp_path):
    with pytest.raises(UserError, match="both before and after"):
        compare(runs[0], runs[0], CompareConfig())
    with pytest.raises(UserError, match=r"no metric 'bleu' to rank by; allowed: rouge1, rougeL"):
        compare(*runs, CompareConfig(rank_by="bleu"))
    write_evaluation(tmp_path / "other", {"another.task": summary_rows(0.5)})
    with pytest.raises(UserError, match="no example in common"):
        compare(runs[0], str(tmp_path / "other"), CompareConfig())


def test_short_answers_are_compared_without_a_search_for_inventions(tmp_path):
    for name, values in (("a", [0.0, 100.0, 0.0]), ("b", [100.0, 100.0, 0.0])):
        write_evaluation(tmp_path / name, {"toy": plain_rows(values)}, suite="toy")
    page, numbers = write_comparison(
        str(tmp_path / "a"), str(tmp_path / "b"), tmp_path, CompareConfig()
    )
    assert "outputs_that_invent" not in numbers
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == [s for s in SECTIONS if s != "faithfulness"]
    assert "that may be chance in the choice of examples" in text


def test_the_page_marks_escapes_and_ranks(runs: tuple[str, str], tmp_path):
    page, _ = write_comparison(*runs, tmp_path, CompareConfig(examples=8))
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == SECTIONS
    assert '<mark class="invented" title="invented name">Roderick</mark>' in text
    assert '<mark class="known"' in text
    assert "<script" not in text and "<img" not in text
    gains = text[text.index("Largest gains") :]
    changes = [float(found) for found in re.findall(r"→ [\d.]+ \(([+-][\d.]+)\)", gains)]
    gained = [change for change in changes if change > 0]
    assert gained == sorted(gained, reverse=True) and len(gained) == 4
    assert "precision" in text and "with smaller or no changes are not shown" in text
    markdown = page.with_suffix(".md").read_text()
    assert "**Roderick** (invented)" in markdown and "| rougeL |" in markdown


@pytest.mark.slow
def test_in_a_browser(runs: tuple[str, str], tmp_path):
    page, _ = write_comparison(*runs, tmp_path, CompareConfig())
    text = page.read_text()
    (tmp_path / "phone").mkdir()
    (phone,), console, addresses = browser.look(tmp_path / "phone", [text], width=390)
    assert phone["width"] == 390, "wider than the screen"
    assert phone["sections"] == SECTIONS and phone["scripts"] == 0 and console == []
    asked = [a for a in addresses if a.startswith("http") and ".google" not in a]
    assert asked == []
    (light,), _, _ = browser.look(tmp_path, [text], width=1200)
    (dark,), _, _ = browser.look(tmp_path, [text], width=1200, dark=True)
    assert light["background"] != dark["background"] and light["width"] == dark["width"] == 1200


def test_only_inputs_that_lost_something_count_as_cut(tmp_path):
    """A source also holds fields that the wording never shows, such as what verifies an answer."""
    rows = summary_rows(0.5, n=6)
    for row in rows:
        row |= {"source": row["source"] + "\nlegs of cats\n[3, 4]"}
    long = "The river rises in the hills and passes three towns before it reaches the sea."
    rows[0] |= {"source": long, "prompt": f"Summarise. {long[:60]}"}
    rows[1] |= {"source": long, "prompt": f"Summarise. {long[:60]}", "truncated": False}
    rows[2] |= {"truncated": True}
    for name in ("before", "after"):
        write_evaluation(tmp_path / name, {"dialogsum.main": rows})
    compared = compare(str(tmp_path / "before"), str(tmp_path / "after"), CompareConfig())
    assert "2 inputs were too long" in " ".join(compared.left_out)


def test_prompts_that_show_other_numbers_of_exemplars_differ(runs: tuple[str, str]):
    def differing():
        return " ".join(differing_conditions(compare(*runs, CompareConfig("dialogsum"))))

    def show(run, mean):
        for path in Path(run).rglob("results.jsonl"):
            text = re.sub(r'"exemplars_mean": [^,]+', f'"exemplars_mean": {mean}', path.read_text())
            text = text.replace('"exemplars_min": null', '"exemplars_min": 1')
            lines = [
                line.replace('"exemplars_asked": null', '"exemplars_asked": 5.0')
                if '"kind": "metric"' in line
                else line
                for line in text.splitlines(keepends=True)
            ]
            path.write_text("".join(lines))

    show(runs[0], 5.0)
    assert "exemplars" not in differing()  # the other file does not say
    show(runs[1], 3.5)
    assert "exemplars shown is not the same: before 5, after 3.5 of 5 (at least 1)." in differing()
    show(runs[1], 5.0)
    assert "exemplars" not in differing()


def test_a_task_of_one_evaluation_only_moves_no_metric(tmp_path):
    """Half of the tasks are there before: what has no value an example is of the common ones."""
    for name, tasks in (("before", ["t"]), ("after", ["t", "u"])):
        rows = {task: plain_rows([0.0, 100.0]) for task in tasks}
        path = write_evaluation(tmp_path / name, rows)
        corpus = [
            line.replace("exact_match", "bleu").replace('"value": 50.0', f'"value": {value}')
            for line, value in zip(
                [x for x in path.read_text().splitlines(keepends=True) if '"metric"' in x[:20]],
                (10.0, 90.0),
            )
        ]
        path.write_text(path.read_text() + "".join(corpus))
    page, _ = write_comparison(
        str(tmp_path / "before"), str(tmp_path / "after"), tmp_path, CompareConfig()
    )
    [line] = [x for x in page.with_suffix(".md").read_text().splitlines() if "bleu" in x][:1]
    assert line.count("10.0") == 2 and "50.0" not in line
