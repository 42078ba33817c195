"""The report tells which tasks would lose their examples, with numbers anybody can count again."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from instruct.data import registry
from instruct.data.feed.task_report import report_tasks
from instruct.data.stores import store
from instruct.data.stores.prepare import prepare
from tests.data.tokenizer_folders import write_t5_model
from tests.data.toy import TEMPLATES, ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


@dataclasses.dataclass(frozen=True)
class BracesSource(ToySource):
    """Sums with their answers in braces."""

    def records(self, workspace, split):
        for record in super().records(workspace, split):
            yield dataclasses.replace(record, answer=f"{{{record.answer}}}")


def reported(specs, workers=1, num_examples=200, **changes):
    name = fresh_name("mix")
    registry.add_mixture(name, {registry.add_task(spec).name: 1 for spec in specs})
    config = toy_config(name, **changes)
    done = prepare(workspace(), registry.resolve(workspace(), name), config)
    resolved = registry.resolve(workspace(), name)
    return report_tasks(workspace(), resolved, config, done.stores, num_examples, workers), done


def shown(report, how, *arguments, width=200):
    out = io.StringIO()
    getattr(report, how)(Console(file=out, width=width), *arguments)
    return out.getvalue()


def test_lengths_are_those_of_the_examples():
    report, done = reported([toy_spec(ToySource("abc", size=30, drop_every=10))])
    (task,) = report.tasks
    lengths = task.lengths
    assert lengths is not None and lengths.examples == 27 and not task.problems
    # "[abc] 17 + 1 = ?" is 16 bytes or 15, under one of two wordings; an answer is one byte.
    assert lengths.target_tokens == 2
    assert 15 + len("Q: ") + 1 <= lengths.input_tokens <= 16 + len("\nAnswer:") + 1
    assert (lengths.truncated, lengths.too_long, lengths.not_rendered) == (0, 0, 0)
    assert task.stores == done.stores and len(task.stores[0].sha256) == 64
    assert task.modes == {"zs_noopt": 1.0} and task.rate == 1

    path = report.write(workspace())
    assert path == workspace().store_dir / "reports" / f"{report.mixture}.json"
    values = json.loads(path.read_text())
    assert values["tasks"][0]["stores"][0]["dropped"] == {"empty answer": 3}
    assert values["tasks"][0]["lengths"]["target_tokens"] == 2
    *totals, told = shown(report, "print_totals").splitlines()
    assert told == "dropped rows: empty answer: 6"
    assert totals[-1].split()[-10:] == [
        "1",
        "2",
        "54",
        "6",
        f"{lengths.input_tokens:.0f}",
        "2",
        "0.0%",
        "0.0%",
        "0.00%",
        "0.0%",
    ]
    full = shown(report, "print_tasks", width=30)  # what is printed is never cut
    assert task.task in full
    assert task.stores[0].sha256[:8] in full


def test_a_task_that_loses_its_examples_is_a_problem():
    # Up to 29 words: the question may be cut, but not the one whose set forbids it.
    stiff = dataclasses.replace(TEMPLATES, truncate_field="")
    sources = [ToySource(f"s{i}", words=1, size=60) for i in range(2)]
    specs = [toy_spec(sources[0]), toy_spec(sources[1], templates=stiff)]
    specs.append(toy_spec(ToySource("half", drop_every=2)))
    specs.append(toy_spec(ToySource("none", drop_every=1)))
    report, _ = reported(specs, feature_lengths={"inputs": 60, "targets": 8})
    cut, lost, half, none = report.tasks
    assert cut.lengths and cut.lengths.truncated > 0.5 and not cut.problems
    assert lost.lengths and lost.lengths.truncated == 0
    assert lost.lengths.too_long == pytest.approx(
        lost.lengths.reasons["inputs too long"] / 60, 1e-3
    )
    assert 0.5 < lost.lengths.too_long == lost.lengths.not_rendered < 1
    assert "longer than TASK_FEATURE_LENGTHS" in lost.problems[0]
    assert half.problems[0].startswith("50% of the rows of split 'train' were rejected (empty")
    assert none.lengths is None and "no record in split 'train' (empty answer: 40)" in none.problems
    told = shown(report, "print_problems", "all.json")
    assert told.count("warning: ") == 5 and f"warning: {lost.task}: " in told


def test_targets_that_the_vocabulary_cannot_spell_are_a_problem(tmp_path):
    words = toy_spec(ToySource("abc"))
    braces = toy_spec(BracesSource("abc"))
    report, _ = reported([words, braces], vocabulary=write_t5_model(tmp_path))
    fine, spoiled = report.tasks
    assert fine.lengths and fine.lengths.unknown_targets == 0 and not fine.problems
    # The line breaks of some wordings and, in the other task, the braces of all answers.
    assert fine.lengths.unknown == "\n" and spoiled.lengths.unknown_targets == 1
    assert spoiled.lengths.unknown_characters > fine.lengths.unknown_characters > 0
    assert "in 100.0% of the targets" in spoiled.problems[0]
    assert "No model can write these targets with" in spoiled.problems[0]
    assert shown(report, "print_tasks").splitlines()[0].split()[-4:] == [
        *("unknown", "in", "targets", "sha256")
    ]


def test_a_damaged_store_is_a_problem_of_its_task():
    specs = [toy_spec(ToySource("a", words=1)), toy_spec(ToySource("b"))]
    report, done = reported(specs, num_examples=0)
    file = store.store_path(workspace(), store.spec_key(specs[0]), "train") / store.RECORDS_FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(bytes(content))
    resolved = registry.resolve(workspace(), report.mixture)
    damaged, fine = report_tasks(
        workspace(), resolved, toy_config(report.mixture), done.stores
    ).tasks
    assert damaged.lengths is None and "is damaged" in damaged.problems[0]
    assert fine.lengths is not None and not fine.problems


def test_processes_report_the_same():
    sources = [ToySource(f"s{i}", size=10 + i) for i in range(9)]
    modes = {"zs_noopt": 1, "fs_noopt": 1}
    one, done = reported([toy_spec(source, modes=modes) for source in sources])
    resolved = registry.resolve(workspace(), one.mixture)
    many = report_tasks(workspace(), resolved, toy_config(one.mixture), done.stores, workers=2)
    assert many == one
    assert all(task.lengths and task.lengths.examples for task in one.tasks)


def test_nothing_is_rendered_where_nothing_is_asked_or_there():
    specs = [toy_spec(ToySource("a")), toy_spec(ToySource("b", missing="not here"))]
    report, _ = reported(specs, num_examples=0)
    assert [task.lengths for task in report.tasks] == [None, None]
    report, _ = reported([toy_spec(ToySource("a")), toy_spec(ToySource("b", missing="not here"))])
    assert report.tasks[0].lengths is not None and report.tasks[1].lengths is None
    assert "failed" in shown(report, "print_tasks")


def test_exemplars_that_do_not_fit_are_listed_by_task():
    few_shot = toy_spec(ToySource("fs", words=6), modes={"fs_noopt": 1})
    report, _ = reported([toy_spec(), few_shot], feature_lengths={"inputs": 150, "targets": 16})
    zero, missing = (task.lengths.exemplars_missing for task in report.tasks)
    assert zero == 0 < missing
    last = shown(report, "print_totals").splitlines()[-1]
    assert last == (
        f"exemplars missing from a prompt, in 1 tasks, most of all {few_shot.name}: {missing:.2g}"
    )
