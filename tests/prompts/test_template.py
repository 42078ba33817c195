import dataclasses

import pytest

from instruct.errors import UserError
from instruct.prompts.exemplars import STANDARD_FORMATS
from instruct.prompts.template import Template, TemplateSet, fill, lint, load_template_sets, parse

PLAIN = tuple(Template(f"p{i}", f"{i}. {{question}}") for i in range(10))
SHOWN = tuple(Template(f"o{i}", f"{i}. {{question}}\n{{options}}") for i in range(10))
GOOD = TemplateSet("demo", ("question",), zs_opt=SHOWN, zs_noopt=PLAIN)


def test_parse_and_fill():
    parts = parse("Q: {question}\nA {{x}}: {answer}.")
    assert parts == ("Q: ", "question", "\nA {x}: ", "answer", ".")
    assert fill(parts, {"question": "why {so}?", "answer": "{answer}"}) == (
        "Q: why {so}?\nA {x}: {answer}."
    )
    assert fill(parts, {"question": "?", "answer": "Because."}).endswith("Because.")
    with pytest.raises(KeyError, match="answer"):
        fill(parts, {"question": "?"})


@pytest.mark.parametrize("text", ["{", "a } b", "{two words}", "{}", "{question", "{0}"])
def test_stray_braces_are_refused(text):
    with pytest.raises(ValueError, match="stray"):
        parse(text)


def test_closing_phrases_come_from_the_targets():
    chains = (
        Template("a", "{question}", "{rationale}\nThe answer is {answer}."),
        Template("b", "{question}", "{rationale} So: {answer}"),
        Template("c", "{answer}", "{rationale} {question} {answer}", inverted=True),
    )
    phrases = TemplateSet("demo", ("question",), cot_noopt=chains).closing_phrases
    assert phrases == (("The answer is", "."), ("So:", ""))


FILE = """
[demo]
input_fields = ["question"]
instructions = ["Do it."]
[[demo.zs_noopt]]
id = "a"
inputs = "{question}"
weight = 2
[[demo.zs_noopt]]
id = "b"
inputs = "Write a question for {answer}"
targets = "{question}"
inverted = true
"""


def test_load(tmp_path):
    path = tmp_path / "demo.toml"
    path.write_text(FILE)
    (demo,) = load_template_sets(path).values()
    assert demo.zs_noopt[0] == Template("a", "{question}", "{answer}", weight=2.0)
    assert demo.formats == STANDARD_FORMATS and demo.instructions == ("Do it.",)
    assert len(demo.drawable("zs_noopt", True)[0]) == 2
    assert [t.id for t in demo.drawable("zs_noopt", False)[0]] == ["a"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "a"', "", "needs an id"),
        ("{question}", "{qestion}", r"demo.*'a'.*unknown placeholder 'qestion'.*'question'"),
        ("{question}", "{question", "'a'.*stray"),
        ("weight = 2", "weight = 0", "'a'.*weight must be above 0"),
        ("weight = 2", 'weight = "2"', "'a'.*weight must be float"),
        ("weight = 2", "wieght = 2", "unknown key 'wieght'.*'weight'"),
        ("instructions", "instruction", "unknown key 'instruction'.*'instructions'"),
        ('instructions = ["Do it."]', 'instructions = ["{qu}"]', "instructions.*'qu'"),
        ('input_fields = ["question"]', "", "input_fields is missing"),
        ("[demo]", "[demo", "not valid TOML"),
        ('inputs = "{question}"', "", "'a'.*inputs is missing"),
        ("[demo]", "demo2 = 3\n[demo]", "'demo2' must be a table"),
    ],
)
def test_mistakes_name_file_and_template(tmp_path, old, new, message):
    path = tmp_path / "demo.toml"
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(UserError, match=f"(?s){message}") as caught:
        load_template_sets(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot read template file"):
        load_template_sets(tmp_path / "nowhere.toml")


def test_lint_passes_a_good_set():
    assert lint(GOOD) == []


def _with(name: str, template: Template) -> TemplateSet:
    return dataclasses.replace(GOOD, **{name: (*getattr(GOOD, name), template)})


@pytest.mark.parametrize(
    ("name", "template", "finding"),
    [
        ("zs_noopt", Template("x", "Do something."), "show none of question"),
        ("zs_noopt", Template("x", "{question} Choose one!"), "must not mention options"),
        ("zs_noopt", Template("x", "{question} {options}"), "must not mention options"),
        ("zs_noopt", Template("x", "{question}", "one of these options: {answer}"), "mention"),
        ("zs_opt", Template("x", "{question}, again"), "must show {options}"),
        ("zs_opt", Template("x", "{question} {options}", "{options} {answer}"), "in the targets"),
        ("zs_noopt", Template("x", "{answer}?", "{question}"), "flag it inverted"),
        ("zs_noopt", Template("x", "{question} is {answer}"), "flag it inverted"),
        ("zs_noopt", Template("x", "{question} as {rationale}"), "flag it inverted"),
        ("zs_noopt", Template("x", "so {question}", "{answer}", inverted=True), "asks for the"),
        ("zs_noopt", Template("x", "Ask.", "{question}", inverted=True), "show nothing"),
        ("zs_noopt", Template("x", "{question}", "{question}", inverted=True), "only repeat"),
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


def test_lint_reads_instructions():
    shots = (Template("shot", "{question}"),)
    twice = dataclasses.replace(GOOD, fs_noopt=shots, instructions=("Pick an option.",) * 2)
    findings = lint(twice)
    assert any("instruction occurs twice" in text for text in findings)
    assert any("no-option instruction mentions options" in text for text in findings)
