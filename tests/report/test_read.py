"""Reading what a run left, whole, partial or damaged."""

import json
import math
import pathlib

import pytest

from instruct import results
from instruct.errors import UserError
from instruct.report import read
from instruct.report.pages.run_page import write_report
from instruct.report.read import find_results
from tests.report.made_up_run import write_run
from tests.report.made_up_summaries import summary_rows, write_evaluation

TASK = {"dialogsum.main": summary_rows(0.5, n=3)}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> read.Run:
    folder = write_run(tmp_path_factory.mktemp("a") / "run", steps=100, num_tasks=7)
    return read.read_run(folder, "run")


def test_a_whole_run(run):
    assert run.suites() == ["gym.demo_eval"]
    assert [e.step for e in run.evaluations] == [1000, 2000]
    latest = run.latest("gym.demo_eval")
    assert latest.step == 2000 and run.latest("other") is None
    assert len(latest.metrics) == 7 and len(latest.others) == 7
    assert {row["metric"] for row in latest.metrics} == {"exact_match"}
    assert run.curve("loss")[0][0] == 1
    assert run.warnings == tuple(w for w in run.warnings if "gym.broken" in w)


def test_samples_are_few_a_task_and_only_of_the_latest_step(run):
    first, latest = run.evaluations
    assert first.examples == ()
    for row in latest.metrics:
        mine = [s for s in latest.examples if s["task"] == row["task"]]
        for correct in (True, False):
            assert sum(s["correct"] is correct for s in mine) <= read.SAMPLES_PER_TASK


def test_long_texts_are_cut(monkeypatch, tmp_path):
    monkeypatch.setattr(read, "SAMPLE_TEXT_LIMIT", 10)
    write_run(tmp_path, steps=1, num_tasks=2, eval_steps=(1,))
    (evaluation,) = read.read_run(tmp_path, "r").evaluations
    prompts = {sample["prompt"] for sample in evaluation.examples}
    assert any(prompt.endswith("more characters)") for prompt in prompts)
    assert max(map(len, prompts)) < 50


def test_damaged_files_are_warnings(tmp_path):
    write_run(tmp_path, steps=20, eval_steps=(1,), num_tasks=2)
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "mixture.json").write_text("[]")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "loss": NaN}\n{"loss": 1}\n{"step": 40, "lo')
    path = tmp_path / "eval" / "gym.demo_eval" / "step_1" / results.FILE_NAME
    path.write_text("nonsense\n")
    damaged = read.read_run(tmp_path, "r")
    text = "\n".join(damaged.warnings)
    assert "run.json is damaged" in text
    assert "2 damaged line(s)" in text
    assert "loss is not a finite number at step 30." in text
    assert "line 1: not a result" in text
    assert math.isnan(damaged.curve("loss")[-1][1])
    assert damaged.evaluations == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"leaves": None},
        {"leaves": ["gym.a"]},
        {"leaves": [{"task": ["gym.a"]}]},
        {"leaves": [{"task": "gym.a", "asked": "a half"}]},
        {"leaves": [{"task": "gym.a", "examples": math.inf}]},
        {"leaves": [{"task": "gym.a", "tokens": 10**400}]},
        {"dropped_reasons": ["empty"]},
        {"dropped_reasons": {"empty": "many"}},
    ],
)
def test_values_of_a_mixture_that_have_another_type_are_a_warning(tmp_path, changed):
    folder = write_run(tmp_path / "run", steps=20, num_tasks=2, eval_steps=())
    mixture = json.loads((folder / "mixture.json").read_text()) | changed
    (folder / "mixture.json").write_text(json.dumps(mixture))
    assert read.read_run(folder, "a").mixture == {}
    assert "mixture.json is damaged" in write_report([folder], tmp_path).read_text()


def test_results_that_cannot_be_read_are_a_warning(tmp_path):
    folder = write_run(tmp_path / "run", steps=20, num_tasks=2, eval_steps=(10, 20))
    (path,) = folder.glob("eval/*/step_10/results.jsonl")
    path.unlink()
    path.mkdir()
    run = read.read_run(folder, "a")
    assert [evaluation.step for evaluation in run.evaluations] == [20]
    assert any("cannot be read (Is a directory)" in text for text in run.warnings)


def test_labels_tell_runs_apart(tmp_path):
    for name in ("x/run", "y/run"):
        (tmp_path / name).mkdir(parents=True)
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert [r.label for r in read.read_runs(paths)] == ["x/run", "y/run"]
    assert [r.label for r in read.read_runs(paths[:1])] == ["run"]
    twice = read.read_runs([paths[0], pathlib.Path(paths[0])])
    assert [r.label for r in twice] == ["run (1)", "run (2)"]


def test_a_run_a_folder_or_a_file(tmp_path):
    first = write_evaluation(tmp_path / "run", TASK, step=9)
    last = write_evaluation(tmp_path / "run", TASK, step=10)
    assert find_results(str(tmp_path / "run")) == last
    assert find_results(str(first.parent)) == find_results(str(first)) == first


def test_a_suite_by_its_name_or_a_whole_part_of_it(tmp_path):
    path = write_evaluation(tmp_path, TASK, suite="few-dialogsum.main")
    write_evaluation(tmp_path, TASK, suite="dialogsums")
    for suite in ("dialogsum", "few-dialogsum.main", "few"):
        assert find_results(str(tmp_path), suite) == path
    for suite, says in (("samsum", "no evaluation of suite 'samsum'"), ("", "has several")):
        with pytest.raises(UserError, match=f"{says}.*few-dialogsum.main"):
            find_results(str(tmp_path), suite)
    training = write_evaluation(tmp_path, TASK, suite="training-dialogsum.main")
    assert find_results(str(tmp_path), "dialogsum") == path
    assert find_results(str(tmp_path), "training-dialogsum.main") == training
    with pytest.raises(UserError, match="no such folder"):
        find_results(str(tmp_path / "nowhere"))


def test_examples_of_an_unfinished_task_do_not_count(tmp_path):
    path = write_evaluation(tmp_path, TASK)
    evaluation = read.read_finished(path, keep=dict)
    assert len(evaluation.examples) == 3 and len(evaluation.lines) == 2
    assert evaluation.examples[1]["id"] == "made-up-1" and evaluation.path == path
    unfinished = path.read_text().splitlines(keepends=True)[1].replace("dialogsum.main", "new")
    path.write_text(path.read_text() + unfinished)
    assert len(read.read_evaluation(path, keep=dict).examples) == 4
    assert len(read.read_finished(path, keep=dict).examples) == 3
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"metric"' not in line))
    with pytest.raises(UserError, match="no finished task"):
        read.read_finished(path, keep=dict)
