"""Prompts from files of every layout, and what is said of lines that are none."""

import gzip
import json
import os
import threading

import pytest

from instruct.errors import UserError
from instruct.eval.prompt_lines import (
    BadLine,
    check_prompts,
    prompt_file,
    prompts_only,
    read_prompts,
)

BAD_LINES = [
    (b'{"inputs": "a"', "line 2: not JSON"),
    (b'{"inputs": "\xff\xfe"}', "line 2: text is not UTF-8"),
    (rb'{"inputs": "a\ud83d"}', "line 2: half of a surrogate pair"),
    (b'["a"]', "line 2: list instead of an object"),
    (b'{"question": "a"}', "line 2: has neither `inputs` nor `prompt` (but question)"),
    (b'{"inputs": 3}', "line 2: `inputs` is 3, must be text"),
    (b'{"inputs": null}', "line 2: `inputs` is null, must be text"),
    (b'{"inputs": ["a"]}', 'line 2: `inputs` is ["a"], must be text'),
    (b'{"inputs": " "}', "line 2: `inputs` is empty"),
    (b'{"inputs": "a", "score": 1}', "line 2: has `score` already"),
    (b'{"inputs": "a", "inputs": "b"}', "line 2: not JSON: 'inputs' occurs twice"),
    (b'{"inputs": "a\x00"}', "line 2: not JSON"),
    (b'{"inputs": "a", "x": ' + b"[" * 100_000, "line 2: not JSON: nested too deep"),
    (b'{"inputs": "a", "x": ' + b"[" * 300 + b"]" * 300 + b"}", "line 2: not JSON: nested too"),
    (b'{"inputs": "a", "x": ' + b"1" * 5000 + b"}", "line 2: not JSON: it holds a whole number"),
    (b"inputs\tid", "line 2: not JSON"),
]


@pytest.mark.parametrize("line,message", BAD_LINES)
def test_a_bad_line_is_told_with_its_number(tmp_path, line, message):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"inputs": "fine"}\n' + line + b'\n{"inputs": "good"}')
    count, (bad,) = check_prompts(path)
    assert count == 2 and f"{bad.location}: {bad.reason}".startswith(message)


def test_a_line_may_be_long_and_hold_any_text(tmp_path):
    texts = ["x" * 3_000_000, "\u2028 \x85 \x00 \ufeff", "é" * 9, '"\\', "\n"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"prompt": t}) for t in texts))
    *found, blank = read_prompts(tmp_path / "in.jsonl")
    assert [prompt.text for prompt in found] == texts[:-1]
    assert blank == BadLine("line 5", "`prompt` is empty")


def test_a_pipe_is_copied_so_that_it_can_be_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=('{"prompt": "a"}\n',))
    writer.start()
    with prompt_file(str(tmp_path / "pipe")) as path:
        assert check_prompts(path) == check_prompts(path) == (1, [])
    writer.join()
    assert not path.exists()


def zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.Codec("zstd").compress(data, asbytes=True)


LAYOUTS = {
    "byte-order mark": lambda lines: b"\xef\xbb\xbf" + b"\n".join(lines),
    "blank lines": lambda lines: b"\n \n" + b"\n\t\n\n".join(lines) + b"\n\n",
    "CRLF": lambda lines: b"\r\n".join(lines) + b"\r\n",
    "array": lambda lines: b"[" + b",\n".join(lines) + b"]",
    "gzip": lambda lines: gzip.compress(b"\n".join(lines) + b"\n"),
    "gzip with a mark": lambda lines: gzip.compress(b"\xef\xbb\xbf" + b"\n\n".join(lines)),
    "Zstandard": lambda lines: zstandard(b"\n".join(lines)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_the_readers_of_data_accept(tmp_path, layout):
    lines = [json.dumps({"inputs": f"question {n}", "id": 7}) for n in range(9)]
    path = tmp_path / "in.jsonl"
    path.write_bytes(LAYOUTS[layout]([line.encode() for line in lines]))
    assert check_prompts(path) == (9, [])
    found = list(prompts_only(path))
    assert [prompt.line for prompt in found] == lines
    assert [prompt.text for prompt in found] == [f"question {n}" for n in range(9)]


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "holds no prompt that can be answered: it is empty"),
        (b"\n\n", "it is empty"),
        (b"[]", "it is empty"),
        ('{"inputs": "a"}'.encode("utf-16"), "UTF-16 text"),
        (b"inputs,id\nWhat?,3\n", "line 1: not JSON"),
        (b"\n".join([b"a"] * 500), "490 more lines like these"),
        (b'[{"inputs": "a"},', "neither JSON lines nor a JSON array"),
        (
            b'{\n "inputs": "a",\n "id": 1\n}',
            "one JSON object on several lines, with 'inputs', 'id'",
        ),
        (gzip.compress(b'{"inputs": "a"}' * 1000, mtime=0)[:-20], "cannot be unpacked"),
        (zstandard(b'{"inputs": "a"}' * 1000)[:-20], "cannot be unpacked"),
    ],
)
def test_files_without_any_prompt_are_refused(tmp_path, content, message):
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        check_prompts(tmp_path / "in.jsonl")
