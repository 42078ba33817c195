import dataclasses

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.exemplars import FewShotFormat
from instruct.prompts.frame import Frame
from instruct.prompts.modes import COT_MODES, INVERTED_MODES, MODES, OBJECTIVES, TK_MODES
from instruct.prompts.options import match_option
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from instruct.prompts.template import Template, TemplateSet

TEMPLATES = TemplateSet(
    "demo",
    ("question",),
    context_fields=("task",),
    truncate_field="question",
    zs_opt=tuple(Template(f"opt_{i}", f"{i}) {{question}}\n{{options}}") for i in range(10)),
    zs_noopt=tuple(Template(f"plain_{i}", f"{i}) {{question}}\nReply:") for i in range(10)),
    inv=(
        Template("inverted", "Ask for {answer}.", "{question}", weight=3.0),
        Template("inverted_rare", "{rationale} What was asked?", "{question}"),
    ),
    cot_opt=(Template("chain_opt", "{question}\n{options}", "{rationale} So it is {answer}."),),
    cot_noopt=(Template("chain", "Think. {question}", "{rationale} So it is {answer}."),),
    fs_opt=(Template("shot_opt", "{question}\n{options}"),),
    fs_noopt=(Template("shot", "{question}"),),
    instructions=("{task}",),
    cot_instructions=("{task} Think first.",),
)
TOKENIZER = load_vocabulary("bytes")


def make_record(number: int, length: int = 0, options: bool = True) -> Record:
    text = f"which {{stone}} is number {number}?" + " more" * length
    return Record(
        f"r{number}",
        {"question": text, "task": "Name the stone."},
        "opal",
        ("agate", "opal", "pearl") if options else (),
        1 if options else -1,
        rationale="It {is} known.",
    )


RECORD = make_record(0)


def show(mode, key=1, exemplars=(), record=RECORD, templates=TEMPLATES, lengths=(900, 100), **more):
    return render(
        record,
        templates,
        mode,
        key,
        exemplars,
        frame=Frame(more.pop("tokenizer", TOKENIZER)),
        max_inputs_tokens=lengths[0],
        max_targets_tokens=lengths[1],
        **more,
    )


STRAIGHT = [mode for mode in MODES if mode not in (*INVERTED_MODES, *TK_MODES, *OBJECTIVES)]


@pytest.mark.parametrize("mode", STRAIGHT)
def test_every_mode_shows_the_question_and_reads_back(mode):
    exemplars = [make_record(n) for n in (1, 2)] if mode.startswith("fs_") else []
    for key in range(50):
        shown = show(mode, key, exemplars)
        assert isinstance(shown, Rendered)
        assert "which {stone} is number 0?" in shown.inputs
        assert shown.input_ids == [*TOKENIZER.encode(shown.inputs), 1]
        assert shown.target_ids == [*TOKENIZER.encode(shown.targets), 1]
        assert shown.num_exemplars == len(exemplars) == len(shown.exemplar_ids)
        if mode in COT_MODES:
            assert shown.targets.startswith("It {is} known. So it is ")
            assert shown.inputs.count("It {is} known.") == len(exemplars)
        if mode in ("zs_noopt", "fs_noopt"):
            assert shown.targets == "opal" and shown.options == () and "agate" not in shown.inputs
        else:
            assert set(shown.options) == {"agate", "opal", "pearl"}
            assert all(option in shown.inputs for option in shown.options)
            answer = shown.targets.removeprefix("It {is} known. So it is ").removesuffix(".")
            index = match_option(answer, shown.options, shown.markers)
            assert index == shown.answer_index and shown.options[index] == "opal"


def test_the_key_fixes_everything_and_draws_everything():
    exemplars = [make_record(n) for n in (1, 2)]
    first = [show("fs_opt", key, exemplars) for key in range(100)]
    assert first == [show("fs_opt", key, exemplars) for key in range(100)]
    assert len({shown.inputs for shown in first}) > 95
    assert len({shown.template_id for shown in first}) == len(TEMPLATES.formats)
    assert len({show("zs_opt", key).template_id for key in range(200)}) == 10
    assert {show("zs_opt", key).answer_index for key in range(50)} == {0, 1, 2}
    fixed = dataclasses.replace(TEMPLATES, shuffle_options=False)
    assert {show("zs_opt", key, templates=fixed).answer_index for key in range(50)} == {1}


