import copy

import pytest

from instruct.data.registry import resolve, task_specs
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from tasks.program_synthesis import family as program_synthesis
from tasks.program_synthesis.sources import (
    MAX_DESCRIPTION,
    MAX_LINES,
    MAX_SOLUTION,
    VARIANTS,
    DrRepairSource,
    code_contests_record,
    repair_record,
)
from tests.tasks.program_synthesis.goldens import CONTEST_ROWS, LENGTHS, records
from tests.tasks.public_goldens import WORKSPACE
from tests.tasks.shown_prompts import rendered
from tests.template_lint import lint
from tests.workspaces import workspace

SPECS = {row.id: program_synthesis.program_task(row) for row in program_synthesis.SETS}

PROGRAM = {
    "meta": {"probid": "p"},
    "lines": [
        {"code": "int main ( ) {", "indent": 0},
        {"code": 'puts ( " hi " ) ;', "indent": 1},
        {"code": "}", "indent": 0},
    ],
    "errors": [
        {
            "mod_line": [1],
            "mod_code": ['puts ( " hi " )'],
            "err_line": 2,
            "err_msg": "expected ‘;’ before ‘}’ token",
        }
    ],
}
CORRECT = 'int main ( ) {\n    puts ( "hi" ) ;\n}'


def test_the_wordings_pass_the_lint():
    for template_set in program_synthesis.template_sets().values():
        assert lint(template_set) == []


@pytest.mark.parametrize("name", SPECS)
def test_every_task_renders_in_every_mode(name):
    spec = SPECS[name]
    for mode in spec.all_modes:
        for number in range(40):
            example = rendered(spec, mode, number, records()[name], lengths=LENGTHS)
            assert isinstance(example, Rendered), (mode, example)
            if not example.inverted:
                assert example.targets == records()[name][number % len(records()[name])].answer


@pytest.mark.parametrize("name", SPECS)
def test_a_perfect_and_a_wrong_prediction(name):
    spec = SPECS[name]
    read = spec.postprocess_fn
    assert read is not None
    for record in records()[name]:
        example = {"references": (record.answer,)}
        target = read(record.answer, example=example, is_target=True)
        for metric in spec.metric_fns:
            right = read(record.answer + "\n", example=example)
            assert list(metric([target], [right]).values()) == [pytest.approx(100.0)]
            assert list(metric([target], [read("zzz", example=example)]).values()) == [0.0]


@pytest.mark.parametrize("name", SPECS)
def test_no_prompt_holds_its_target(name):
    spec = SPECS[name]
    for mode in ("zs_noopt", "zs_inv"):
        for number in range(40):
            example = rendered(spec, mode, number, records()[name], lengths=LENGTHS)
            assert isinstance(example, Rendered)
            assert example.targets.removeprefix("line ") not in example.inputs
            _, mark, message = example.targets.partition(": error: ")
            assert not mark or "\n" in message or message not in example.inputs


def test_blanks_do_not_count_and_signs_do():
    match = program_synthesis.code_match
    assert match([["a = 1;"]], ["a  =\n1;"]) == {"code_match": 100.0}
    assert match(["a = 1;"], ["a = 1"]) == {"code_match": 0.0}


def test_shares_caps_and_categories():
    names = [f"program_synthesis.{name}" for name in SPECS]
    assert set(names) <= set(task_specs(workspace()))
    for spec in SPECS.values():
        shares = {leaf.mode: leaf.rate for leaf in resolve(workspace(), spec.name).leaves}
        assert shares["zs_inv"] / shares["zs_noopt"] == pytest.approx(0.3)
        assert shares["fs_inv"] / shares["fs_noopt"] == pytest.approx(0.3)
        assert set(spec.splits) <= set(spec.source.splits)
    assert [spec.category for spec in SPECS.values()] == ["Code Repair"] * 4 + ["Code Generation"]
    assert {f"dr_repair_{variant}" for variant in VARIANTS} | {"code_contests"} == set(SPECS)


@pytest.mark.parametrize(
    ("variant", "code", "error"),
    [
        ("plain_code", 'int main ( ) {\n    puts ( "hi" )\n}', None),
        (
            "line_numbers",
            '  1 int main ( ) {\n  2     puts ( "hi" )\n  3 }',
            "line 3: error: expected ‘;’ before ‘}’ token",
        ),
        (
            "error_comments",
            'int main ( ) {\n    puts ( "hi" )\n}  // error: expected ‘;’ before ‘}’ token',
            None,
        ),
        ("no_errors", '  1 int main ( ) {\n  2     puts ( "hi" )\n  3 }', None),
    ],
)
def test_what_each_variant_shows(variant, code, error):
    fields = {"code": code} if error is None else {"code": code, "error": error}
    assert repair_record(PROGRAM, "x", variant) == Record(f"x-{variant}", fields, CORRECT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"errors": []}, "program has no errors"),
        ({"lines": PROGRAM["lines"] * MAX_LINES}, "program is too long"),
        ({"errors": [PROGRAM["errors"][0] | {"mod_line": [7]}]}, "not laid out"),
        ({"errors": [PROGRAM["errors"][0] | {"mod_line": [1, 2]}]}, "not laid out"),
        ({"errors": [{"mod_line": [1]}]}, "not laid out"),
        ({"lines": [{"code": "x"}]}, "not laid out"),
        (
            {"errors": [PROGRAM["errors"][0] | {"mod_code": [PROGRAM["lines"][1]["code"]]}]},
            "the errors change nothing",
        ),
    ],
)
def test_programs_that_are_no_example(change, reason):
    item = repair_record(PROGRAM | change, "x", "plain_code")
    assert isinstance(item, Dropped) and reason in item.reason


