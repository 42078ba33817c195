"""A benchmark's one layout: exemplars verbatim and in order, reasoning only in them."""

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.frame import Frame
from instruct.prompts.lint import lint
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from instruct.prompts.template import load_template_sets

SET = """
[quiz]
input_fields = ["question", "a", "b"]
context_fields = ["subject"]
published = true
shuffle_options = false
option_style = { alphabet = "upper", frame = "{}." }
formats = [{ id = "blocks", separator = "", instruction = "top" }]
instructions = ["Questions about {subject}."]

[[quiz.zs_opt]]
id = "alone"
inputs = "About {subject}.\\n\\n{question}\\nA. {a}\\nB. {b}\\nAnswer:"

[[quiz.fs_opt]]
id = "block"
inputs = "{question}\\nA. {a}\\nB. {b}\\nAnswer:"
targets = " {answer}"

[[quiz.cot_opt]]
id = "alone_reasoned"
inputs = "Q: {question} (A) {a} (B) {b}\\nA: Think."
targets = "{rationale}"

[[quiz.fs_cot_opt]]
id = "block_reasoned"
inputs = "Q: {question} (A) {a} (B) {b}\\nA: Think."
targets = "{rationale}"
"""


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "quiz.toml"
    path.write_text(SET)
    return load_template_sets(path)["quiz"]


def record(number: int, rationale: str = "") -> Record:
    fields = {"question": f"Number {number}?", "a": "odd", "b": "even", "subject": "parity"}
    answer = number % 2 == 0
    options = ("odd", "even")
    return Record(f"q{number}", fields, options[answer], options, answer, (), rationale)


def show(templates, mode, exemplars=(), length=400):
    shown = render(
        record(7),
        templates,
        mode,
        5,
        exemplars,
        frame=Frame(load_vocabulary("bytes")),
        max_inputs_tokens=length,
        max_targets_tokens=50,
    )
    assert isinstance(shown, Rendered), shown
    return shown


def test_exemplars_stand_as_they_are_written(templates):
    shown = show(templates, "direct", [record(1), record(2)])
    assert shown.inputs == (
        "Questions about parity.\n\n"
        "Number 1?\nA. odd\nB. even\nAnswer: A\n\n"
        "Number 2?\nA. odd\nB. even\nAnswer: B\n\n"
        "Number 7?\nA. odd\nB. even\nAnswer:"
    )
    assert (shown.targets, shown.markers, shown.answer_index) == ("A", ("A", "B"), 0)
    assert shown.template_id == "block+blocks"


def test_only_exemplars_have_reasoning(templates):
    shots = [record(1, " 1 is odd. The answer is (A)."), record(2, "\n2 is even.\nSo (B).")]
    shown = show(templates, "cot", [*shots, record(3)])
    assert shown.inputs == (
        "Questions about parity.\n\n"
        "Q: Number 1? (A) odd (B) even\nA: Think. 1 is odd. The answer is (A).\n\n"
        "Q: Number 2? (A) odd (B) even\nA: Think.\n2 is even.\nSo (B).\n\n"
        "Q: Number 7? (A) odd (B) even\nA: Think."
    )
    assert shown.targets == "A"
    alone = show(templates, "zs_cot")
    assert (alone.inputs, alone.targets) == ("Q: Number 7? (A) odd (B) even\nA: Think.", "A")


def test_the_last_exemplars_go_first_and_the_question_is_never_cut(templates):
    shots = [record(n) for n in (1, 2, 3, 4)]
    for length in range(60, 220):
        shown = show(templates, "direct", shots, length)
        assert shown.exemplar_ids == tuple(f"q{n}" for n in range(1, shown.num_exemplars + 1))
    assert show(templates, "direct", shots, 66).inputs == (
        "About parity.\n\nNumber 7?\nA. odd\nB. even\nAnswer:"
    )
    too_long = render(
        record(7),
        templates,
        "direct",
        5,
        shots,
        frame=Frame(load_vocabulary("bytes")),
        max_inputs_tokens=40,
        max_targets_tokens=50,
    )
    assert isinstance(too_long, Dropped)


def test_the_lint_asks_for_one_wording_only(templates):
    assert lint(templates) == []


@pytest.mark.parametrize(
    ("style", "says"),
    [('{ alphabt = "upper" }', "alphabet"), ("3", "table"), ("{ header = 1 }", "use a text")],
)
def test_a_bad_option_style_is_named(tmp_path, style, says):
    path = tmp_path / "bad.toml"
    path.write_text(f'[quiz]\ninput_fields = ["question"]\noption_style = {style}\n')
    with pytest.raises(UserError, match=says):
        load_template_sets(path)
