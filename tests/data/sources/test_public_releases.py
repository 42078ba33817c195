import collections
import pickle
from pathlib import Path

import pytest

from instruct.data.sources.files import Part, hashed_parts
from instruct.data.sources.public_releases import (
    CotTsvSource,
    Gsm8kSource,
    cot_tsv_source,
    split_options,
)
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

MADE_UP = Path(__file__).parents[2] / "tasks" / "public_data"


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(MADE_UP))


def every(source):
    """Items of all hashed splits."""
    return [
        item
        for split in ("train", "validation", "test")
        for item in source.records(workspace(), split)
    ]


def test_gsm8k(made_up):
    items = {item.id: item for item in every(Gsm8kSource()) if isinstance(item, Record)}
    assert len(items) == 5
    record = items["gsm8k-train-1"]
    assert record.answer == "42"
    assert record.rationale == (
        "On Tuesday she reads 14*2 = 28 pages.\nTogether that is 14+28 = 42 pages."
    )
    dropped = [item for item in every(Gsm8kSource()) if isinstance(item, Dropped)]
    assert dropped == [Dropped("answer has no '####'")]
    assert [r.answer for r in Gsm8kSource().records(workspace(), "test")] == ["6"]


def test_cot_options_are_taken_out_of_the_question(made_up):
    items = every(cot_tsv_source("cot/crafts_train.tsv"))
    records = {item.id: item for item in items if isinstance(item, Record)}
    metal = records["crafts-0"]
    assert metal.fields["question"] == "Which metal is liquid at room temperature?"
    assert (metal.options, metal.answer) == (("iron", "mercury", "tin"), "mercury")
    assert records["crafts-1"].options[1] == records["crafts-1"].answer == "3 minutes"
    assert records["crafts-2"].answer_index == 0
    assert Dropped("line does not have 3 columns") in items


def test_cot_options_stay_where_the_rationale_names_a_letter(made_up):
    records = {
        r.id: r for r in every(cot_tsv_source("cot/crafts_train.tsv")) if isinstance(r, Record)
    }
    kept = records["crafts-3"]
    assert kept.options == () and kept.answer == "(B)"
    assert kept.fields["question"].endswith("Options:\n(A) 3\n(B) 8\n(C) 5")


def test_cot_literal_newlines(made_up):
    records = {r.id: r for r in every(cot_tsv_source("cot/yesno.tsv"))}
    assert records["yesno-1"].rationale == "Basalt is a dense rock.\nCork floats on water."


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Q?\nOptions:\n(A) x\n(B) y", "(B)", ("Q?", ("x", "y"), 1)),
        ("Q?\nOptions:\n(A) x\n(B) y", "B", ("Q?", ("x", "y"), 1)),
        ("Q?\nOptions:\n- (A) x\n- (B) y", "(A)", ("Q?", ("x", "y"), 0)),
        ("Q?\nOPTIONS:\n- x\n- y z", "y z", ("Q?", ("x", "y z"), 1)),
        ("Q?\nOptions:\n(A) x\n(B) y\n(C) x", "(C)", ("Q?", ("x", "y"), 0)),
        ("Q?\nOptions:\n- x\n- y", "z", None),
        ("Q?\nOptions:\n(A) x\n(C) y", "(C)", None),
        ("Q?\nOptions:\n(A) x\n(B) y", "(D)", None),
        ("Q?\nOptions:\n(A) x\nor so", "(A)", None),
        ("Q?\nOptions:\n- x\n- x", "x", ("Q?", ("x",), 0)),
        ("Q?", "yes", None),
    ],
)
def test_split_options(question, answer, expected):
    assert split_options(question, answer) == expected


def test_empty_cells_and_options_without_a_difference_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    (tmp_path / "t.tsv").write_text("q\t \tr\n\\n\ta\tr\nq\ta\t\nq\\nOptions:\\n- x\\n- x\tx\tr\n")
    source = CotTsvSource("t", {"train": Part("t.tsv")})
    assert list(source.records(workspace(), "train")) == [
        Dropped("empty question or answer"),
        Dropped("empty question or answer"),
        Record("t-2", {"question": "q"}, "a"),
        Dropped("options are all alike"),
    ]


@pytest.mark.slow
def test_published_files(shared_data, monkeypatch):
    """Every file there, whatever it is: no row is lost without a reason, ids are unique."""
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(shared_data))
    sources = [Gsm8kSource()]
    sources += [cot_tsv_source(f"cot/{p.name}") for p in (shared_data / "cot").glob("*.tsv")]
    for source in sources:
        assert pickle.loads(pickle.dumps(source)) == source
        assert source.available(workspace()) is None
        items = every(source)
        records = [item for item in items if isinstance(item, Record)]
        assert len({record.id for record in records}) == len(records)
        dropped = collections.Counter(i.reason for i in items if isinstance(i, Dropped))
        assert dropped.total() <= 0.003 * len(items), (source.name, dropped)
        assert not any(
            "<<" in r.rationale or "\\n" in r.fields.get("question", "") for r in records
        )


def test_hashed_parts_cover_everything():
    parts = sorted((part.low, part.high) for part in hashed_parts("x").values())
    assert parts == [(0.0, 0.05), (0.05, 0.1), (0.1, 1.0)]
