"""JSON of any origin: one kind of error, with the reason."""

import json

import pytest

from instruct.json_text import (
    MAX_DEPTH,
    parse_json,
    sealed,
    sealed_line,
    unsealed,
    unsealed_line,
)


def test_values_and_byte_order_marks():
    for text in ('{"a": [1, "é"]}', '\ufeff{"a": [1, "é"]}'):
        assert parse_json(text) == parse_json(text.encode()) == {"a": [1, "é"]}
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    assert parse_json("[" + "[]," * 900 + "1]")[-1] == 1  # many brackets, two levels


@pytest.mark.parametrize(
    "text,reason",
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        (b"\xff\xfe", "not UTF-8 text"),
        ("[" * 100_000, "nested too deep: more than 200 levels"),
        ('{"a":' * 100_000, "nested too deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deep"),
        ('{"a":' * 201 + "1" + "}" * 201, "nested too deep"),
        ("1" * 5000, "a whole number of thousands of digits"),
        ('{"a": -' + "1" * 5000 + "}", "a whole number of thousands of digits"),
    ],
)
def test_what_is_no_json(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_the_deepest_value_can_be_parsed():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_a_name_that_occurs_twice():
    with pytest.raises(ValueError, match="'b' occurs twice in one object"):
        parse_json('{"a": {"b": 1, "c": 2, "b": 3}}', unique_names=True)
    assert parse_json('{"a": {"b": 1}, "b": 2}', unique_names=True) == {"a": {"b": 1}, "b": 2}


def test_a_sealed_document_and_line_notice_any_change():
    document = {"a": [1.5, "é"], "b": None}
    assert unsealed(sealed(document)) == unsealed(document) == document
    with pytest.raises(ValueError, match="not what was written"):
        unsealed(sealed(document) | {"b": 0})
    line = sealed_line('{"a": "é"}').encode()
    assert set(json.loads(line)) == {"a", "crc32"}
    assert unsealed_line(line) == unsealed_line(line + b"\n") == '{"a": "é"}'.encode()
    assert unsealed_line(b'{"a": 1}\n') == b'{"a": 1}\n'
    for changed in (line.replace(b'"a"', b'"b"'), b'{"a": 1, "crc32": 3}'):
        with pytest.raises(ValueError, match="not what was written"):
            unsealed_line(changed)
