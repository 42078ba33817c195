import json
import pickle

import pytest

from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.promptsource import (
    JinjaTemplate,
    PromptSourceSource,
    apply_template,
    load_templates,
    p3_name,
)
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

FILE = """\
dataset: owner/set
subset: easy
templates:
  1f: !Template
    answer_choices: No ||| Yes
    id: 1f
    jinja: "Is {{ text }} good?\\n\\nSay so. ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: is it (good)?
    reference: ''
  2f: !Template
    answer_choices: null
    id: 2f
    jinja: '{% if label == 1 %}Write something good. ||| {{text}}{% endif %}'
    metadata: !TemplateMetadata {}
    name: write
    reference: ''
  3f: !Template
    answer_choices: null
    id: 3f
    jinja: '{% if %} ||| x'
    metadata: !TemplateMetadata {}
    name: broken
    reference: ''
"""
ROWS = [{"text": "it", "label": 1}, {"text": "a ||| b", "label": 0}, {"text": "x", "label": 7}]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("INSTRUCT_DOWNLOAD", raising=False)
    path = tmp_path / "promptsource/templates/owner/set/easy/templates.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/train.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, []])))
    return tmp_path


def source(template, **more):
    return PromptSourceSource("owner/set", "easy", template, HuggingFaceSource("rows"), **more)


def apply(jinja, choices="", with_options=None, **row):
    return apply_template(JinjaTemplate("t", jinja, choices), row, "1", with_options)


def test_names():
    assert p3_name("adversarial_qa", "dbert", "answer_the_following_q") == (
        "adversarial_qa_dbert_answer_the_following_q"
    )
    assert p3_name("cos_e", "v1.11", "i_think") == "cos_e_v1.11_i_think"
    assert p3_name("Zaid/coqa", None, "…what, C1 -or C2?") == "Zaid_coqa__what_C1_or_C2_"


