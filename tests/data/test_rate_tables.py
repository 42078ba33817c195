"""A user's table of rates is a mixture."""

import json

import pytest

from instruct.data import rate_tables, task_modules
from instruct.data.registry import resolve
from instruct.errors import UserError
from tasks import mixtures  # noqa: F401 (registers)
from tests.workspaces import workspace


def shares(name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for leaf in resolve(workspace(), name).leaves:
        found[leaf.task] = found.get(leaf.task, 0.0) + leaf.rate
    return found


def test_a_table_is_a_mixture_of_its_name(tmp_path):
    table = tmp_path / "learned_rates.tsv"
    table.write_text(
        "# task\trate\ncot.gsm8k\t0.3  # arithmetic\n\nflan2021.rte.zs_opt\t0.1\ncot.qed\t0\n"
    )
    task_modules.load_modules([str(table)])
    task_modules.load_modules([str(table)])  # as several runs of one process do
    assert shares("learned_rates") == pytest.approx({"cot.gsm8k": 0.75, "flan2021.rte": 0.25})
    table.write_text("cot.gsm8k\t1\ncot.aqua\t3\n")
    assert shares("learned_rates") == pytest.approx({"cot.gsm8k": 0.25, "cot.aqua": 0.75})


def test_rates_of_json_and_of_record_numbers(tmp_path):
    table = tmp_path / "by_records.json"
    table.write_text(json.dumps({"cot.gsm8k": None, "cot.qasc": None}))
    rate_tables.register(str(table))
    found = shares("by_records")
    assert found["cot.gsm8k"] / found["cot.qasc"] == pytest.approx(7_473 / 1_084, rel=0.01)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "cot.gsm8k 0.3\n", "line 1: 'cot.gsm8k 0.3' is not a task, a tab and its rate"),
        ("a.tsv", "task\trate\n", "the rate of 'task' is 'rate'"),
        ("a.tsv", "cot\t-1\n", "is '-1'; use a number of at least 0"),
        ("a.tsv", "cot\tinf\n", "is 'inf'"),
        ("a.tsv", "cot\t1\ncot\t2\n", "line 2: 'cot' has a rate already"),
        ("a.tsv", "cot\t0\n", "no rate above 0"),
        ("a.json", "[1, 2]", "not a JSON object of rates"),
        ("a.json", "[" * 100_000, "not a JSON object of rates"),
        ("a.json", '{"cot": 1, "cot": 2}', "entry 2: 'cot' has a rate already"),
        ("own_rates.tsv", "own_rates\t1\n", "names 'own_rates', which is its own mixture"),
        ("a b.tsv", "cot\t1\n", "would be called 'a b'"),
        ("cot.tsv", "t0\t1\n", "the name 'cot' is registered already"),
    ],
)
def test_wrong_tables_are_refused_with_their_place(tmp_path, name, text, said):
    table = tmp_path / name
    table.write_text(text)
    with pytest.raises(UserError) as error:
        task_modules.load_modules([str(table)])
    assert said in str(error.value)


def test_missing_tables_and_unknown_tasks_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot read the table of rates"):
        rate_tables.register(str(tmp_path / "none.tsv"))
    table = tmp_path / "misspelt.tsv"
    table.write_text("cot.gsm9k\t1\n")
    rate_tables.register(str(table))
    with pytest.raises(UserError, match="Did you mean 'cot.gsm8k'"):
        resolve(workspace(), "misspelt")


def test_two_tables_that_name_each_other_are_refused(tmp_path):
    first, second = tmp_path / "first_rates.tsv", tmp_path / "second_rates.tsv"
    first.write_text("cot.gsm8k\t1\n")
    second.write_text("first_rates\t1\n")
    task_modules.load_modules([str(first), str(second)])
    first.write_text("second_rates\t1\ncot.gsm8k\t1\n")
    with pytest.raises(UserError, match="'first_rates' is a part of itself: .*'second_rates'"):
        resolve(workspace(), "first_rates")
