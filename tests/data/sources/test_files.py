import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from instruct.data.sources.files import (
    CsvSource,
    FieldMap,
    JsonLinesSource,
    MessagesMap,
    Part,
    TsvSource,
    hash_unit,
    hashed_parts,
)
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tests.workspaces import workspace

QUESTION = FieldMap({"question": "q"}, "a")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    return tmp_path


def test_json_lines(folder):
    rows = [
        {
            "q": " one? ",
            "a": 1,
            "choices": ["0", "1"],
            "why": "so",
            "refs": ["1", "one"],
            "n": "x7",
        },
        {"q": "two?", "a": "b", "choices": ["a", "b"], "why": "", "refs": [], "n": 8},
    ]
    (folder / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    fields = FieldMap({"question": "q"}, "a", "choices", "why", "refs", "n")
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=fields)
    assert list(source.records(workspace(), "train")) == [
        Record("x7", {"question": "one?"}, "1", ("0", "1"), 1, ("1", "one"), "so"),
        Record("8", {"question": "two?"}, "b", ("a", "b"), 1),
    ]


def test_bad_lines_are_dropped_with_a_reason(folder):
    good = json.dumps({"q": "ä", "a": "1"}, ensure_ascii=False).encode()
    lines = [
        b"\xef\xbb\xbf" + good,
        b'{"q": "caf\xe9", "a": "1"}',
        b"[1, 2]",
        b'{"q": "cut',
        b'{"q": "no answer"}',
        b'{"q": "empty", "a": " "}',
        b'{"q": "missing", "a": NaN}',
        b'{"q": ["list"], "a": "1"}',
        b"",
        good + b"\r",
    ]
    (folder / "t.jsonl").write_bytes(b"\n".join(lines))
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=QUESTION)
    items = list(source.records(workspace(), "train"))
    assert [item.id for item in items if isinstance(item, Record)] == ["demo-t-0", "demo-t-9"]
    assert [item.reason for item in items if isinstance(item, Dropped)] == [
        "text is not UTF-8",
        "line is not a JSON object",
        "line is not a JSON object",
        "no value for 'a'",
        "empty answer",
        "empty answer",
        "a value has the wrong type, or the answer is none of the options",
    ]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"refs": "one"}, ("one",)),
        ({"refs": ["one", 1]}, ("one", "1")),
        ({"refs": {"text": ["one"]}}, "wrong type"),
        ({"refs": None}, "wrong type"),
        ({"choices": "12"}, "wrong type"),
        ({"choices": {"1": 0}}, "wrong type"),
        ({"q": " "}, "empty question"),
        ({"a": True}, "wrong type"),
    ],
)
def test_lists_are_lists_and_questions_are_there(change, found):
    fields = FieldMap({"question": "q"}, "a", "choices", references="refs")
    item = fields.record({"q": "1?", "a": "1", "choices": ["1", "2"], "refs": []} | change, "id")
    if isinstance(item, Dropped):
        assert isinstance(found, str) and found in item.reason
    else:
        assert item.references == found


def test_a_line_that_is_nested_too_deep_is_one_dropped_line(folder):
    (folder / "t.jsonl").write_text("[" * 100_000 + '\n{"q": "x", "a": "1"}\n')
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=QUESTION)
    first, second = source.records(workspace(), "train")
    assert first == Dropped("line is not a JSON object") and isinstance(second, Record)


def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch):
    (folder / "t.jsonl").write_text('{"q": "x", "a": "1"}\n')
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=QUESTION)
    assert source.available(workspace()) is None

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    reason = source.available(workspace()) or ""
    assert reason.startswith(f"{folder / 't.jsonl'} cannot be read (Permission denied)")


def test_tsv(folder):
    (folder / "t.tsv").write_text('a "b" c\tx\nd\ty\tmore\n')
    fields = FieldMap({"question": 0}, 1)
    source = TsvSource("demo", {"train": Part("t.tsv")}, field_map=fields, num_columns=2)
    assert list(source.records(workspace(), "train")) == [
        Record("demo-0", {"question": 'a "b" c'}, "x"),
        Dropped("line does not have 2 columns"),
    ]
    loose = dataclasses.replace(source, num_columns=None)
    assert len([r for r in loose.records(workspace(), "train") if isinstance(r, Record)]) == 2