@pytest.mark.parametrize("mode", ["zs_inv", "fs_inv"])
def test_inverted_modes_give_the_answer_and_ask_for_the_question(mode):
    exemplars = [make_record(n) for n in (1, 2)] if mode == "fs_inv" else []
    shown = [show(mode, key, exemplars) for key in range(1000)]
    assert all(s.inverted and s.targets == "which {stone} is number 0?" for s in shown)
    assert all(s.options == () and "agate" not in s.inputs for s in shown)
    rare = sum(s.template_id.startswith("inverted_rare") for s in shown)
    assert abs(rare - 250) < 60  # weights count
    common = next(s for s in shown if s.template_id.partition("+")[0] == "inverted")
    assert common.inputs.count("Ask for opal.") == 1 + len(exemplars)
    if exemplars:
        assert "which {stone} is number 1?" in common.inputs


def test_notes_follow_exemplars_and_never_the_query():
    noted = dataclasses.replace(TEMPLATES, exemplar_notes=("", "\nWhy: {rationale}"))
    shown = [show("fs_noopt", key, [make_record(1)], templates=noted) for key in range(100)]
    with_note = [s for s in shown if "Why: It {is} known." in s.inputs]
    assert 20 < len(with_note) < 80
    assert all(s.targets == "opal" and s.inputs.count("Why:") == 1 for s in with_note)


def test_dialogs_get_a_style_and_lose_their_oldest_turns():
    wording = TemplateSet(
        "talk",
        ("dialog",),
        truncate_field="dialog",
        dialog_field="dialog",
        zs_noopt=(Template("t", "What is said next?\n{dialog}"),),
    )
    turns = [f"turn number {n} with some words" for n in range(9)]
    record = Record("d", {"dialog": "\n".join(turns)}, "bye")
    shown = [show("zs_noopt", key, record=record, templates=wording) for key in range(60)]
    assert len({s.inputs for s in shown}) > 10
    assert all(turn in s.inputs for s in shown for turn in turns)
    short = show("zs_noopt", 3, record=record, templates=wording, lengths=(200, 50))
    assert short.truncated and len(short.input_ids) <= 200
    assert turns[0] not in short.inputs and turns[-1] in short.inputs


def test_braces_of_records_are_only_text():
    record = Record("b", {"question": "{answer} {0} {{x}}", "task": ""}, "{question}")
    shown = show("direct", record=record)
    assert "{answer} {0} {{x}}" in shown.inputs and shown.targets == "{question}"


def test_layout_and_instruction_of_a_few_shot_prompt():
    layout = FewShotFormat("f", "Q: ", "A: ", "\n", "\n--\n", "top")
    templates = dataclasses.replace(TEMPLATES, formats=(layout,))
    exemplars = [make_record(1), make_record(2)]
    shown = show("fs_noopt", 3, exemplars, templates=templates)
    assert shown.inputs == (
        "Name the stone.\n--\nQ: which {stone} is number 1?\nA: opal\n--\n"
        "Q: which {stone} is number 2?\nA: opal\n--\nQ: which {stone} is number 0?\nA:"
    )
    assert (shown.targets, shown.template_id) == ("opal", "shot+f")
    each = dataclasses.replace(layout, instruction="each")
    shown = show(
        "fs_noopt", 3, exemplars, templates=dataclasses.replace(templates, formats=(each,))
    )
    assert shown.inputs.count("Name the stone.\nQ: ") == 3
    query = dataclasses.replace(layout, instruction="query")
    shown = show(
        "fs_noopt", 3, exemplars, templates=dataclasses.replace(templates, formats=(query,))
    )
    assert shown.inputs.endswith("A: opal\n--\nName the stone.\nQ: which {stone} is number 0?\nA:")
    never = dataclasses.replace(layout, instruction="none")
    silent = dataclasses.replace(templates, formats=(never,))
    assert "Name" not in show("fs_noopt", 3, exemplars, templates=silent).inputs
    needed = dataclasses.replace(silent, instruction_required=True)
    assert show("fs_noopt", 3, exemplars, templates=needed).inputs.startswith("Name the stone.\n--")


def test_a_chain_of_thought_may_have_exemplars():
    shown = show("cot", 2, [make_record(1), dataclasses.replace(make_record(2), rationale="")])
    assert shown.exemplar_ids == ("r1",) and shown.template_id.startswith("chain_opt+")
    assert shown.inputs.count("It {is} known. So it is") == 1
    assert shown.targets.startswith("It {is} known. So it is")


