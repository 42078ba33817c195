"""The checkout here has the public files' structure, keys and fields; its texts are made up."""

import collections
import dataclasses
import logging
import os
import subprocess
import sys

import pytest

from instruct.data.feed.rendering import example_features
from instruct.data.registry import find_spec, registered_specs, resolve
from instruct.errors import UserError
from instruct.prompts import flan_tables
from instruct.prompts.render import Rendered
from instruct.prompts.template import LISTS, placeholders
from tasks import cot, mixtures  # noqa: F401 (registers)
from tasks.dialog import family as dialog
from tasks.flan2021 import family as flan2021
from tasks.flan2021 import original_wording
from tasks.flan2021.table import TASKS
from tasks.gym import mixtures as gym_mixtures  # noqa: F401 (registers)
from tasks.niv2 import family as niv2
from tasks.niv2.table import niv2_rows
from tasks.program_synthesis import family as program_synthesis
from tests.tasks import cot_goldens
from tests.tasks.dialog import goldens as dialog_goldens
from tests.tasks.flan2021 import goldens as flan2021_goldens
from tests.tasks.flan_checkout import KEYS, STRAIGHT_ONLY, tables_text
from tests.tasks.niv2.goldens import made_up_records
from tests.tasks.program_synthesis import goldens as synthesis_goldens
from tests.tasks.shown_prompts import rendered
from tests.workspaces import workspace

FAMILIES = ("flan2021", "cot", "dialog", "program_synthesis", "niv2")


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "FLAN"
    (folder / "flan/v2").mkdir(parents=True)
    (folder / flan_tables.TABLES_FILE).write_text(tables_text())
    return folder


def worded(checkout, spec):
    """A task as a workspace with the checkout words it."""
    return spec.within(workspace(flan_checkout=checkout))


def flan2021_task(checkout, row):
    return worded(checkout, flan2021.flan2021_task(row))


def read_again():
    original_wording._tables.cache_clear()
    original_wording.original_set.cache_clear()


def specs_and_records(checkout):
    """(task, records, pool of exemplars, lengths) of every task; of niv2 one."""
    for row in TASKS.values():
        made = [r for r in flan2021_goldens.records()[row.id] if all(r.fields.values())]
        yield flan2021_task(checkout, row), made, None, (200_000, 50_000)
    for row in cot.SETS:
        yield worded(checkout, cot.cot_task(row)), cot_goldens.records()[row.id], None, (1000, 300)
    for spec in dialog.SPECS:
        records = dialog_goldens.records()[spec.name]
        yield worded(checkout, spec), records, None, (1000, 300)
    for spec in program_synthesis.SPECS:
        records = synthesis_goldens.records()[spec.dataset]
        yield worded(checkout, spec), records, None, synthesis_goldens.LENGTHS
    row = next(iter(niv2_rows().values()))
    yield worded(checkout, niv2.niv2_task(row)), *made_up_records(row), (1000, 300)


# ---------------------------------------------------------------- the table


def test_every_task_of_the_families_is_in_the_table_once():
    found = collections.Counter(name.partition(".")[0] for name in original_wording.COUNTERPARTS)
    assert found == {
        "flan2021": len(TASKS),
        "cot": len(cot.SETS),
        "dialog": len(dialog.SPECS),
        "program_synthesis": len(program_synthesis.SPECS),
        "niv2": 1,
    }
    assert set(FAMILIES) == set(found)
    assert {part.key for part in original_wording.COUNTERPARTS.values()} == set(KEYS)


def test_our_names_are_fields_of_the_records():
    for row in TASKS.values():
        ours = flan2021.template_sets()[row.templates]
        part = original_wording.COUNTERPARTS[f"flan2021.{row.id}"]
        known = {*ours.input_fields, *ours.context_fields, "answer"}
        assert set(part.fields.values()) <= known, row.id


def test_every_task_is_worded_as_the_checkout_does(checkout, caplog):
    with caplog.at_level(logging.WARNING):
        found = list(specs_and_records(checkout))
    assert not caplog.records  # no placeholder without a field of ours
    assert len(found) == len(TASKS) + 9 + 3 + 5 + 1
    table = original_wording.COUNTERPARTS
    for spec, records, pool, lengths in found:
        part = table.get(spec.name) or table[spec.family]
        assert spec.templates.name == f"flan_v2:{part.key}"
        for mode in spec.modes:
            for number in range(4):
                example = rendered(spec, mode, number, records, pool, lengths)
                assert isinstance(example, Rendered), (spec.name, mode, example)
                head, _, layout = example.template_id.partition("+")
                assert head.startswith(("zs_", "fs_", "ii_")), (spec.name, mode, head)
                own = records[number % len(records)]
                if mode in ("zs_noopt", "fs_noopt", "cot", "fs_cot"):
                    assert spec.family == "dialog" or all(
                        value in example.inputs
                        for name, value in own.fields.items()
                        if name not in ("activity", "premise_open", "language")
                    ), (spec.name, mode, example.inputs)
                if mode.startswith("fs_") and mode != "fs_inv" and example.num_exemplars:
                    assert layout.startswith("fs_") and "Out:" in example.inputs


