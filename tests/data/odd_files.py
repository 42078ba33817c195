"""Data files as users have them: each gives the right task, or one message that says what is wrong.

`python -m tests.data.odd_files FOLDER` writes them all.
"""

import gzip
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("--inputs=text", "--targets=label")
ROWS = [
    {"text": f"Day {n}: {'rain' if n % 2 else 'sun'}", "label": "wet" if n % 2 else "dry"}
    for n in range(20)
]
LONG = [
    {"text": f"talk {n}", "label": f"Number {n} is a talk about the weather"} for n in range(12)
]


class OddFile(NamedTuple):
    """A file and what becomes of it.

    Attributes:
        name: its path below the folder; of a folder, its files begin with it.
        write: writes it at a path.
        says: words of the notes on standard error, or of the error.
        records: of all splits; None for an error.
        flags: beside --data.
        example: words of the first prompt and answer that are shown.
    """

    name: str
    write: Callable[[pathlib.Path], Any]
    says: Sequence[str]
    records: int | None = None
    flags: Sequence[str] = COLUMNS
    example: Sequence[str] = ()


def lines(rows: Sequence[Any], end: str = "\n") -> bytes:
    """JSON lines; a text is a line as it is."""
    texts = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows)
    return "".join(text + end for text in texts).encode()


def content(data: bytes | str) -> Callable[[pathlib.Path], Any]:
    data = data.encode() if isinstance(data, str) else data
    return lambda path: path.write_bytes(data)


def parquet(rows: Sequence[dict[str, Any]]) -> Callable[[pathlib.Path], Any]:
    return lambda path: pq.write_table(pa.Table.from_pylist(list(rows)), path)


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def folder(**files: Callable[[pathlib.Path], Any]) -> Callable[[pathlib.Path], Any]:
    """A folder; two underscores of a name are its dot, a "of" with dashes stays."""

    def write(path: pathlib.Path) -> None:
        for name, write_one in files.items():
            file = path / name.replace("__", ".").replace("_of_", "-of-").replace("_0", "-0")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_one(file)

    return write


def nothing(path: pathlib.Path) -> None:
    del path