def test_template_files(folder):
    templates = load_templates(source("write").path(workspace()))
    assert templates["is it (good)?"] == JinjaTemplate(
        "is it (good)?",
        "Is {{ text }} good?\n\nSay so. ||| {{ answer_choices[label] }}",
        "No ||| Yes",
        original_task=True,
        metrics=("Accuracy",),
    )
    assert list(templates) == ["is it (good)?", "write", "broken"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("templates: [1]", "no table 'templates'"),
        ("templates:\n  1f: !Template {name: x}", "no jinja text"),
        ("templates: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_other_files_are_refused(folder, text, message):
    path = source("write").path(workspace())
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=message):
        load_templates(path)


def test_rows_become_records(folder):
    made = source("is it (good)?")
    assert made.available(workspace()) is None and made.splits == ("train",)
    name = "owner_set_easy_is_it_good_"
    assert list(made.records(workspace(), "train")) == [
        Record(f"{name}-train-0", {"prompt": "Is it good?\n\nSay so."}, "Yes", ("No", "Yes"), 1),
        Record(
            f"{name}-train-1", {"prompt": "Is a ||| b good?\n\nSay so."}, "No", ("No", "Yes"), 0
        ),
        Dropped("template fails with UndefinedError"),
        Dropped("line is not a JSON object"),
    ]
    plain = list(source("is it (good)?", with_options=False).records(workspace(), "train"))
    assert isinstance(plain[0], Record) and plain[0].options == ()
    one_part = Dropped("template gives 1 parts, not prompt and target")
    assert list(source("write").records(workspace(), "train"))[:2] == [
        Record("owner_set_easy_write-train-0", {"prompt": "Write something good."}, "it"),
        one_part,
    ]
    assert pickle.loads(pickle.dumps(made)) == made


def test_fingerprint_follows_rows_and_this_template(folder):
    made, other = source("is it (good)?"), source("write")
    first, second = made.fingerprint(workspace()), other.fingerprint(workspace())
    assert len({first, second, "absent"}) == 3
    made.path(workspace()).write_text(FILE.replace("Say so.", "Tell."))
    assert made.fingerprint(workspace()) != first and other.fingerprint(workspace()) == second
    (folder / "rows/train.jsonl").write_text('{"text": "y", "label": 0}\n')
    assert other.fingerprint(workspace()) != second
    made.path(workspace()).unlink()
    assert made.fingerprint(workspace()) == "absent"


def test_what_is_missing_is_named(folder):
    assert "'writ'" in (source("writ").available(workspace()) or "")
    with pytest.raises(UserError, match="'broken', line 1"):
        list(source("broken").records(workspace(), "train"))
    (folder / "rows/train.jsonl").unlink()
    assert "rows (train) is neither" in (source("write").available(workspace()) or "")
    source("write").path(workspace()).unlink()
    assert "promptsource" in (source("write").available(workspace()) or "")
    with pytest.raises(UserError, match="cannot read templates"):
        source("write").loaded(workspace())


def test_choices_of_each_row_and_columns_with_a_dash():
    made = apply(
        "{{a_b}}? ||| {{answer_choices[0]}}",
        "{{ c | join('|||') }}",
        **{"a-b": "Q", "c": ["x", "y|||z"]},
    )
    assert made == Record("1", {"prompt": "Q?"}, "x", ("x", "y|||z"), 0)


def test_nothing_is_cut():
    made = apply("{{ text }} ||| y", text="x" * 5000)
    assert isinstance(made, Record) and len(made.fields["prompt"]) == 5000


def test_choice_draws_the_same_for_the_same_row():
    jinja = "{{ items | choice }} {{ range(1000) | choice }} ||| y"
    first = apply(jinja, items=["a", "b"], n=1)
    assert first == apply(jinja, items=["a", "b"], n=1)
    assert len({str(apply(jinja, items=["a", "b"], n=n)) for n in range(20)}) > 15
    agreeing = apply("{{ items | choice }} ||| y", "{{ items | choice }}|||y", items=["a", "b"])
    assert isinstance(agreeing, Record) and agreeing.fields["prompt"] == agreeing.options[0]


def test_additions_to_jinja():
    assert apply(
        "{% for a, b in zip(x, y) %}{{a}}{{b}} {% endfor %} ||| "
        "{{ x | most_frequent | join(',') | highlight }}",
        x=[1, 2, 2, 1, 3],
        y="abcde",
    ) == Record("1", {"prompt": "1a 2b 2c 1d 3e"}, "1,2")


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{{ absent }} ||| y", "template fails with UndefinedError"),
        ("{{ text.__class__.__mro__ }} ||| y", "template fails with SecurityError"),
        ("{{ text['__class__'] }} ||| y", "template fails with SecurityError"),
        ("{{ range(10 ** 9) | list }} ||| y", "template writes too much"),
        ("{{ range(9 ** 7) | list }} ||| y", "template writes too much"),
        ("{{ 'x' * 10000000 }} ||| y", "template fails with SecurityError"),
        ("{{ 9 ** 99 }} ||| y", "template fails with SecurityError"),
        (
            "{% for i in range(99999) %}{{ text * 99 }}{% endfor %} ||| y",
            "template writes too much",
        ),
        ("{% include 'x' %} ||| y", "template fails with TypeError"),
        ("{{ 1 // 0 }} ||| y", "template fails with ZeroDivisionError"),
        ("a ||| b ||| c", "template gives 3 parts, not prompt and target"),
        ("{{ text }} |||", "empty prompt or target"),
    ],
)
def test_templates_that_fail_drop_the_row(jinja, reason):
    assert apply(jinja, text="x") == Dropped(reason)


def test_rows_that_templates_may_not_get():
    assert apply("x ||| y", answer_choices="x") == Dropped("row has a column named answer_choices")
    assert apply("x ||| y", "a ||| b") == Dropped("target is not among the answer choices")
