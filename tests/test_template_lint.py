import dataclasses

import pytest

from instruct.prompts.exemplars import STANDARD_FORMATS
from instruct.prompts.template import Template, TemplateSet
from tests.template_lint import doubled_labels, lint

PLAIN = tuple(Template(f"p{i}", f"{i}. {{question}}") for i in range(10))
SHOWN = tuple(Template(f"o{i}", f"{i}. {{question}}\n{{options}}") for i in range(10))
GOOD = TemplateSet("demo", ("question",), zs_opt=SHOWN, zs_noopt=PLAIN)


def test_lint_passes_a_good_set():
    assert lint(GOOD) == []


def _with(name: str, template: Template) -> TemplateSet:
    return dataclasses.replace(GOOD, **{name: (*getattr(GOOD, name), template)})


@pytest.mark.parametrize(
    ("name", "template", "finding"),
    [
        ("zs_noopt", Template("x", "Do something."), "show none of question"),
        ("zs_noopt", Template("x", "{question} Choose one!"), "must not mention options"),
        ("zs_noopt", Template("x", "{question} {options}"), "only an option template"),
        ("zs_noopt", Template("x", "{question}", "one of these options: {answer}"), "mention"),
        ("zs_opt", Template("x", "{question}, again"), "must show {options}"),
        ("zs_opt", Template("x", "{question} {options}", "{options} {answer}"), "in the targets"),
        ("zs_noopt", Template("x", "{answer}?", "{question}"), "belongs in inv"),
        ("zs_noopt", Template("x", "{question} is {answer}"), "belongs in inv"),
        ("zs_noopt", Template("x", "{question} as {rationale}"), "belongs in inv"),
        ("inv", Template("x", "so {question}", "{answer}"), "asks for the answer"),
        ("inv", Template("x", "Ask.", "{question}"), "show nothing"),
        ("inv", Template("x", "{question}", "{question}"), "only repeat"),
        ("inv", Template("x", "{answer}", "{question}, so {answer}"), "answer stands on both"),
        ("inv", Template("x", "{answer}? {options}", "{question}"), "only an option template"),
        ("inv", Template("x", "{answer}", "{question}"), "1 templates, 2 are wanted"),
        ("zs_noopt", Template("x", "{question} and", "yes"), "do not show {answer}"),
        ("cot_noopt", Template("x", "{question} and"), "do not show {rationale}"),
        ("zs_noopt", Template("p0", "{question} once more"), "id 'p0' occurs 2 times"),
        ("zs_noopt", Template("x", "3.  {question}"), "'p3' and 'x' read the same"),
        ("cot_noopt", Template("x", "3. {question}", "{rationale} {answer}"), "read the same"),
    ],
)
def test_lint_finds(name, template, finding):
    findings = lint(_with(name, template))
    assert any(finding in text for text in findings), findings


def test_lint_wants_enough_templates_and_formats():
    few = dataclasses.replace(GOOD, zs_noopt=PLAIN[:9], formats=STANDARD_FORMATS[:3])
    findings = lint(few)
    assert any("9 templates" in text for text in findings)
    assert any("3 few-shot formats" in text for text in findings)


def test_a_finished_prompt_needs_one_wording():
    shown = (Template("as_it_is", "{prompt}"),)
    finished = TemplateSet("f", ("prompt",), zs_noopt=shown, finished=True)
    assert lint(finished) == []
    assert lint(dataclasses.replace(finished, finished=False))


@pytest.mark.parametrize("with_options", [False, True])
def test_lint_reads_instructions(with_options):
    shots = (Template("shot", "{question}"),)
    shown = (Template("shown", "{question}\n{options}"),) if with_options else ()
    twice = dataclasses.replace(
        GOOD, fs_noopt=shots, fs_opt=shown, instructions=("Pick an option.",) * 2
    )
    findings = lint(twice)
    assert any("instruction occurs twice" in text for text in findings)
    assert any("no-option instruction mentions options" in text for text in findings)


@pytest.mark.parametrize(
    ("name", "inputs", "word"),
    [
        ("fs_noopt", "Problem: {question}", "Problem"),
        ("fs_opt", "### Example\n{question}\n{options}", "Example"),
        ("fs_noopt", "q: {question}", "Q"),
        ("fs_noopt", "{question}\nSolution:", "Solution"),
        ("inv", "Prompt: {answer}", "Prompt"),
    ],
)
def test_a_label_that_a_layout_brings_is_found(name, inputs, word):
    found = doubled_labels(_with(name, Template("x", inputs)))
    assert found
    assert all(f"{name} 'x'" in text and repr(word) in text for text in found)


@pytest.mark.parametrize(
    "inputs", ["Questions: {question}", "{question}\nWhat is the answer?", "=> {question}"]
)
def test_other_beginnings_and_ends_double_nothing(inputs):
    assert doubled_labels(_with("fs_noopt", Template("x", inputs))) == []


def test_inverted_prompts_have_layouts_of_their_own():
    assert doubled_labels(_with("inv", Template("x", "Question: {answer}"))) == []
