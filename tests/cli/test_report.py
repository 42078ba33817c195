"""The flags of both comparisons, and what each prints."""

import json

import pytest

from instruct import results
from instruct.cli import arguments, report_flags
from tests.report.made_up_summaries import plain_rows, summary_rows, write_evaluation


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--before=a"], "--before needs --after=RUN"),
        (["--start=a"], "--start goes with --forgetting"),
        (["--suite=a"], "--suite goes with --before or --forgetting"),
        (["--ner=rules"], "--ner goes with --before"),
        (["--before=a", "--after=b", "--forgetting"], "two reports"),
        (["--before=a", "--after=b", "--model_dir=c"], "no --model_dir; leave it out"),
        (["--before=a", "--after=b", "--suite=c", "--suite=d"], "one suite at a time"),
        (["--before=a", "--after=b", "--examples=-1"], "must be at least 1"),
        (["--before=nowhere", "--after=b"], "nowhere: no such folder"),
        (["--forgetting", "--start=a"], "at least one --run"),
        (["--table=flan_palm.5", "--scores=a"], "two reports"),
        (["--table=flan_palm.5", "--before=a", "--after=b"], "two reports"),
        (["--table=flan_palm.5", "--out=a"], "no --out; leave it out"),
        (["--scores=a", "--model_dir=b"], "no --model_dir; leave it out"),
    ],
)
def test_flags_that_do_not_fit_are_status_2(flags, says, capsys):
    assert arguments.main(["report", *flags]) == 2
    assert says in capsys.readouterr().err


def test_before_and_after(tmp_path, capsys):
    for name, skill in (("a", 0.2), ("b", 0.9)):
        write_evaluation(tmp_path / name, {"dialogsum.main": summary_rows(skill, n=8)})
    runs = [f"--before={tmp_path / 'a'}", f"--after={tmp_path / 'b'}", "--suite=dialogsum"]
    assert arguments.main(["report", *runs]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'b' / 'before_after.html'}\n"
    assert arguments.main(["report", *runs, "--json", f"--out={tmp_path}"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 8
    assert (tmp_path / "before_after.md").is_file()
    assert arguments.main(["report", *runs, "--ner=spacy:nowhere_at_all"]) == 2
    assert "--ner=rules" in capsys.readouterr().err


def test_forgetting(tmp_path, capsys):
    for name, values in (("a", [100.0, 0.0]), ("b", [0.0, 0.0])):
        write_evaluation(tmp_path / name, {"t": plain_rows(values)}, group="held_in")
    runs = ["--forgetting", f"--start={tmp_path / 'a'}", f"--run={tmp_path / 'b'}"]
    assert arguments.main(["report", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"]["b"]["gained"]["value"] == -50.0
    assert (tmp_path / "b" / "forgetting.html").is_file()


def unfinished(folder, suite, text):
    """A suite's folder without a finished task; `text` None: without a file."""
    step = folder / "eval" / suite / "step_5"
    step.mkdir(parents=True)
    if text is not None:
        (step / "results.jsonl").write_text(text)


@pytest.mark.parametrize("where", ["a", "b"])
def test_unfinished_suites_are_left_out_and_said(tmp_path, capsys, where):
    for name, values in (("a", [100.0, 0.0]), ("b", [0.0, 0.0])):
        path = write_evaluation(tmp_path / name, {"t": plain_rows(values)}, group="held_in")
        write_evaluation(tmp_path / name, {"u": plain_rows(values)}, "other")
    header, *_, metric = path.read_text().splitlines(keepends=True)
    failure = json.loads(metric) | {"kind": "failure", "task": "v", "error": "no such file"}
    of_metric = ("metric", "value", "stderr", "n", "baseline", "template_set", "decode")
    for gone in (*of_metric, *results.DEFAULTS["metric"]):
        del failure[gone]
    failed = json.dumps(failure) + "\n"
    for suite, text in {
        "empty_folder": None,
        "empty_file": "",
        "killed": header,
        "only_failures": header + failed,
        "cut": '{"kind": "hea',
        "damaged": "no JSON\n",
    }.items():
        unfinished(tmp_path / where, suite, text)
    (part,) = (tmp_path / where / "eval").glob("other/step_*/results.jsonl")
    part.write_text(part.read_text() + failed)
    runs = ["--forgetting", f"--start={tmp_path / 'a'}", f"--run={tmp_path / 'b'}"]
    assert arguments.main(["report", *runs, "--json"]) == 0
    out, said = capsys.readouterr()
    assert set(json.loads(out)["runs"]["b"]["changes"]) == {"t zs_noopt", "u zs_noopt"}
    label = "start" if where == "a" else "b"
    for suite in ("empty_folder", "empty_file", "killed", "only_failures", "cut", "damaged"):
        assert f"note: {label}: {suite} is left out: " in said
    assert f"{label}: v (zs_noopt) failed: no such file" in said
    page = (tmp_path / "b" / "forgetting.md").read_text()
    assert "only_failures is left out" in page.replace("\\", "")
    suites = ["--suite=dialogsum", "--suite=other", "--suite=killed"]
    assert arguments.main(["report", *runs, *suites, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["runs"]["b"]["changes"]) == {
        "t zs_noopt",
        "u zs_noopt",
    }
    assert arguments.main(["report", *runs, "--suite=killed"]) == 2
    assert "killed is left out" in capsys.readouterr().err


def test_without_another_report_the_runs_are_reported():
    flags = arguments.parse(["report", "--model_dir=a"])
    assert report_flags.asked_report(flags) == "model_dir"
    flags = arguments.parse(["report", "--before=a", "--after=b"])
    assert report_flags.asked_report(flags) == "before"