def test_answers_are_read_from_flans_targets(checkout):
    for row in cot.SETS:
        spec = worded(checkout, cot.cot_task(row))
        assert spec.templates.closing_phrases == (("Hence:", "."),)
        records = cot_goldens.records()[row.id]
        for number in range(6):
            example = rendered(spec, "cot", number, records)
            assert isinstance(example, Rendered) and spec.postprocess_fn is not None
            features = example_features(records[number % len(records)], example)
            read = spec.postprocess_fn(example.targets, example=features, is_target=False)
            right = spec.postprocess_fn(example.targets, example=features, is_target=True)
            assert read == right


# ---------------------------------------------------------------- fitted to our records


def test_inversions_come_from_flan_alone(checkout):
    for row in TASKS.values():
        spec = flan2021_task(checkout, row)
        key = spec.templates.name.removeprefix("flan_v2:")
        assert ("zs_inv" in spec.modes) == (key not in STRAIGHT_ONLY)
        assert all("options" not in placeholders(t.inputs) for t in spec.templates.inv)
    gsm8k = worded(checkout, cot.cot_task(cot.SETS[0])).templates
    assert [(t.id, set(placeholders(t.targets))) for t in gsm8k.inv] == [
        ("ii_zs_00", {"question"}),
        ("ii_zs_01", {"question", "rationale"}),
    ]
    # Flan has no plain answers for these sets; ours stay for the mode outside of the mixtures.
    assert gsm8k.zs_noopt == cot.templates().zs_noopt


def test_options_stand_where_flans_questions_had_them(checkout):
    found = worded(checkout, cot.cot_task(cot.SETS[2])).templates
    assert [t.inputs for t in found.cot_opt] == [
        "Mull over {question}\n{options}",
        "{question}\n{options}!",
    ]
    assert [t.inputs for t in found.fs_opt] == ["{question}\n{options}"]
    assert [t.inputs for t in found.cot_noopt] == ["Mull over {question}", "{question}!"]


def test_question_marks_that_the_records_have_are_not_doubled(checkout):
    tables = checkout / flan_tables.TABLES_FILE
    text = tables.read_text()
    tables.write_text(
        text
        + 'PATTERNS["bool_q"] = [("{text} So {question}? {{x}}", "{answer}")]\n'
        + 'PATTERNS["trivia_qa"] = [("{question}???", "{answer}")]\n'
    )
    read_again()
    bool_q = flan2021_task(checkout, TASKS["bool_q"]).templates
    assert [t.inputs for t in bool_q.zs_noopt] == ["{text} So {question} {{x}}"]
    trivia_qa = flan2021_task(checkout, TASKS["trivia_qa"]).templates
    assert [t.inputs for t in trivia_qa.zs_noopt] == ["{question}???"]


def test_an_error_message_stands_below_the_program(checkout):
    specs = {spec.dataset: worded(checkout, spec) for spec in program_synthesis.SPECS}
    numbered = specs["dr_repair_line_numbers"].templates
    assert numbered.zs_noopt[0].inputs == "Mull over {code}\n{error}"
    assert numbered.inv[0].targets == "{code}"
    assert specs["dr_repair_plain_code"].templates.zs_noopt[0].inputs == "Mull over {code}"
    assert specs["code_contests"].templates.zs_noopt[0].inputs == "Mull over {description}"


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("wmt16_translate_fien", "{source_language} ~ {target_language} ~ {source}"),
        ("para_crawl_enes", "{source_language} ~ {target_language} ~ {source}"),
        ("wnli", "{premise} ~ {hypothesis}"),
        ("anli_r2", "{premise} ~ {hypothesis}"),
        ("common_gen", "{concepts} ~ {concepts}"),
        ("opinion_abstracts_idebate", "{debate_name} ~ {arguments}"),
    ],
)
def test_fields_get_our_names(checkout, task, inputs):
    found = flan2021_task(checkout, TASKS[task]).templates
    assert found.zs_noopt[0].inputs == f"Mull over {inputs}"
    assert {t.targets for t in found.zs_noopt} == {"{answer}"}


def test_what_is_about_our_records_stays_ours(checkout):
    stsb = flan2021_task(checkout, TASKS["stsb"]).templates
    assert not stsb.shuffle_options and stsb.input_fields == ("sentence1", "sentence2")
    aeslc = flan2021_task(checkout, TASKS["aeslc"]).templates
    assert aeslc.truncate_field == "body"
    row = next(iter(niv2_rows().values()))
    found = worded(checkout, niv2.niv2_task(row)).templates
    assert found.instruction_required and found.context_fields == ("definition",)
    assert found.instructions == ("Rule: {definition}",)
    assert [t.inputs for t in found.fs_noopt] == ["{input}"]


# ---------------------------------------------------------------- what is not there


