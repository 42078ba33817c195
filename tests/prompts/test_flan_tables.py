"""The tables here have the public file's structure and made-up wordings."""

import pytest

from instruct.errors import UserError
from instruct.prompts.exemplars import STANDARD_FORMATS, FewShotFormat
from instruct.prompts.flan_tables import load_flan_tables
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered, render
from instruct.prompts.template import Template

TABLES = '''
"""Templates/Prompts."""
import copy
import dataclasses
from flan.v2 import flan_templates_branched as flan_templates

raise SystemExit("this file was run")

PATTERNS = {
    "pets": [
        ("{premise}\\\\n\\\\nSo, is it true that "
         "\\\\"{hypothesis}\\\\"?\\\\n\\\\n{options_}", "{answer}"),
        ("Look at the options.\\\\n{premise} {hypothesis}\\\\n{options_}\\\\nSay:", "{answer}"),
        ("Make something up.", "{premise}\\\\n{hypothesis}"),
        ("{broken", "{answer}"),
        (SOMEWHERE_ELSE, "{answer}"),
    ],
    "mail": [
        ("Name this mail: {body}", "{subject}"),
        ("{body}\\\\nA name for it?", "{subject}"),
        ("Write a mail named {subject}.", "{body}"),
    ],
    "sums": [
        ("{question}\\\\nThink.", "{chain_of_thought}\\\\nSo it is {answer}."),
        ("Why is {answer} right?\\\\n{question}", "{chain_of_thought}"),
    ],
    "record": [("{passage}\\\\n{query}\\\\n\\\\n{options_str}\\\\n\\\\n", "{answer}")],
    "set": [("Members: {{{items}}}", "{answer}")],
    "talk": [("{dialog_}\\nNext?", "{answer}"), ("Before {answer}?", "{dialog_}")],
}
PATTERNS["post"] = PATTERNS["mail"]
PATTERNS_NO_OPTIONS = copy.deepcopy(PATTERNS)
PATTERNS_NO_OPTIONS.update(flan_templates.PATTERNS)
for t_name, templates in PATTERNS_NO_OPTIONS.items():
  pass

@dataclasses.dataclass
class FewShotPattern:
  """Text."""
  inputs: str
  targets: str
  inputs_prefix: str = ""
  targets_prefix: str = ""
  x_y_delimiter: str = "\\\\n\\\\n"
  example_separator: str = "\\\\n\\\\n\\\\n"
  final_suffix: str = ""
  input_pattern: str = "{{inputs}}{final_suffix}"
  in_template_mix: bool = True

FEWSHOT_PATTERNS = {
    "pets": [
        FewShotPattern(inputs="{premise} / {hypothesis}\\\\n{options_}", targets="{answer}",
                       inputs_prefix="Q: ", targets_prefix="A: ", x_y_delimiter="\\\\n"),
        FewShotPattern(inputs="Guess.\\\\n{premise}", targets="{hypothesis}",
                       inputs_prefix="[{in}] ", targets_prefix="Out: ", in_template_mix=False),
    ],
    "sums": [FewShotPattern(inputs="{question}", targets="{chain_of_thought} {answer}")],
    "rules": [
        FewShotPattern(input_pattern="{{Definition}}\\\\n\\\\n{{inputs}}{final_suffix}",
                       inputs="{input}", targets="{output}", x_y_delimiter="\\\\n"),
        FewShotPattern(input_pattern="{{inputs}} and then", inputs="{input}", targets="{output}"),
    ],
}
'''.replace("\\\\", "\\")

BRANCHED = """
PATTERNS = {
    "pets": [("{premise}\\nTrue? {hypothesis}\\n\\n{options_}", "{answer}"),
             ("{premise}\\nIs \\"{hypothesis}\\" right?", "{answer}"),
             ("Invent.", "{premise}")],
    "only_here": [("{a}", "{answer}")],
}
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "flan/v2"
    folder.mkdir(parents=True)
    (folder / "templates.py").write_text(TABLES)
    (folder / "flan_templates_branched.py").write_text(BRANCHED)
    return tmp_path


def test_options_and_no_options(checkout):
    pets = load_flan_tables(checkout)["pets"]
    assert pets.input_fields == ("premise", "hypothesis")
    assert pets.zs_opt == (
        Template("zs_00", '{premise}\n\nSo, is it true that "{hypothesis}"?\n\n{options}'),
        Template("zs_01", "Look at the options.\n{premise} {hypothesis}\n{options}\nSay:"),
    )
    assert pets.zs_noopt == (
        Template("zs_noopt_00", "{premise}\nTrue? {hypothesis}"),
        Template("zs_noopt_01", '{premise}\nIs "{hypothesis}" right?'),
    )
    assert pets.inv == (
        Template("zs_02", "Make something up.", "{premise}\n{hypothesis}"),
        Template("fs_inv_01", "[{{in}}] Guess.\n{premise}\n\nOut:", "{hypothesis}"),
    )
    assert pets.fs_opt == (Template("fs_00", "{premise} / {hypothesis}\n{options}"),)
    assert pets.fs_noopt == (Template("fs_noopt_00", "{premise} / {hypothesis}"),)
    assert pets.formats == (FewShotFormat("fs_00", "Q: ", "A: ", "\n", "\n\n\n"),)


def test_inverted_prompts_come_without_options(checkout):
    more = """
