"""`report --scores` and `--table`: the papers' numbers on the terminal and as JSON."""

import json

import pytest

from instruct.cli.arguments import main
from tests.report.made_up_suites import add_suites
from tests.report.papers.test_normalized import published


@pytest.fixture
def scores_file(tmp_path):
    _, scores = published(9)
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(scores | {"model": "Flan-T5-XXL"}))
    return path


def test_the_normalised_average_as_json(scores_file, capsys):
    assert main(["report", f"--scores={scores_file}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert round(found["normalized_average"], 1) == 23.7
    assert found["bbh_cot"]["sub_tasks"]["navigate"]["lower_bound"] == 50


def test_the_normalised_average_as_a_table(scores_file, capsys):
    assert main(["report", f"--scores={scores_file}"]) == 0
    shown = capsys.readouterr().out
    rows = {line.rsplit(maxsplit=3)[0].strip(): line.split() for line in shown.splitlines() if line}
    assert rows["mmlu_direct"][1:] == ["55.1", "25.0", "40.1"]
    assert rows["geometric_shapes"][1:] == ["25.2", "11.6", "15.4"]
    assert "normalised average" in shown and "23.7" in shown
    assert "not used: 'model'" in shown


def test_shares_of_one_are_taken_for_a_mistake(scores_file, capsys):
    scores = json.loads(scores_file.read_text())
    for name, value in scores.items():
        if isinstance(value, dict):
            scores[name] = {key: score / 100 for key, score in value.items()}
        elif isinstance(value, float):
            scores[name] = value / 100
    scores_file.write_text(json.dumps(scores))
    assert main(["report", f"--scores={scores_file}"]) == 2
    assert "multiply shares by 100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "is no JSON"),
        ("[1, 2]", "expected one object"),
        ("", "is no JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"mmlu_direct": 50}', "scores lack mmlu_cot"),
        ('{"MMLU-direct": 50}', "perhaps misspelled: 'MMLU-direct'"),
        ('{"mgsm": 5, "mgsm": 6}', "'mgsm' occurs twice"),
    ],
)
def test_scores_that_cannot_be_used(content, message, tmp_path, capsys):
    path = tmp_path / "scores.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", f"--scores={path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", ["NaN", '"4.9"', "true", "null", "101", "1" + 400 * "0"])
def test_a_score_that_is_none_from_0_to_100(value, scores_file, capsys):
    text = json.dumps(json.loads(scores_file.read_text()) | {"mgsm": 0})
    scores_file.write_text(text.replace('"mgsm": 0', f'"mgsm": {value}'))
    assert main(["report", f"--scores={scores_file}"]) == 2
    assert "expected a number from 0 to 100" in capsys.readouterr().err


def test_a_byte_order_mark_is_passed_over(scores_file, capsys):
    scores_file.write_text(scores_file.read_text(), encoding="utf-8-sig")
    assert main(["report", f"--scores={scores_file}"]) == 0
    assert "23.7" in capsys.readouterr().out


@pytest.fixture
def run(tmp_path):
    return add_suites(tmp_path / "run", parts=("mgsm", "tydiqa"))


def test_the_list_of_tables(capsys):
    assert main(["report", "--table=list"]) == 0
    shown = capsys.readouterr().out
    assert "flan_palm.5 " in shown and "flan_collection.2" in shown
    assert main(["report", "--table=list", "--json"]) == 0
    assert "flan_palm.21" in json.loads(capsys.readouterr().out)


def test_a_table_without_and_with_a_run(run, capsys):
    assert main(["report", "--table=flan_palm.5"]) == 0
    assert "Flan-U-PaLM" in capsys.readouterr().out
    assert main(["report", "--table=flan_palm.5", f"--model_dir={run}"]) == 0
    shown = capsys.readouterr().out
    ours = next(line for line in shown.splitlines() if line.split()[1:2] == ["run"])
    assert ours.count("±") == 2 and ours.count("–  ") >= 5
    assert "8 of 8" in shown and "The paper's protocol" in shown


@pytest.mark.parametrize(
    ("table", "message"),
    [("flan_palm.22", "no column of this table"), ("flan_palm.17", "no result for any column")],
)
def test_a_run_without_results_for_a_table_is_told(table, message, run, capsys):
    assert main(["report", f"--table={table}", f"--model_dir={run}"]) == 0
    assert f"run: {message}" in capsys.readouterr().out


def test_a_table_as_json(run, capsys):
    command = ["report", "--table=flan_palm.21", f"--model_dir={run}", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["paper"][-1]["mgsm"] == 60.4
    assert found["ours"][0]["mgsm:de"]["n"] == 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table=flan_palm.99"], "unknown table 'flan_palm.99'"),
        (["--table=flan_palm.5", "--model_dir=/none/such"], "no such folder"),
        (["--json"], "--json goes with"),
    ],
)
def test_bad_flags(flags, message, capsys):
    assert main(["report", *flags]) == 2
    assert message in capsys.readouterr().err