def test_a_message_behind_the_end_stands_at_the_last_line():
    program = copy.deepcopy(PROGRAM)
    program["errors"][0]["err_line"] = 99
    item = repair_record(program, "x", "line_numbers")
    assert isinstance(item, Record) and item.fields["error"].startswith("line 3:")


def test_files_are_read_below_the_folder(tmp_path, monkeypatch):
    source = DrRepairSource()
    assert source.available(WORKSPACE) is None and source.fingerprint(WORKSPACE) != "absent"
    by_split = {split: list(source.records(WORKSPACE, split)) for split in source.splits}
    items = [item for found in by_split.values() for item in found]
    assert sorted(item.id for item in items if isinstance(item, Record)) == [
        "dr_repair-bin0/prob11/101-plain_code",
        "dr_repair-bin0/prob12/202-plain_code",
        "dr_repair-bin4/prob13/303-plain_code",
    ]
    assert [item for item in items if isinstance(item, Dropped)] == [
        Dropped("program has no errors")
    ]
    # Both programs of problem 13 are on one side.
    assert sorted(len(found) for found in by_split.values())[-1] >= 2
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    assert source.fingerprint(workspace()) == "absent"
    assert "orig-deepfix" in (source.available(workspace()) or "")
    folder = tmp_path / source.folder
    folder.mkdir(parents=True)
    assert source.fingerprint(workspace()) == "absent"
    for name, text in {"a": "{", "b": "[]", "c": '{"meta": {}}'}.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    found = {item for split in source.splits for item in source.records(workspace(), split)}
    assert found == {Dropped("file is not a program of the release")}


def test_variants_draw_their_corruptions_apart():
    program = copy.deepcopy(PROGRAM)
    program["errors"] = [
        PROGRAM["errors"][0] | {"mod_code": [f"puts ( {number} )"]} for number in range(50)
    ]
    codes = {
        variant: [repair_record(program, f"p{n}", variant) for n in range(20)]
        for variant in ("plain_code", "error_comments")
    }
    lines = [
        [item.fields["code"].split("\n")[1] for item in items if isinstance(item, Record)]
        for items in codes.values()
    ]
    assert len(set(lines[0])) > 10 and lines[0] != lines[1]


def test_a_right_solution_in_python_is_drawn():
    first = code_contests_record(CONTEST_ROWS[0], "")
    assert isinstance(first, Record)
    assert first.id == "code_contests-2-1_A. Bowls"
    assert first.fields["language"] == "Python 3"
    assert first.answer in (
        "a, b = map(int, input().split())\nprint(a * b)",
        "x = input().split()\nprint(int(x[0]) * int(x[1]))",
    )
    row = CONTEST_ROWS[0]
    turned = {key: value[::-1] for key, value in row["solutions"].items()}
    assert code_contests_record(row | {"solutions": turned}, "") == first
    pairs = [
        {"language": language, "solution": text}
        for language, text in zip(row["solutions"]["language"], row["solutions"]["solution"])
    ]
    assert code_contests_record(row | {"solutions": pairs}, "") == first
    drawn = {
        item.answer
        for number in range(40)
        if isinstance(item := code_contests_record(row | {"name": str(number)}, ""), Record)
    }
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"description": " "}, "no description"),
        ({"description": "See <image>."}, "the statement shows images"),
        ({"description": "x" * (MAX_DESCRIPTION + 1)}, "statement is too long"),
        ({"solutions": {"language": [2], "solution": ["x"]}}, "no solution in Python 3"),
        ({"solutions": None}, "no solution in Python 3"),
        (
            {"solutions": {"language": [3], "solution": ["x" * (MAX_SOLUTION + 1)]}},
            "solutions are too long",
        ),
    ],
)
def test_problems_that_are_no_example(change, reason):
    assert code_contests_record(CONTEST_ROWS[0] | change, "") == Dropped(reason)


def test_code_contests_is_read_from_parquet(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    folder = tmp_path / "deepmind" / "code_contests" / "data"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        table = pyarrow.Table.from_pylist(list(CONTEST_ROWS))
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    source = SPECS["code_contests"].source
    assert source.available(workspace()) is None
    for split in SPECS["code_contests"].splits:
        assert list(source.records(workspace(), split)) == [
            code_contests_record(r, "") for r in CONTEST_ROWS
        ]
