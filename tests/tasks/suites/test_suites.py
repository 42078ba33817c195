"""The suites as a whole: what is registered, what the files of publishers become, golden prompts.

The texts of real files are not ours to keep: `real_prompts.json` has a hash of each first prompt,
the id of its template and its number of exemplars. It is written anew, from a folder of real
files, by `python -m tests.tasks.suites.test_suites FOLDER`.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from instruct.data.registry import find_spec, resolve, task_specs
from instruct.data.seqio.bridge import RecordTask, record_task
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from tasks import mixtures as _collection  # noqa: F401
from tasks.splits import leaks
from tasks.suites import bbh, mmlu
from tasks.suites import mixtures as _register  # noqa: F401
from tests.tasks.suites.made_up import MADE_UP, data_folder
from tests.tasks.suites_goldens import first_prompt, records_of
from tests.waiting import LIMIT_SECS
from tests.workspaces import workspace

REAL_PROMPTS = Path(__file__).parent / "real_prompts.json"
FAMILIES = (
    *("mmlu", "bbh", "mgsm", "gsm8k_test", "tydiqa", "xquad", "cot_eval", "dialogsum", "samsum"),
    *("held_in", "t0_held_out", "bias"),
)
SUITES = {
    "mmlu.direct": 57,
    "mmlu.zs_cot": 57,
    "bbh.cot": 27,
    "bbh.zs_direct": 27,
    "tydiqa": 8,
    "tydiqa.all": 9,
    "xquad": 12,
    "mgsm": 10,
    "mgsm.all": 11,
    "gsm8k.cot": 1,
    "gsm8k.zs_cot": 1,
    "held_in": 16,
    "cot_eval": 5,
    "cot_eval.zs": 5,
    "t0_held_out": 116,
    "dialogsum": 1,
    "samsum": 1,
    "bias": 3,
    "flan_held_out": 57 + 57 + 27 + 27 + 8 + 10,
    "niv2.test_default": 119,
}


def suite_specs():
    return [spec for spec in task_specs(workspace()).values() if spec.family in FAMILIES]


def eval_split(spec) -> str:
    return "test" if "test" in spec.splits else "validation"


def readable(spec, mode: str) -> bool:
    """Whether the files of a mode are in the data folder."""
    if spec.source.available(workspace()) is not None:
        return False
    try:
        spec.source.records(workspace(), spec.splits[eval_split(spec)])
        if spec.exemplar_split_of(mode):
            spec.source.records(workspace(), spec.splits[spec.exemplar_split_of(mode)])
    except UserError:
        return False
    return True


def real_prompts() -> dict[str, list]:
    """Leaf -> [hash of its first prompt and target, template, exemplars], for what is there."""
    found = {}
    for spec in suite_specs():
        for mode in spec.all_modes:
            if readable(spec, mode):
                _, shown = first_prompt(spec, mode, eval_split(spec))
                digest = hashlib.sha256(f"{shown.inputs}\0{shown.targets}".encode()).hexdigest()
                found[spec.leaf_name(mode)] = [digest[:16], shown.template_id, shown.num_exemplars]
    return found


def test_all_names_are_there():
    assert len(mmlu.subject_names()) == len(set(mmlu.subject_names())) == 57
    assert len(bbh.SUB_TASKS) == 27
    assert sum(row.records for row in bbh.SUB_TASKS) == 6_511
    for suite, count in SUITES.items():
        assert len(resolve(workspace(), suite).leaves) == count, suite
    assert [leaf.rate for leaf in resolve(workspace(), "bbh.cot").leaves] == pytest.approx(
        [1 / 27] * 27
    )
    names = {
        spec.category for spec in task_specs(workspace()).values() if spec.family == "t0_held_out"
    }
    assert len(names) == 11
    outside = {
        leaf.task
        for leaf in resolve(workspace(), "tydiqa").leaves + resolve(workspace(), "mgsm").leaves
    }
    assert not outside & {"tydiqa.english", "mgsm.en"}


@pytest.mark.slow
def test_registration_looks_at_no_file_and_is_fast():
    code = (
        "import time, tasks.mixtures, tasks.public\n"
        "import builtins, pathlib\n"
        "real, began = pathlib.Path.open, time.process_time()\n"
        "def refuse(path, *a, **k):\n"
        "    assert path.suffix == '.toml', path\n"
        "    return real(path, *a, **k)\n"
        "pathlib.Path.open = refuse\n"
        "import tasks.suites.mixtures\n"
        "print(time.process_time() - began)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 2.0  # 0.2 s of the processor


@pytest.mark.parametrize("suite", ["flan_held_out", "tydiqa.all", "mgsm.all"])
def test_suites_may_not_be_trained_on(suite):
    assert len(leaks(workspace(), suite)) == len(resolve(workspace(), suite).leaves)


def test_held_out_suites_do_not_make_other_data_sets_leak():
    assert leaks(workspace(), "flan2022") == []


def test_what_is_not_there_is_named_with_the_place_to_get_it(tmp_path):
    with data_folder(tmp_path):
        for name, file in (
            ("mmlu.virology", "mmlu/test/virology_test.csv"),
            ("bbh.navigate", "bbh/bbh/navigate.json"),
            ("mgsm.te", "mgsm/mgsm_te.tsv"),
            ("tydiqa.korean", "tydiqa/tydiqa-goldp-v1.1-dev.json"),
            ("xquad.el", "xquad/xquad.el.json"),
            ("cot_eval.asdiv", "asdiv/ASDiv.xml"),
            ("dialogsum.main", "dialogsum/dialogsum.test.jsonl"),
            ("bias.winogender", "winogender/all_sentences.tsv"),
        ):
            why = find_spec(workspace(), name).source.available(workspace())
            assert why is not None
            assert str(tmp_path / file) in why and "DATA_DIR" in why and "https://" in why
            assert find_spec(workspace(), name).source.fingerprint(workspace()) == "absent"
    with data_folder(MADE_UP):
        source = find_spec(workspace(), "mmlu.virology").source
        assert source.available(workspace()) is None and source.fingerprint(workspace()) != "absent"
        with pytest.raises(UserError, match="virology_val.csv"):
            source.records(workspace(), "validation")
        with pytest.raises(UserError, match="no prompt of subject 'virology'"):
            list(source.records(workspace(), "dev_cot"))


def test_rows_that_are_no_examples_are_counted():
    with data_folder(MADE_UP):
        items = list(find_spec(workspace(), "mmlu.astronomy").source.records(workspace(), "test"))
        reasons = [item.reason for item in items if isinstance(item, Dropped)]
        assert reasons == ["line does not have 6 columns", "the answer is none of A, B, C, D"]
        items = list(
            find_spec(workspace(), "mmlu.astronomy").source.records(workspace(), "dev_cot")
        )
        assert [type(item) for item in items] == [Record, Record, Dropped]
        items = list(
            find_spec(workspace(), "bbh.date_understanding").source.records(workspace(), "test")
        )
        assert [type(item) for item in items] == [Record, Record, Dropped]
        lost = items[1]
        assert isinstance(lost, Record) and (lost.answer, lost.options) == ("2 May", ())


def test_numbers_and_letters_are_the_same_answers(tmp_path):
    (tmp_path / "mmlu" / "test").mkdir(parents=True)
    path = tmp_path / "mmlu" / "test" / "virology_test.csv"
    path.write_text("Which?,w,x,y,z,D\n")
    with data_folder(tmp_path):
        (record,) = records_of(find_spec(workspace(), "mmlu.virology"), "test")
    path.write_text("question,choice0,choice1,choice2,choice3,answer\nWhich?,w,x,y,z,3\n")
    with data_folder(tmp_path):
        assert records_of(find_spec(workspace(), "mmlu.virology"), "test") == [record]
    assert record.answer == "z" and record.answer_index == 3


def test_rows_of_other_formats_that_are_no_examples():
    reasons = {
        ("mgsm.de", "test"): ["line is not a question, a tab and a number"],
        ("gsm8k_test.gsm8k", "test"): ["answer has no '####'"],
        ("xquad.en", "test"): ["empty passage, question or answer"],
        ("cot_eval.commonsense_qa", "validation"): [
            "line is not a question with choices and an answer"
        ],
        ("cot_eval.asdiv", "test"): ["answer is not one number"],
        ("dialogsum.main", "test"): ["line is not a dialogue with a summary"],
        ("bias.real_toxicity_prompts", "test"): ["empty prompt or continuation"],
        ("bias.winogender", "test"): ["line is not an id and a sentence with a pronoun"],
    }
    with data_folder(MADE_UP):
        for (name, split), expected in reasons.items():
            items = list(find_spec(workspace(), name).source.records(workspace(), split))
            assert [item.reason for item in items if isinstance(item, Dropped)] == expected, name
        with pytest.raises(UserError, match="no exemplars of language 'sw'"):
            list(find_spec(workspace(), "mgsm.sw").source.records(workspace(), "exemplars"))


def test_exemplars_of_mgsm_are_parsed_and_never_run(tmp_path):
    (tmp_path / "mgsm").mkdir()
    text = (MADE_UP / "mgsm" / "exemplars.py").read_text()
    (tmp_path / "mgsm" / "exemplars.py").write_text(text + "raise SystemExit\n")
    with data_folder(tmp_path):
        assert len(records_of(find_spec(workspace(), "mgsm.fr"), "exemplars")) == 2
    (tmp_path / "mgsm" / "exemplars.py").write_text("MGSM_EXEMPLARS = open('x')\n")
    with data_folder(tmp_path), pytest.raises(UserError, match="published form"):
        list(find_spec(workspace(), "mgsm.fr").source.records(workspace(), "exemplars"))


def test_both_forms_of_mgsms_exemplars_give_the_same(tmp_path, shared_data):
    values = json.loads((shared_data / "mgsm" / "exemplars.json").read_text())
    (tmp_path / "mgsm").mkdir()
    module = (
        f"EXEMPLAR_NUMBER_ANSWERS = {values['number_answers']!r}\n"
        f"MGSM_EXEMPLARS = {values['exemplars']!r}\n"
    )
    (tmp_path / "mgsm" / "exemplars.py").write_text(module)
    with data_folder(shared_data):
        expected = records_of(find_spec(workspace(), "mgsm.es"), "exemplars")
    with data_folder(tmp_path):
        assert records_of(find_spec(workspace(), "mgsm.es"), "exemplars") == expected


def test_held_in_is_asked_in_one_wording_on_the_public_validation_sets():
    for leaf in resolve(workspace(), "held_in").leaves:
        spec = leaf.spec
        assert spec is not None
        base = find_spec(workspace(), spec.name.replace("held_in", "flan2021"))
        assert spec.source.splits == ("train", "validation")
        assert spec.templates.zs_opt == base.templates.zs_opt[:1]
        assert spec.group == base.group and spec.metric_fns == base.metric_fns
        record = Record(
            "1", dict.fromkeys(base.templates.input_fields, "text"), "no", ("yes", "no"), 1
        )
        texts = set()
        for key in range(20):
            shown = render(
                record,
                spec.templates,
                "zs_opt",
                key,
                frame=Frame(load_vocabulary("bytes")),
                max_inputs_tokens=1000,
                max_targets_tokens=100,
            )
            assert isinstance(shown, Rendered)
            assert "Options:\n- yes\n- no" in shown.inputs
            texts.add(shown.inputs)
        assert len(texts) == 1


MMLU_TEST = {"abstract_algebra": 100, "college_medicine": 173, "high_school_us_history": 204}


@pytest.mark.slow
def test_seqio_gets_the_same_prompts(monkeypatch):
    monkeypatch.setattr(RecordTask, "workspace", workspace(data_dir=MADE_UP))
    with data_folder(MADE_UP):
        for leaf in ("bbh.date_understanding.direct", "mmlu.astronomy.cot", "xquad.en.direct"):
            name, _, mode = leaf.rpartition(".")
            task = record_task(find_spec(workspace(), name), mode)
            dataset = task.get_dataset(
                {"inputs": 40_000, "targets": 2_000}, split="test", shuffle=False
            )
            (example,) = dataset.take(1).as_numpy_iterator()
            record, shown = first_prompt(find_spec(workspace(), name), mode, "test")
            assert example["inputs_pretokenized"].decode() == shown.inputs
            assert example["id"].decode() == record.id
            target = task.postprocess_fn(shown.targets, example=example, is_target=True)
            read = task.postprocess_fn(
                "The answer is (C)." if mode == "cot" else shown.targets,
                example=example,
                is_target=False,
            )
            scores = task.predict_metric_fns[0](targets=[target], predictions=[read])
            assert set(scores.values()) == {100.0}


def test_real_files_have_the_published_numbers(shared_data):
    with data_folder(shared_data):
        for subject, count in MMLU_TEST.items():
            spec = find_spec(workspace(), f"mmlu.{subject}")
            assert len(records_of(spec, "test")) == count
            assert len(records_of(spec, "dev")) == 5
        for row in bbh.SUB_TASKS:
            spec = find_spec(workspace(), f"bbh.{row.name}")
            if spec.source.available(workspace()) is None:
                items = list(spec.source.records(workspace(), "test"))
                assert len(items) == row.records
                assert all(isinstance(item, Record) for item in items)
                assert len(records_of(spec, "exemplars")) == 3


OTHER_COUNTS = {
    ("mgsm.de", "test"): 250,
    ("mgsm.ja", "test"): 250,
    ("mgsm.es", "exemplars"): 8,
    ("gsm8k_test.gsm8k", "test"): 1_319,
    ("xquad.en", "test"): 1_190,
    ("xquad.es", "test"): 1_190,
    ("dialogsum.main", "test"): 500,
    ("dialogsum.main", "validation"): 500,
}


def test_other_real_files_have_the_published_numbers_too(shared_data):
    with data_folder(shared_data):
        for (name, split), count in OTHER_COUNTS.items():
            items = list(find_spec(workspace(), name).source.records(workspace(), split))
            assert len(items) == count and all(isinstance(item, Record) for item in items), name
        for record in records_of(find_spec(workspace(), "dialogsum.main"), "test"):
            assert len(record.references) == 3
        held_back = records_of(find_spec(workspace(), "cot_eval.strategyqa"), "test")
        trained_on = records_of(find_spec(workspace(), "cot.strategyqa"), "train")
        asked = {record.fields["question"] for record in trained_on}
        assert len(held_back) > 150 and len(held_back) + len(trained_on) == 2_061
        assert not any(record.fields["question"] in asked for record in held_back)


@pytest.mark.parametrize("name", ["bbh", "mgsm", "gsm8k_test"])
def test_published_reasoning_is_read_as_its_answer(shared_data, name):
    """What the exemplars write is what models will write."""
    read = 0
    with data_folder(shared_data):
        for spec in suite_specs():
            if spec.family != name or not readable(spec, "cot"):
                continue
            assert spec.postprocess_fn is not None
            for record in records_of(spec, "exemplars"):
                example = {"template": b"cot", "options": record.options}
                reply = spec.postprocess_fn(record.rationale, example=example, is_target=False)
                right = spec.postprocess_fn(record.answer, example=example, is_target=True)
                assert reply == right != "", record.id
                read += 1
    assert read >= 8


def test_prompts_of_bbh_are_the_published_ones(shared_data):
    with data_folder(shared_data):
        for path in sorted((shared_data / "bbh" / "cot-prompts").glob("*.txt")):
            _, shown = first_prompt(find_spec(workspace(), f"bbh.{path.stem}"), "cot", "test")
            published = path.read_text(encoding="utf-8").partition("-----\n")[2].rstrip()
            assert shown.inputs.startswith(published + "\n\nQ: ")


@pytest.mark.slow
def test_first_prompts_of_real_files(shared_data):
    expected = json.loads(REAL_PROMPTS.read_text())
    with data_folder(shared_data):
        found = real_prompts()
    assert {name: value for name, value in found.items() if expected.get(name) != value} == {}
    assert set(found) == set(expected) and len(found) > 100


def test_the_whole_protocol_on_replies():
    """A right and a wrong reply through postprocess_fn and metric_fns, as evaluation calls them."""
    from instruct.data.feed.rendering import example_features

    with data_folder(MADE_UP):
        for name, mode, right in (
            ("mmlu.astronomy", "direct", "C"),
            ("mmlu.astronomy", "cot", "One moon circles it. The answer is (C)."),
            ("bbh.date_understanding", "direct", "(A)"),
            ("bbh.date_understanding", "cot", "May has 31 days. So the answer is (A)."),
            ("bbh.dyck_languages", "cot", "So the answer is ) }."),
        ):
            spec = find_spec(workspace(), name)
            record, shown = first_prompt(spec, mode, "test")
            example = example_features(record, shown)
            assert spec.postprocess_fn is not None
            target = spec.postprocess_fn(shown.targets, example=example, is_target=True)
            for reply, score in ((right, 100.0), ("So the answer is (Q).", 0.0), ("", 0.0)):
                read = spec.postprocess_fn(reply, example=example, is_target=False)
                assert spec.metric_fns[0]([target], [read]) == {"exact_match": score}
                strict = {"strict_match": score} if mode == "cot" else {}
                assert spec.metric_fns[1]([target], [read]) == strict


if __name__ == "__main__":
    with data_folder(Path(sys.argv[1])):
        made = real_prompts()
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in made.items())
    REAL_PROMPTS.write_text(f"{{\n{lines}\n}}\n")
