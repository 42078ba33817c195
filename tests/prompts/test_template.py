import pytest

from instruct.errors import UserError
from instruct.prompts.draws import Draws
from instruct.prompts.exemplars import STANDARD_FORMATS
from instruct.prompts.template import Template, TemplateSet, fill, load_template_sets, parse


def test_parse_and_fill():
    parts = parse("Q: {question}\nA {{x}}: {answer}.")
    assert parts == ("Q: ", "question", "\nA {x}: ", "answer", ".")
    assert fill(parts, {"question": "why {so}?", "answer": "{answer}"}) == (
        "Q: why {so}?\nA {x}: {answer}."
    )
    assert fill(parts, {"question": "?", "answer": "Because."}).endswith("Because.")
    assert fill(parts, {"question": "?", "answer": ""}).endswith(": .")
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
    )
    inversions = (Template("c", "{answer}", "{rationale} {question} {answer}"),)
    wording = TemplateSet("demo", ("question",), cot_noopt=chains, inv=inversions)
    phrases = wording.closing_phrases
    assert phrases == (("The answer is", "."), ("So:", ""))


FILE = """
[demo]
input_fields = ["question"]
instructions = ["Do it."]
[[demo.zs_noopt]]
id = "a"
inputs = "{question}"
weight = 2
[[demo.inv]]
id = "b"
inputs = "Write a question for {answer}"
targets = "{question}"
"""


def test_load(tmp_path):
    path = tmp_path / "demo.toml"
    path.write_text(FILE)
    (demo,) = load_template_sets(path).values()
    assert demo.zs_noopt[0] == Template("a", "{question}", "{answer}", weight=2.0)
    assert demo.formats == STANDARD_FORMATS and demo.instructions == ("Do it.",)
    assert demo.draw("zs_noopt", Draws(0)) is demo.zs_noopt[0]
    assert [t.id for t in demo.inv] == ["b"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "a"', "", "id is missing"),
        ("{question}", "{qestion}", r"demo.*'a'.*unknown placeholder 'qestion'.*'question'"),
        ("{question}", "{question", "'a'.*stray"),
        ("weight = 2", "weight = 0", "'a'.*weight is 0; use a number above 0"),
        ("weight = 2", 'weight = "2"', "'a'.*weight is '2'; use a number above 0"),
        ("weight = 2", "wieght = 2", "unknown key 'wieght'.*'weight'"),
        ("instructions", "instruction", "unknown key 'instruction'.*'instructions'"),
        ('instructions = ["Do it."]', 'instructions = ["{qu}"]', "instructions.*'qu'"),
        ('input_fields = ["question"]', "", "input_fields is missing"),
        ("[demo]", "[demo", "not valid TOML"),
        ('inputs = "{question}"', "", "'a'.*inputs is missing"),
        ("[demo]", "demo2 = 3\n[demo]", "'demo2'.*input_fields is missing"),
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
