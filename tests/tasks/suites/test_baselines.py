"""Baselines of the suites against counts of the publishers' files, made without our readers."""

import collections
import csv
import json
import re

import pytest

from instruct.data import registry
from instruct.data.config import DataConfig
from instruct.data.feed.examples import eval_examples
from instruct.data.stores.prepare import prepare
from instruct.eval import task_rows
from instruct.eval.scoring.measure import measure
from instruct.eval.suite_run import fixed_replies
from tasks.suites import mixtures as _register  # noqa: F401
from tests.data.toy import eval_config
from tests.tasks.suites.made_up import data_folder
from tests.workspaces import workspace

LENGTHS = {"inputs": 2048, "targets": 512}


def baselines(folder, name, split="test"):
    """(majority, random) baseline of every metric of a leaf, over a whole split."""
    config = DataConfig(name, LENGTHS, batch_size=1, vocabulary="gym")
    resolved = registry.resolve(workspace(), name)
    (leaf,) = resolved.leaves
    with data_folder(folder):
        prepare(workspace(), resolved, config, (split,)).check()
    examples = eval_examples(workspace(), leaf, split, eval_config(LENGTHS, "gym"))
    task = registry.scored_task(workspace(), name)
    replies = fixed_replies(workspace(), leaf, split, config, examples)
    targets, predictions = (
        [task.postprocess_fn(e.targets, example=e.seqio_example, is_target=side) for e in examples]
        for side in (True, False)
    )
    measured = {}
    for fn in task.predict_metric_fns:
        measured |= measure(fn, targets, {"predictions": predictions}, 0)
    return task_rows.baselines(task, examples, replies, measured), len(examples)


def share(counts):
    return 100 * max(counts.values()) / counts.total()


@pytest.mark.slow
def test_bbh_is_the_most_frequent_target_of_its_file(shared_data):
    names = ["snarks", "navigate", "sports_understanding", "date_understanding", "object_counting"]
    for name in names:
        content = json.loads((shared_data / "bbh" / "bbh" / f"{name}.json").read_text())
        rows = content["examples"]
        expected = share(collections.Counter(row["target"] for row in rows))
        for mode in ("cot", "direct", "zs_cot", "zs_direct"):
            (majority, chance), count = baselines(shared_data, f"bbh.{name}.{mode}")
            assert count == len(rows)
            assert majority["exact_match"] == pytest.approx(expected), (name, mode)
            if name == "snarks":
                options = [len(re.findall(r"^\([A-Z]\)", row["input"], re.M)) for row in rows]
                right = [100 / n * (row["target"] in row["input"]) for n, row in zip(options, rows)]
                assert chance["exact_match"] == pytest.approx(sum(right) / len(rows))
            elif name == "object_counting":
                assert chance == {}
            if "cot" in mode:
                assert majority["strict_match"] == pytest.approx(expected)


def test_mmlu_is_the_most_frequent_letter_of_its_file(shared_data):
    for subject in ("abstract_algebra", "public_relations", "college_medicine"):
        with (shared_data / "mmlu" / "test" / f"{subject}_test.csv").open(newline="") as stream:
            answers = [row[-1] for row in csv.reader(stream) if row[-1] != "answer"]
        expected = share(collections.Counter(answers))
        assert expected > 25
        for mode in ("direct", "zs_direct", "zs_cot"):
            (majority, chance), count = baselines(shared_data, f"mmlu.{subject}.{mode}")
            assert count == len(answers)
            assert majority["exact_match"] == pytest.approx(expected), (subject, mode)
            assert chance["exact_match"] == pytest.approx(25.0)


@pytest.mark.slow
def test_numbers_are_the_most_frequent_ones(shared_data):
    for code in ("de", "ja"):
        text = (shared_data / "mgsm" / f"mgsm_{code}.tsv").read_text(encoding="utf-8")
        numbers = [line.split("\t")[1].replace(",", "") for line in text.splitlines()]
        for mode in ("cot", "zs_cot"):
            (majority, chance), _ = baselines(shared_data, f"mgsm.{code}.{mode}")
            expected = share(collections.Counter(numbers))
            assert majority["exact_match"] == pytest.approx(expected)
            assert chance == {}
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"].rpartition("#### ")[2].replace(",", "") for line in lines]
    for mode in ("cot", "zs_cot", "zs_direct"):
        (majority, _), _ = baselines(shared_data, f"gsm8k_test.gsm8k.{mode}")
        expected = share(collections.Counter(answers))
        assert majority["exact_match"] == pytest.approx(expected), mode


def test_spans_are_the_most_frequent_one(shared_data):
    content = json.loads((shared_data / "xquad" / "xquad.es.json").read_text(encoding="utf-8"))
    spans = [
        question["answers"][0]["text"].strip()
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    (majority, chance), count = baselines(shared_data, "xquad.es.direct")
    assert count == len(spans)
    # SQuAD's exact match knows no case and no punctuation, so it may count a few more.
    assert majority["em"] >= share(collections.Counter(spans)) > 0
    assert majority["em"] < 1 and chance == {}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cot", "zs_cot"])
def test_reasoned_labels_and_options(shared_data, mode):
    rows = (shared_data / "cot" / "strategyqa_train.tsv").read_text(encoding="utf-8").splitlines()
    yes = sum(row.split("\t")[1].strip().lower() == "yes" for row in rows) / len(rows)
    (majority, _), count = baselines(shared_data, f"cot_eval.strategyqa.{mode}")
    # The suite has a tenth of the file.
    assert majority["exact_match"] == pytest.approx(100 * max(yes, 1 - yes), abs=8)
    assert majority["exact_match"] >= 50 and count > 150
    (majority, chance), count = baselines(shared_data, f"cot_eval.ecqa.{mode}")
    assert chance["exact_match"] == pytest.approx(20, abs=1)
    assert chance["exact_match"] <= majority["exact_match"] < 30  # a letter, no option's text


@pytest.mark.parametrize(
    ("name", "mode", "reply"),
    [
        ("mmlu.virology", "cot", "The answer is (B)."),
        ("mmlu.virology", "direct", "B"),
        ("bbh.navigate", "zs_cot", "So the answer is B."),
        ("mgsm.ja", "cot", "答えはBです。"),
        ("mgsm.sw", "zs_cot", "Jibu ni B."),
        ("gsm8k_test.gsm8k", "zs_direct", "B"),
        ("cot_eval.asdiv", "cot", "The answer is B."),
        ("cot_eval.ecqa", "cot", "So the answer is B"),  # the closing phrase of its templates
        ("dialogsum.main", "zs_noopt", "B"),
    ],
)
def test_a_reply_has_the_form_that_is_read(name, mode, reply):
    assert registry.find_spec(workspace(), name).reply(mode, "B") == reply


def test_every_reasoned_mode_reads_its_own_form():
    """What gives the right answer and nothing else is right, in all suites."""
    checked = 0
    for spec in registry.task_specs(workspace()).values():
        for mode in spec.all_modes:
            if spec.postprocess_fn is None or mode not in ("cot", "zs_cot"):
                continue
            if spec.family not in ("mmlu", "bbh", "mgsm", "gsm8k_test", "cot_eval"):
                continue
            answer, example = "7", {"template": b"cot", "answer": b"7", "answer_index": 1}
            if spec.family == "mmlu":
                answer = "B"
                example |= {"options": [b"4", b"5"], "markers": [b"A", b"B"]}
            read = spec.postprocess_fn(spec.reply(mode, answer), example=example, is_target=False)
            right = spec.postprocess_fn(answer, example=example, is_target=True)
            assert read == right != "", spec.name
            checked += 1
    assert checked > 150