def test_hashed_splits_are_apart_whole_and_stable(folder):
    lines = [json.dumps({"q": f"question {n}", "a": "1"}) for n in range(4000)]
    # The same question again, otherwise written: it must fall on the same side.
    lines += [json.dumps({"q": f"Question  {n}", "a": "1"}) for n in range(500)]
    (folder / "t.jsonl").write_text("\n".join(lines))
    source = JsonLinesSource("demo", hashed_parts("t.jsonl"), field_map=QUESTION)
    splits = {
        split: [
            " ".join(r.fields["question"].casefold().split())
            for r in source.records(workspace(), split)
        ]
        for split in source.splits
    }
    assert sum(map(len, splits.values())) == 4500
    texts = [set(questions) for questions in splits.values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert abs(len(splits["validation"]) - 225) < 60 and abs(len(splits["test"]) - 225) < 60
    (folder / "t.jsonl").write_text("\n".join(lines[1000:]))
    assert {
        " ".join(r.fields["question"].casefold().split())
        for r in source.records(workspace(), "test")
    } <= texts[2]
    assert hash_unit("question 7") == 0.022036499308910388


def test_fingerprint_follows_bytes_and_reading(folder):
    (folder / "t.jsonl").write_text('{"q": "x", "a": "1"}\n')
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=QUESTION)
    first = source.fingerprint(workspace())
    assert first == pickle.loads(pickle.dumps(source)).fingerprint(workspace())
    other = dataclasses.replace(source, field_map=FieldMap({"query": "q"}, "a"))
    assert other.fingerprint(workspace()) != first
    (folder / "t.jsonl").write_text('{"q": "y", "a": "1"} \n')
    assert source.fingerprint(workspace()) != first
    (folder / "t.jsonl").unlink()
    assert source.fingerprint(workspace()) == "absent"


def test_a_missing_file_is_explained(folder):
    source = JsonLinesSource("demo", {"train": Part("sub/t.jsonl")}, origin="https://example.org")
    reason = source.available(workspace())
    assert reason is not None
    for part in (str(folder / "sub/t.jsonl"), "INSTRUCT_DATA_DIR", "DATA_DIR", "example.org"):
        assert part in reason
    (folder / "sub").mkdir()
    (folder / "sub/t.jsonl").write_text("")
    assert (
        source.available(workspace()) is None and list(source.records(workspace(), "train")) == []
    )


def test_csv_with_a_header(folder):
    text = '\ufeffq, a\n"one, ""two""?",1\n"first\nsecond",2\n\nshort\n x , 3 \n'
    (folder / "t.csv").write_text(text, encoding="utf-8")
    source = CsvSource("demo", {"train": Part("t.csv")}, field_map=QUESTION)
    assert list(source.records(workspace(), "train")) == [
        Record("demo-t-0", {"question": 'one, "two"?'}, "1"),
        Record("demo-t-1", {"question": "first\nsecond"}, "2"),
        Dropped("line does not have 2 columns"),
        Record("demo-t-3", {"question": "x"}, "3"),
    ]


def test_csv_without_a_header_and_bad_bytes(folder):
    (folder / "t.csv").write_bytes(b"one;A;B\n caf\xe9;A;B\ntwo;C;B\n" + b"x" * 140_000 + b";A;B\n")
    fields = FieldMap({"question": 0, "other": 1}, 2)
    source = CsvSource(
        "demo", {"train": Part("t.csv")}, field_map=fields, header=False, delimiter=";"
    )
    items = list(source.records(workspace(), "train"))
    assert items[0] == Record("demo-t-0", {"question": "one", "other": "A"}, "B")
    assert items[1] == Dropped("text is not UTF-8")
    assert items[2] == Record("demo-t-2", {"question": "two", "other": "C"}, "B")
    assert items[3] == Dropped("line is not CSV") and len(items) == 4


def test_conversations(folder):
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = [{"messages": turn, "n": 7}, {"n": 8}, {"messages": turn[:1], "n": 9}, {"messages": []}]
    (folder / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    source = JsonLinesSource("demo", {"train": Part("t.jsonl")}, field_map=MessagesMap(id="n"))
    record, *rejected = source.records(workspace(), "train")
    assert isinstance(record, Record) and (record.id, record.answer) == ("7", "Yes?")
    assert record.fields == {"conversation": "User: Hi\nAssistant:"}
    assert [item.reason for item in rejected if isinstance(item, Dropped)] == [
        "no value for 'messages'",
        "no assistant turn",
        "no value for 'n'",
    ]
    assert MessagesMap(id="n").columns == ("messages", "n")
    assert source.fingerprint(workspace()) not in (
        dataclasses.replace(source, field_map=MessagesMap()).fingerprint(workspace()),
        "absent",
    )
