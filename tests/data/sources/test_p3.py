import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instruct.data.sources.p3 import p3_record, p3_source, with_choices
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.data.sources.test_tfrecord import example, frame
from tests.workspaces import workspace


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("INSTRUCT_DOWNLOAD", raising=False)
    return tmp_path


def row(prompt, answer, choices=None, **more):
    columns = {"inputs_pretokenized": prompt, "targets_pretokenized": answer, **more}
    return columns | ({} if choices is None else {"answer_choices": choices})


def test_newlines_stay_and_ends_go():
    made = p3_record(row("\nRead:\n\n  a text \nWhat?\n", " it \n"), "7")
    assert made == Record("7", {"prompt": "Read:\n\n  a text \nWhat?"}, "it")


def test_choices_become_options_only_where_the_prompt_does_not_show_them():
    raw = row("Good?", "yes", ["No", "Yes"])
    assert p3_record(raw, "1", with_options=True) == Record(
        "1", {"prompt": "Good?"}, "Yes", ("No", "Yes"), 1
    )
    assert p3_record(raw, "1") == Record("1", {"prompt": "Good?"}, "yes")


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("two  words", ["One", "Two\nwords"], 1),
        ("Yes.", ["No", "Yes"], 1),
        ("c++", ["C", "c++"], 1),
        ("a", ["a", "A ", "b"], 0),
    ],
)
def test_targets_and_choices_are_compared_without_blanks_and_case(answer, choices, index):
    made = with_choices("1", "q", answer, choices)
    assert isinstance(made, Record) and made.answer_index == index


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (["No", "Perhaps"], "target is not among the answer choices"),
        ([], "target is not among the answer choices"),
        (["Yes!", "yes.", "no"], "target is not among the answer choices"),
        (["Yes", "yes "], "answer choices are all alike"),
        (None, "no answer choices"),
    ],
)
def test_rows_without_a_usable_choice_are_dropped(choices, reason):
    assert p3_record(row("Good?", "yes", choices), "1", with_options=True) == Dropped(reason)


def test_other_rows_that_are_no_examples():
    assert p3_record(row("Good?", "no", is_correct=[0]), "1") == Dropped(
        "a wrong answer, for scoring only"
    )
    assert p3_record(row("Good?", " "), "1") == Dropped("empty prompt or answer")
    missing = Dropped("inputs or targets are missing, or not UTF-8")
    assert p3_record({"targets_pretokenized": "x"}, "1") == missing
    assert p3_record(row([b"\xff"], ["x"]), "1") == missing


def test_files_as_published_and_parquet_give_the_same_records(folder):
    published = folder / "P3/data/sciq_Direct_Question/train.tfrecord-00000-of-00001"
    published.parent.mkdir(parents=True)
    message = example(
        inputs=[5, 6],
        inputs_pretokenized=["Who?\nÄ".encode()],
        targets_pretokenized=[b"me"],
        answer_choices=[b"me", b"you"],
    )
    published.write_bytes(frame(message))
    source = p3_source("sciq_Direct_Question", "S")
    assert source.available(workspace()) is None
    records = list(source.records(workspace(), "train"))
    assert records == [
        Record("sciq_Direct_Question-train-0", {"prompt": "Who?\nÄ"}, "me", ("me", "you"), 0)
    ]
    published.unlink()
    parquet = folder / "P3/sciq_Direct_Question/train.parquet"
    parquet.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([row("Who?\nÄ", "me", ["me", "you"])]), parquet)
    assert list(source.records(workspace(), "train")) == records
    assert (
        next(iter(p3_source("sciq_Direct_Question", "M").records(workspace(), "train"))).options
        == ()
    )


def test_what_is_missing_is_named_and_kinds_are_checked():
    assert "sciq_x (train) is neither in" in (p3_source("sciq_x", "G").available(workspace()) or "")
    with pytest.raises(UserError, match="kind of P3 prompt 'sciq_x'"):
        p3_source("sciq_x", "g")