def test_unknown_fields_are_left_out_and_counted(checkout, caplog):
    tables = checkout / flan_tables.TABLES_FILE
    extra = '[("{premise} {mood}", "{answer}"), ("{premise} {hypothesis}", "{answer}")]'
    tables.write_text(tables.read_text() + f'PATTERNS["rte"] = {extra}\n')
    read_again()
    found = flan2021_task(checkout, TASKS["rte"]).templates
    assert [t.inputs for t in found.zs_noopt] == ["{premise} {hypothesis}"]
    (record,) = caplog.records
    assert "flan_v2:rte, wordings of flan2021.rte: 1 left out (no field mood: 1)" in record.message


def test_a_key_that_is_missing_keeps_our_wordings(checkout, caplog):
    tables = checkout / flan_tables.TABLES_FILE
    tables.write_text(tables.read_text().replace("'squad_v1'", "'squad_v9'"))
    read_again()
    spec = flan2021_task(checkout, TASKS["squad_v1"])
    assert spec.templates is flan2021.template_sets()["span_answer"]
    assert "no patterns 'squad_v1': flan2021.squad_v1 keeps" in caplog.text


def test_few_shot_layouts_stay_ours_where_flan_has_none(checkout):
    tables = checkout / flan_tables.TABLES_FILE
    tables.write_text(tables.read_text() + 'FEWSHOT_PATTERNS["rte"] = []\n')
    read_again()
    ours = flan2021.template_sets()["nli_two_way"]
    found = flan2021_task(checkout, TASKS["rte"]).templates
    for name in ("fs_opt", "fs_noopt", "formats", "instructions"):
        assert getattr(found, name) == getattr(ours, name)
    assert found.zs_opt != ours.zs_opt


def test_without_a_checkout_nothing_changes():
    for spec in registered_specs().values():
        if spec.family in FAMILIES:
            assert spec.within(workspace()) is spec


def test_a_task_that_flan_does_not_have_keeps_its_wordings(checkout):
    spec = dataclasses.replace(cot.cot_task(cot.SETS[0]), name="gym.chain_sum", family="gym")
    assert worded(checkout, spec) is spec
    assert any(getattr(spec.templates, name) for name in LISTS)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        flan2021_task(tmp_path / "nothing", TASKS["rte"])
    for part in ("FLAN_CHECKOUT", str(tmp_path), "flan/v2/templates.py", "git clone"):
        assert part in str(caught.value)


# ---------------------------------------------------------------- the workspace


def test_two_workspaces_word_the_same_tasks_in_their_own_ways(checkout):
    flans, ours = workspace(flan_checkout=checkout), workspace()
    niv2_task = next(iter(niv2_rows().values())).name
    for task in ("flan2021.mnli_matched", "cot.aqua", "dialog.qrecc", niv2_task):
        assert find_spec(flans, task).templates.name.startswith("flan_v2:")
        assert not find_spec(ours, task).templates.name.startswith("flan_v2:")
    assert find_spec(flans, "cot.aqua").postprocess_fn != find_spec(ours, "cot.aqua").postprocess_fn
    assert find_spec(flans, "gym.chain_sum") is find_spec(ours, "gym.chain_sum")


def test_modes_that_flan_has_no_wording_for_have_no_share(checkout):
    flans, ours = workspace(flan_checkout=checkout), workspace()
    with pytest.raises(UserError, match=r"flan2021\.mnli_matched\.zs_inv"):
        resolve(flans, "flan2021.mnli_matched.zs_inv")
    assert resolve(ours, "flan2021.mnli_matched.zs_inv").leaves[0].rate == 1.0
    for name in ("flan2021.mnli_matched", "flan2021"):
        leaves = {leaf.name: leaf for leaf in resolve(flans, name).leaves}
        assert sum(leaf.rate for leaf in leaves.values()) == pytest.approx(1.0)
        assert "flan2021.mnli_matched.zs_inv" not in leaves
        assert leaves["flan2021.mnli_matched.zs_opt"].spec.templates.name == "flan_v2:mnli"
        assert "flan2021.mnli_matched.zs_inv" in {leaf.name for leaf in resolve(ours, name).leaves}


@pytest.mark.slow
def test_a_run_with_the_setting_has_flans_wordings(checkout):
    """A fresh process, as a user starts it."""
    script = (
        "import argparse, os\n"
        "from instruct.cli import settings\n"
        "from instruct.data.registry import find_spec\n"
        "os.environ.pop('INSTRUCT_FLAN_CHECKOUT', None)\n"
        f"flags = argparse.Namespace(gin_file=[], gin_bindings=[], "
        f'gin_flags=["--gin.FLAN_CHECKOUT={checkout}"])\n'
        "workspace, _ = settings.load(flags)\n"
        "for task in ('flan2021.mnli_matched', 'cot.aqua', 'dialog.qrecc', 'gym.chain_sum'):\n"
        "    print(find_spec(workspace, task).templates.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ
    )
    names = done.stdout.split()
    assert names[:3] == ["flan_v2:mnli", "flan_v2:stream_aqua", "flan_v2:qrecc"]
    assert not names[3].startswith("flan_v2:")
