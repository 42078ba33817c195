"""metrics.jsonl has each step once, whatever happened to the process that wrote it."""

import json
import struct

import numpy as np
import pytest

from instruct.summaries import METRICS_FILE, TENSORBOARD_FOLDER, Summaries


def rows(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_lines_are_there_at_once_and_exact(tmp_path):
    summaries = Summaries(tmp_path)
    loss = 0.1 + 0.2
    summaries.write(10, {"loss": loss, "examples": 7, "accuracy": np.float32(0.5)})
    assert rows(tmp_path) == [{"step": 10, "loss": loss, "examples": 7, "accuracy": 0.5}]
    summaries.close()


def test_not_finite_is_null(tmp_path):
    summaries = Summaries(tmp_path, tensorboard=False)
    summaries.write(1, {"loss": float("nan"), "z_loss": float("inf")})
    summaries.close()
    assert rows(tmp_path) == [{"step": 1, "loss": None, "z_loss": None}]


def test_resume_drops_later_steps_and_a_torn_line(tmp_path):
    first = Summaries(tmp_path, tensorboard=False)
    for step in (10, 20, 30):
        first.write(step, {"loss": step})
    first.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4')
    second = Summaries(tmp_path, resumed_step=20, tensorboard=False)
    second.write(30, {"loss": 31})
    second.close()
    assert rows(tmp_path) == [{"step": 10, "loss": 10}, {"step": 20, "loss": 20}] + [
        {"step": 30, "loss": 31}
    ]
    third = Summaries(tmp_path, tensorboard=False)
    third.close()
    assert rows(tmp_path) == []


SAVED = [{"step": 10, "loss": 10.5}, {"step": 20, "loss": None}]
WHOLE = "".join(json.dumps(row) + "\n" for row in SAVED)


@pytest.mark.parametrize(
    ("content", "restored"),
    [
        (None, 2),
        (b"", 2),
        (b"\x00\xff garbage", 2),
        (WHOLE.encode()[20:], 1),
        (WHOLE.replace("10.5", "10.4").encode(), 1),
        (WHOLE.replace("20", "21").encode(), 1),
        # What every interrupted run leaves, and what means the same.
        (WHOLE.encode() + b'{"step": 30, "loss": 1}\n{"st', 0),
        (b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode(), 0),
        ("".join(reversed(WHOLE.splitlines(keepends=True))).encode(), 0),
    ],
)
def test_rows_of_the_checkpoint_replace_damaged_ones(content, restored, tmp_path):
    if content is not None:
        (tmp_path / METRICS_FILE).write_bytes(content)
    said = []
    summaries = Summaries(tmp_path, 20, tensorboard=False, saved_rows=SAVED, say=said.append)
    summaries.write(30, {"loss": 3})
    summaries.close()
    assert rows(tmp_path) == [*SAVED, {"step": 30, "loss": 3}] == summaries.rows
    assert len(said) == bool(restored)
    if restored:
        assert f"{restored} of its 2 rows up to step 20 are restored" in said[0]


def test_without_a_copy_what_is_lost_is_said(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 10, "loss": 1}\n{"step": 15, "lo\n{"step": 16')
    said = []
    Summaries(tmp_path, 20, tensorboard=False, say=said.append).close()
    assert rows(tmp_path) == [{"step": 10, "loss": 1}]
    assert "1 damaged lines are dropped, 1 rows up to step 20 are left" in said[0]
    (tmp_path / METRICS_FILE).unlink()
    Summaries(tmp_path, 20, tensorboard=False, say=said.append).close()
    assert "0 rows up to step 20 are left" in said[1]


def test_rows_of_an_earlier_start_are_said_to_go(tmp_path):
    (tmp_path / METRICS_FILE).write_text(WHOLE)
    said = []
    Summaries(tmp_path, tensorboard=False, say=said.append).close()
    assert rows(tmp_path) == [] and "2 rows of an earlier start are dropped" in said[0]


def test_tensorboard_gets_the_same_scalars(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.write(3, {"loss": 1.5})
    summaries.close()
    (events,) = (tmp_path / TENSORBOARD_FOLDER).iterdir()
    content = events.read_bytes()
    assert b"loss" in content and struct.pack("<f", 1.5) in content