PATTERNS["tone"] = [("{text} {options_}", "{answer}"),
                    ("Tones: {options_}. Write one: {answer}", "{text}"),
                    ("Tone {answer} ({options_})", "{text}\\n{options_}")]
FEWSHOT_PATTERNS["tone"] = [
    FewShotPattern(inputs="Be {answer} ({options_})", targets="{text}", x_y_delimiter=""),
    FewShotPattern(inputs="{text} | {options_}", targets="{answer}")]
"""
    tables = checkout / "flan/v2/templates.py"
    tables.write_text(tables.read_text() + more)
    tone = load_flan_tables(checkout)["tone"]
    assert [(t.inputs, t.targets) for t in tone.inv] == [
        ("Tones: . Write one: {answer}", "{text}"),
        ("Tone {answer} ()", "{text}"),
        ("Be {answer}", "{text}"),
    ]
    assert [t.inputs for t in tone.fs_noopt] == ["{text}"]
    branched = checkout / "flan/v2/flan_templates_branched.py"
    other = '[("{text}", "{answer}"), ("Write one: {answer}", "{text}"), ("{text}!", "{answer}")]'
    branched.write_text(branched.read_text() + f'PATTERNS["tone"] = {other}\n')
    tone = load_flan_tables(checkout)["tone"]
    # As the other file has it; where that asks for something else, with the options taken out.
    assert [t.inputs for t in tone.inv][:2] == ["Write one: {answer}", "Tone {answer} ()"]


def test_without_the_second_file_the_options_are_taken_out(checkout):
    (checkout / "flan/v2/flan_templates_branched.py").unlink()
    tables = load_flan_tables(checkout)
    pets = tables["pets"]
    assert pets.zs_noopt[1] == Template(
        "zs_noopt_01", "Look at the options.\n{premise} {hypothesis}\nSay:"
    )
    assert tables["record"].zs_noopt[0].inputs == "{passage}\n{query}\n\n"


def test_the_answer_s_field_is_found_or_told(checkout):
    tables = load_flan_tables(checkout)
    for key in ("mail", "post"):
        mail = tables[key]
        assert [t.inputs for t in mail.zs_noopt] == [
            "Name this mail: {body}",
            "{body}\nA name for it?",
        ]
        assert mail.inv == (Template("zs_02", "Write a mail named {answer}.", "{body}"),)
        assert mail.formats == STANDARD_FORMATS and not mail.zs_opt
    told = load_flan_tables(checkout, {"mail": {"body": "answer", "subject": "title"}})
    assert [t.inputs for t in told["mail"].zs_noopt] == ["Write a mail named {title}."]
    assert told["post"] == tables["post"]
    everywhere = load_flan_tables(checkout, {"": {"premise": "text"}})
    assert everywhere["pets"].input_fields == ("text", "hypothesis")


def test_chains_of_thought(checkout):
    sums = load_flan_tables(checkout)["sums"]
    assert sums.cot_noopt == (
        Template("zs_noopt_00", "{question}\nThink.", "{rationale}\nSo it is {answer}."),
    )
    assert sums.inv == (Template("zs_01", "Why is {answer} right?\n{question}", "{rationale}"),)
    assert sums.fs_noopt == (Template("fs_00", "{question}"),) and not sums.zs_noopt


def test_dialogs_get_a_drawn_style(checkout):
    sets = load_flan_tables(checkout)
    assert sets["talk"].input_fields == ("dialog",) and sets["talk"].dialog_field == "dialog"
    assert sets["talk"].inv == (Template("zs_01", "Before {answer}?", "{dialog}"),)
    assert sets["pets"].dialog_field == ""


def test_definitions_stand_above_all_examples(checkout, caplog):
    tables = load_flan_tables(checkout)
    rules = tables["rules"]
    assert rules.instructions == ("{definition}",)
    assert [layout.instruction for layout in rules.formats] == ["top"]
    assert rules.fs_noopt == (Template("fs_00", "{input}"),)
    assert "few-shot pattern with text below its examples: 1" in caplog.text


def test_unreadable_entries_are_counted(checkout, caplog):
    tables = load_flan_tables(checkout)
    assert "3 entries cannot be read" in caplog.text
    assert "stray brace: 1" in caplog.text
    assert "pattern with something else than texts: 1" in caplog.text
    assert "only_here" not in tables


def test_sets_render(checkout):
    class Characters:
        eos_id = 1

        def encode(self, text):
            return [ord(sign) for sign in text]

        def decode(self, ids):
            return "".join(map(chr, ids))

    tables = load_flan_tables(checkout)
    record = Record("1", {"premise": "A.", "hypothesis": "B"}, "yes", ("no", "yes"), 1)
    shot = Record("2", {"premise": "C.", "hypothesis": "D"}, "no", ("no", "yes"), 0)
    limits = {"max_inputs_tokens": 500, "max_targets_tokens": 50}
    made = render(
        record, tables["pets"], "fs_noopt", 1, [shot], frame=Frame(Characters()), **limits
    )
    assert isinstance(made, Rendered)
    assert made.inputs == "Q: C. / D\nA: no\n\n\nQ: A. / B\nA:" and made.targets == "yes"
    braces = Record("1", {"items": "1, 2"}, "x")
    made = render(braces, tables["set"], "zs_noopt", 1, frame=Frame(Characters()), **limits)
    assert isinstance(made, Rendered) and made.inputs == "Members: {1, 2}"


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*templates.py"):
        load_flan_tables(tmp_path)
    (tmp_path / "flan/v2").mkdir(parents=True)
    (tmp_path / "flan/v2/templates.py").write_text("PATTERNS = [1]\n")
    with pytest.raises(UserError, match="must be a checkout of google-research/FLAN"):
        load_flan_tables(tmp_path)


def write_tables(root, text):
    file = root / "flan/v2/templates.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_an_entry_that_cannot_be_read_is_counted_once(tmp_path, caplog):
    write_tables(tmp_path, 'PATTERNS = {"a": [("{0} {x}", "{answer}"), ("{x}", "{answer}")]}\n')
    tables = load_flan_tables(tmp_path)
    assert "1 entries cannot be read (stray brace: 1)" in caplog.text
    assert len(tables["a"].zs_noopt) == 1


@pytest.mark.parametrize(
    "expression",
    [
        '("a" * 9**9, "{answer}")',
        '(f"{x}" * 2, "{answer}")',
        '("%999999999d" % 1, "{answer}")',
        '__import__("os").abort()',
        '(lambda: open("x", "w"))()',
        "FewShotPattern(inputs=open('/dev/zero').read(), targets='{answer}')",
        "FewShotPattern(**{'inputs': '{x}', 'targets': '{answer}'})",
        "FewShotPattern(inputs='{x}')",
        '["{x}", "{answer}"]',
    ],
)
def test_only_literals_are_read_and_nothing_is_executed(tmp_path, expression, caplog):
    head = "class FewShotPattern:\n  inputs: str\n"
    write_tables(tmp_path, f'{head}PATTERNS = {{"a": [{expression}, ("{{x}}", "{{answer}}")]}}\n')
    tables = load_flan_tables(tmp_path)
    assert "1 entries cannot be read" in caplog.text
    assert [t.id for t in tables["a"].zs_noopt] == ["zs_noopt_01"]


def test_entries_that_are_no_lists_are_counted(tmp_path, caplog):
    write_tables(
        tmp_path,
        'PATTERNS = {"a": [("{x}", "{answer}")], **{}, "b": 1, 2: []}\n'
        'PATTERNS["c"] = PATTERNS["absent"]\nPATTERNS["d"] = PATTERNS["a"]\n',
    )
    tables = load_flan_tables(tmp_path)
    assert "entry that is no list of patterns: 4" in caplog.text
    assert list(tables) == ["a", "d"]


@pytest.mark.parametrize(
    "text", ["def (", "x = 1\0", "x = " + "(" * 3000, "x = " + "-" * 100_000 + "1"]
)
def test_files_that_are_no_python(tmp_path, text):
    write_tables(tmp_path, text)
    with pytest.raises(UserError, match="templates.py is not a Python file"):
        load_flan_tables(tmp_path)