CHAT = [
    {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Yes"}]}
    for n in range(10)
]
CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
REJECTED = "rejected"

ODD_FILES = [
    # Right tasks.
    OddFile("plain.jsonl", content(lines(ROWS)), ["20 rows, 0 rejected", "metric: accuracy"], 20),
    OddFile("windows.jsonl", content(lines(ROWS, "\r\n")), ["0 rejected"], 20, example=["-> dry"]),
    OddFile("codes.jsonl", content(lines([{"text": ":x:", "label": "y"}])), [], 1, example=[":x:"]),
    OddFile("bom.jsonl", content(b"\xef\xbb\xbf" + lines(ROWS)), ["0 rejected"], 20),
    OddFile("no_last_line_end.jsonl", content(lines(ROWS).rstrip()), ["0 rejected"], 20),
    OddFile("blank_lines.jsonl", content(lines(ROWS, "\n\n  \n")), ["0 rejected"], 20),
    OddFile("array.json", content(json.dumps(ROWS, indent=1)), ["0 rejected"], 20),
    OddFile("array_on_one_line.json", content(json.dumps(ROWS)), ["0 rejected"], 20),
    OddFile("array_named_lines.jsonl", content(json.dumps(ROWS, indent=1)), ["20 rows"], 20),
    OddFile(
        "object_with_a_list.json",
        content(json.dumps({"version": 1, "data": ROWS}, indent=1)),
        ["its rows are the list 'data'"],
        20,
    ),
    OddFile("packed.jsonl.gz", content(gzip.compress(lines(ROWS))), ["0 rejected"], 20),
    OddFile("packed.jsonl.zst", content(zstd(lines(ROWS))), ["0 rejected"], 20),
    OddFile("packed.csv.gz", content(gzip.compress(CSV.encode())), ["0 rejected"], 20),
    OddFile("packed_without_ending.json", content(gzip.compress(lines(ROWS))), ["20 rows"], 20),
    OddFile("no_ending", content(lines(ROWS)), ["20 rows"], 20),
    OddFile("plain.csv", content(CSV), ["separated by ','"], 20),
    OddFile("windows.csv", content(CSV.replace("\n", "\r\n")), ["0 rejected"], 20),
    OddFile("bom.csv", content("\ufeff" + CSV), ["0 rejected"], 20),
    OddFile("semicolons.csv", content(CSV.replace(",", ";")), ["separated by ';'"], 20),
    OddFile("plain.tsv", content(CSV.replace(",", "\t")), ["separated by tab"], 20),
    OddFile(
        "quoted.csv",
        content('text,label\n"one, two\nthree ""four""",wet\nfive,dry\n'),
        ["2 rows, 0 rejected"],
        2,
        example=['one, two\nthree "four"\n-> wet'],
    ),
    OddFile(
        "quotes_within.tsv",
        content('text\tlabel\n"Hello" she said\twet\nfive\tdry\n'),
        ["2 rows, 0 rejected", "quotes are characters"],
        2,
        (*COLUMNS, "--held_out_share=0"),
        ['"Hello" she said\n-> wet'],
    ),
    OddFile(
        "open_quote.csv",
        content('text,label\n"a, b",wet\nfive,dry\n"six,dry\nseven,wet\n'),
        ["4 rows, 1 rejected: not CSV from here: a quote is not closed", "line 4"],
        3,
    ),
    OddFile(
        "no_header.csv",
        content(CSV.partition("\n")[2]),
        ["there is no header"],
        20,
        ("--inputs=1", "--targets=2"),
    ),
    OddFile(
        "spaces_in_header.csv",
        content(CSV.replace("text,label", " text , label ")),
        ["20 rows"],
        20,
    ),
    OddFile("plain.parquet", parquet(ROWS), ["20 rows"], 20),
    OddFile(
        "numbers.jsonl",
        content(lines([{"text": f"{n} + 1", "label": n + 1} for n in range(12)])),
        ["12 targets are numbers or truth values, written as text", "metric: exact_match"],
        12,
        example=["0 + 1\n-> 1"],
    ),
    OddFile(
        "truth_values.jsonl",
        content(lines([{"text": f"day {n}", "label": n % 2 == 0} for n in range(12)])),
        ["12 targets are numbers or truth values", "metric: accuracy (2 different"],
        12,
        example=["-> true"],
    ),
    OddFile(
        "lists_of_answers.jsonl",
        content(lines([{"text": f"q {n}", "label": [f"a {n}", f"b {n}"]} for n in range(12)])),
        ["12 targets are lists"],
        12,
        example=["-> a 0"],
    ),
    OddFile(
        "nested.jsonl",
        content(lines([{"id": n, "talk": {"text": f"t {n}"}, "label": "x y"} for n in range(9)])),
        ["inputs: talk.text"],
        9,
        ("--inputs=talk.text", "--targets=label", "--template=Sum up: {talk.text}"),
        ["Sum up: t 0"],
    ),
    OddFile(
        "nested.parquet",
        parquet([{"talk": {"text": f"t {n}"}, "label": "x y"} for n in range(9)]),
        ["inputs: talk.text"],
        9,
        ("--inputs=talk.text", "--targets=label"),
    ),
    OddFile(
        "turns.jsonl",
        content(lines([{"text": ["A: Hi", "B: Yes?"], "label": f"{n}"} for n in range(9)])),
        ["9 rows"],
        9,
        example=["A: Hi\nB: Yes?\n->"],
    ),
    OddFile("chat.jsonl", content(lines(CHAT)), ["conversations of the column 'messages'"], 10, ()),
    OddFile("one_conversation.json", content(json.dumps(CHAT[0])), ["no validation split"], 1, ()),
    OddFile(
        "special_names.jsonl",
        content(lines([{"options": "a or b", "Full name": "x", "answer": "a"}] * 3)),
        ["2 rows have the inputs and targets of an earlier row"],
        3,
        ("--template={Full name}: {options}?", "--targets=answer"),
        ["x: a or b?"],
    ),
    OddFile("long.jsonl", content(lines(LONG)), ["metric: rouge (targets of 8 words"], 12),
    OddFile(
        "chinese.jsonl",
        content(lines([{"text": f"{n}", "label": "今天天气很好我们去公园"} for n in range(9)])),
        ["metric: rouge_unicode"],
        9,
    ),
    OddFile("hub", folder(train_00000_of_00001__parquet=parquet(ROWS)), ["20 rows"], 20),
    OddFile(
        "texts",
        folder(
            train__tsv=content(CSV.replace(",", "\t")),
            test__csv__gz=content(gzip.compress(CSV.encode())),
            dev__jsonl__zst=content(zstd(lines(ROWS))),
        ),
        ["separated by tab", "train 20, validation 20, test 20"],
        60,
    ),
    OddFile(
        "hub_splits",
        folder(
            train_00000_of_00002__parquet=parquet(ROWS[:10]),
            train_00001_of_00002__parquet=parquet(ROWS[10:]),
            validation_00000_of_00001__parquet=parquet(ROWS[:5]),
            README__md=content("read me"),
        ),
        ["train 20, validation 5", "warning: 5 of 5 validation rows have inputs of a train row"],
        25,
    ),
    OddFile(
        "empty_targets.jsonl",
        content(
            lines([*ROWS, {"text": "x", "label": ""}, {"text": "y", "label": None}, {"text": 1}])
        ),
        ["3 rejected: 'label' is empty (2: line 21, line 22); no value for 'label' (1: line 23)"],
        20,
    ),
    OddFile(
        "some_bad.jsonl",
        content(lines([*ROWS, "{oops", "[1]", {"text": "x", "label": {"a": 1}}, {"label": "wet"}])),
        [
            "line is not JSON (1: line 21)",
            "line is not a JSON object (1: line 22)",
            "'label' is an object, not text (1: line 23)",
            "no value for 'text' (1: line 24)",
        ],
        20,
    ),
    OddFile(
        "half_a_pair.jsonl",
        content(lines(ROWS) + b'{"text": "smile \\ud83d", "label": "wet"}\n'),
        ["half of a surrogate pair (1: line 21)"],
        20,
    ),
    OddFile(
        "half_a_pair_in_a_chat.jsonl",
        content(lines(CHAT) + lines(CHAT[:1]).replace(b"Yes", b"\\ud83d")),
        ["half of a surrogate pair (1: line 11)"],
        10,
        (),
    ),
    OddFile(
        "nulls.parquet",
        parquet([*ROWS[:9], {"text": "x", "label": None}]),
        ["'label' is empty (1: row 10)"],
        9,
    ),
    OddFile(
        "images.parquet",
        parquet([{"text": b"\x89PNG", "label": "cat"}] * 2),
        ["none of its 2 rows can be used", "'text' is", "row 1, row 2"],
    ),
    OddFile(
        "ragged.csv",
        content(CSV + "one cell\na,b,c\n"),
        ["line does not have 2 columns (2: line 22, line 23)"],
        20,
    ),
    OddFile(
        "huge_cell.csv",
        content(CSV + f"{'x' * 200_000},wet\nshort,dry\n"),
        ["128 KiB in a cell (1: line 22)"],
        21,
    ),
    OddFile(
        "huge_line.jsonl",
        content(lines([*ROWS, {"text": "x" * 3_000_000, "label": "wet"}])),
        ["21 rows, 0 rejected"],
        21,
    ),
    OddFile(
        "twice.jsonl",
        content(lines(ROWS + ROWS[:7])),
        ["7 rows have the inputs and targets of an earlier row; they stay"],
        27,
    ),
    OddFile(
        "one_latin_row_of_many.jsonl",
        content(lines(ROWS * 10) + b'{"text": "caf\xe9", "label": "dry"}\n'),
        ["text is not UTF-8 (1: line 201)"],
        200,
    ),
    # Errors.
    OddFile("missing.jsonl", nothing, ["missing.jsonl", "no such file", "In "]),
    OddFile("empty.jsonl", content(""), ["empty.jsonl is empty"]),
    OddFile("blank.csv", content("\n \n"), ["blank.csv is empty"]),
    OddFile("header_only.csv", content("text,label\n"), ["it holds no row"]),
    OddFile("empty.parquet", lambda path: pq.write_table(pa.table({"text": []}), path), ["no row"]),
    OddFile("all_bad.jsonl", content("no\nnone\n"), ["all_bad.jsonl", "line 1: line is not JSON"]),
    OddFile(
        "all_empty.jsonl",
        content(lines([{"text": "x", "label": ""}] * 5)),
        ["none of its 5 rows can be used", "'label' is empty (5: line 1, line 2, line 3, ...)"],
    ),
    OddFile(
        "other_columns.jsonl",
        content(lines([{"Text": "x", "labels": "y"}])),
        ["unknown column 'text'", "Did you mean 'Text'", "Columns: Text, labels"],
    ),
    OddFile(
        "no_header_but_names.csv",
        content(CSV.partition("\n")[2]),
        ["unknown column 'text'", "--inputs=1 --targets=2"],
    ),
    OddFile(
        "no_columns_named.jsonl",
        content(lines(ROWS)),
        ["which column holds the inputs and which the targets", "text, label", "--inputs=COLUMN"],
        flags=(),
    ),
    OddFile(
        "no_columns_named.csv",
        content("text;label\n1, 2;x\n"),
        ["Its columns are text, label"],
        flags=(),
    ),
    OddFile(
        "one_name_twice.csv",
        content("text,text,label\na,b,c\n"),
        ["several columns are called 'text'"],
    ),
    OddFile("latin.csv", content(CSV.replace("rain", "café").encode("latin-1")), ["iconv", "line"]),
    OddFile("utf16.csv", content(CSV.encode("utf-16")), ["utf16.csv is UTF-16", "iconv"]),
    OddFile("utf16_without_mark.csv", content(CSV.encode("utf-16-le")), ["zero bytes", "UTF-8"]),
    OddFile("sheet.csv", content(b"PK\x03\x04 and more"), ["Excel", "CSV"]),
    OddFile("packed.jsonl.bz2", content(b"BZh91AY"), ["bzip2"]),
    OddFile("torn.jsonl.gz", content(gzip.compress(lines(ROWS))[:40]), ["cannot be unpacked"]),
    OddFile("torn.parquet", content(b"PAR1 and nothing more"), ["torn.parquet cannot be read"]),
    OddFile("words.txt", content("Some words.\n"), ["no ending that says what it is", ".jsonl"]),
    OddFile(
        "folder_of_texts", folder(a__txt=content("a")), ["no file of a split 'train'", "a.txt"]
    ),
    OddFile(
        "lost_shard",
        folder(train_00000_of_00002__parquet=parquet(ROWS)),
        ["lacks train-00001-of-00002.parquet"],
    ),
    OddFile(
        "two_lists.json",
        content(json.dumps({"train": ROWS, "dev": ROWS})),
        ["several lists of rows (train, dev)"],
    ),
    OddFile(
        "shows_the_answer.jsonl",
        content(lines(ROWS)),
        ["the prompt would show the answer"],
        flags=("--template={text} {label}", "--targets=label"),
    ),
    OddFile(
        "wrong_placeholder.jsonl",
        content(lines(ROWS)),
        ["unknown placeholder of a template 'txt'", "'text'"],
        flags=(*COLUMNS, "--template=Sum up: {txt}"),
    ),
    OddFile(
        "stray_brace.jsonl",
        content(lines(ROWS)),
        ["stray '{'", "double it"],
        flags=(*COLUMNS, "--template={text} {"),
    ),
    OddFile(
        "no_placeholder.jsonl",
        content(lines(ROWS)),
        ["it shows no column", "{text}"],
        flags=(*COLUMNS, "--template=Sum up."),
    ),
    OddFile(
        "unknown_metric.jsonl",
        content(lines(ROWS)),
        ["unknown metric 'rogue'", "Did you mean 'rouge'"],
        flags=(*COLUMNS, "--metric=rogue"),
    ),
    OddFile(
        "wrong_share.jsonl",
        content(lines(ROWS)),
        ["held_out_share is 5", "in [0, 1)"],
        flags=(*COLUMNS, "--held_out_share=5"),
    ),
    OddFile("no_table.toml", content("data = 'a'\n"), ["no task file", "[task]"], flags=()),
    OddFile("no_data.toml", content("[task]\n"), ["data is missing"], flags=()),
    OddFile(
        "unknown_key.toml",
        content("[task]\ndata = 'plain.jsonl'\ninput = 'text'\n"),
        ["unknown key 'input'", "'inputs'"],
        flags=(),
    ),
    OddFile("no_toml.toml", content("[task\n"), ["not TOML", "line 1"], flags=()),
]


def write_all(target: pathlib.Path) -> None:
    """Writes every file into a folder."""
    for odd in ODD_FILES:
        odd.write(target / odd.name)


if __name__ == "__main__":
    write_all(pathlib.Path(sys.argv[1]))