def test_exemplars_are_never_the_query():
    twin = dataclasses.replace(RECORD, id="other")
    shown = show("fs_noopt", 1, [RECORD, twin, make_record(1)])
    assert shown.exemplar_ids == ("r1",)
    alone = show("fs_noopt", 1, [RECORD, twin])
    assert alone.num_exemplars == 0 and "+" not in alone.template_id


@pytest.mark.parametrize("key", range(40))
def test_too_long_prompts_lose_exemplars_first(key):
    exemplars = [make_record(1), make_record(2, length=200), make_record(3), make_record(4)]
    shown = show("fs_noopt", key, exemplars, lengths=(400, 50))
    assert isinstance(shown, Rendered) and len(shown.input_ids) <= 400
    assert not shown.truncated and RECORD.fields["question"] in shown.inputs
    # The long one is skipped; the others would have fitted without it.
    assert shown.exemplar_ids == ("r1", "r3", "r4")


def test_without_room_for_an_exemplar_the_zero_shot_prompt_is_used():
    shown = show("fs_opt", 4, [make_record(1), make_record(2)], lengths=(100, 50))
    assert shown.num_exemplars == 0 and shown.template_id.startswith("opt_")


@pytest.mark.parametrize("mode", ["zs_opt", "fs_noopt"])
def test_then_the_source_is_cut_and_nothing_else(mode):
    record = make_record(0, length=200)
    shown = show(mode, 5, [make_record(1)], record=record, lengths=(150, 50))
    assert shown.truncated and len(shown.input_ids) <= 150
    assert "which {stone} is number 0? more more" in shown.inputs
    assert shown.inputs.count("more") < 30 and shown.num_exemplars == 0
    if mode == "zs_opt":
        assert all(option in shown.inputs for option in shown.options)
    else:
        assert shown.inputs.endswith("\nReply:")


def test_text_of_several_bytes_is_cut_between_characters():
    record = Record("u", {"question": "größe 漢字 " * 100, "task": ""}, "ß")
    for limit in range(60, 90):
        shown = show("direct", 3, record=record, lengths=(limit, 20))
        assert shown.truncated and "\ufffd" not in shown.inputs
        assert len(shown.input_ids) <= limit


@pytest.mark.parametrize(
    ("mode", "change", "lengths", "reason"),
    [
        ("zs_opt", {"options": (), "answer_index": -1}, (900, 50), "no options"),
        ("fs_opt", {"options": (), "answer_index": -1}, (900, 50), "no options"),
        ("cot", {"rationale": ""}, (900, 50), "no rationale"),
        ("zs_noopt", {"fields": {"text": "x"}}, (900, 50), "no field 'question'"),
        ("zs_noopt", {}, (25, 50), "inputs too long"),
        ("zs_noopt", {"answer": "opal " * 20}, (900, 50), "targets too long"),
    ],
)
def test_what_cannot_be_rendered_says_why(mode, change, lengths, reason):
    record = dataclasses.replace(RECORD, **change)
    shown = show(mode, record=record, lengths=lengths)
    assert shown == Dropped(reason)


def test_nothing_is_cut_where_the_set_forbids_it():
    templates = dataclasses.replace(TEMPLATES, truncate_field="")
    record = make_record(0, length=200)
    assert show("zs_opt", record=record, templates=templates, lengths=(150, 50)) == Dropped(
        "inputs too long"
    )


def test_lengths_include_the_end_marker():
    full = show("zs_opt", 1)
    exact = (len(full.input_ids), len(full.target_ids))
    assert show("zs_opt", 1, lengths=exact) == full
    assert show("zs_opt", 1, lengths=(exact[0], exact[1] - 1)) == Dropped("targets too long")


def test_unknown_modes_and_empty_lists():
    with pytest.raises(UserError, match="unknown prompt mode 'zs'"):
        show("zs")
    bare = TemplateSet("bare", ("question",))
    assert show("zs_noopt", templates=bare) == Dropped("no zs_noopt templates")


class CountingTokenizer:
    eos_id = 1

    def __init__(self):
        self.calls = 0

    def encode(self, text):
        self.calls += 1
        return [3] * len(text)

    def decode(self, ids):
        return "x" * len(ids)


def test_tokenizer_is_called_once_for_each_side():
    counting = CountingTokenizer()
    for key in range(50):
        show("fs_opt", key, [make_record(1)], tokenizer=counting)
    assert counting.calls == 100
