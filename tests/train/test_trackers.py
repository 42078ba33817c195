"""metrics.jsonl has each step once, whatever happened to the process that wrote it."""

import json
import struct

import numpy as np
import pytest

from instruct.errors import UserError
from instruct.train.trackers import (
    METRICS_FILE,
    TENSORBOARD_FOLDER,
    JsonLines,
    TensorBoard,
    Tracker,
    check_trackers,
    open_trackers,
)


def open_json_lines(folder, step=0, saved_rows=None, say=lambda line: None):
    json_lines = JsonLines(saved_rows, say)
    json_lines.open(folder, step)
    return json_lines


def rows(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_lines_are_there_at_once_and_exact(tmp_path):
    json_lines = open_json_lines(tmp_path)
    loss = 0.1 + 0.2
    json_lines.scalars(10, {"loss": loss, "examples": 7, "accuracy": np.float32(0.5)})
    assert rows(tmp_path) == [{"step": 10, "loss": loss, "examples": 7, "accuracy": 0.5}]
    json_lines.close()


def test_not_finite_is_null(tmp_path):
    json_lines = open_json_lines(tmp_path)
    json_lines.scalars(1, {"loss": float("nan"), "z_loss": float("inf")})
    json_lines.close()
    assert rows(tmp_path) == [{"step": 1, "loss": None, "z_loss": None}]


def test_resume_drops_later_steps_and_a_torn_line(tmp_path):
    first = open_json_lines(tmp_path)
    for step in (10, 20, 30):
        first.scalars(step, {"loss": step})
    first.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4')
    second = open_json_lines(tmp_path, 20)
    second.scalars(30, {"loss": 31})
    second.close()
    assert rows(tmp_path) == [{"step": 10, "loss": 10}, {"step": 20, "loss": 20}] + [
        {"step": 30, "loss": 31}
    ]
    third = open_json_lines(tmp_path)
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
    json_lines = open_json_lines(tmp_path, 20, SAVED, said.append)
    json_lines.scalars(30, {"loss": 3})
    json_lines.close()
    assert rows(tmp_path) == [*SAVED, {"step": 30, "loss": 3}] == json_lines.rows
    assert len(said) == bool(restored)
    if restored:
        assert f"{restored} of its 2 rows up to step 20 are restored" in said[0]


def test_without_a_copy_what_is_lost_is_said(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 10, "loss": 1}\n{"step": 15, "lo\n{"step": 16')
    said = []
    open_json_lines(tmp_path, 20, say=said.append).close()
    assert rows(tmp_path) == [{"step": 10, "loss": 1}]
    assert "1 damaged lines are dropped, 1 rows up to step 20 are left" in said[0]
    (tmp_path / METRICS_FILE).unlink()
    open_json_lines(tmp_path, 20, say=said.append).close()
    assert "0 rows up to step 20 are left" in said[1]


def test_rows_of_an_earlier_start_are_said_to_go(tmp_path):
    (tmp_path / METRICS_FILE).write_text(WHOLE)
    said = []
    open_json_lines(tmp_path, say=said.append).close()
    assert rows(tmp_path) == [] and "2 rows of an earlier start are dropped" in said[0]


def test_tensorboard_gets_the_same_scalars(tmp_path):
    tensorboard = TensorBoard()
    tensorboard.open(tmp_path, 0)
    tensorboard.scalars(3, {"loss": 1.5})
    tensorboard.text("config.gin", "SEED = 3")
    tensorboard.close()
    (events,) = (tmp_path / TENSORBOARD_FOLDER).iterdir()
    content = events.read_bytes()
    assert b"loss" in content and struct.pack("<f", 1.5) in content
    assert b"    SEED = 3" in content


class Listing(Tracker):
    """Remembers its calls; the methods it does not override do nothing."""

    def __init__(self, fails=False):
        self.calls, self._fails = [], fails

    def scalars(self, step, values):
        self.calls.append((step, dict(values)))

    def close(self):
        self.calls.append("close")
        if self._fails:
            raise OSError("no connection")


def test_all_trackers_get_the_scalars_and_are_closed_whatever_one_raises(tmp_path):
    trackers = [Listing(), Listing(fails=True), Listing()]
    json_lines = JsonLines()
    with (
        pytest.raises(OSError, match="no connection"),
        open_trackers([json_lines, *trackers], tmp_path, 0),
    ):
        for tracker in (json_lines, *trackers):
            tracker.scalars(2, {"loss": 0.5})
            tracker.text("a.gin", "x = 1")
            tracker.table("mixture", [{"name": "a"}])
    assert [tracker.calls for tracker in trackers] == [[(2, {"loss": 0.5}), "close"]] * 3
    assert rows(tmp_path) == json_lines.rows == [{"step": 2, "loss": 0.5}]


def test_other_processes_call_no_tracker(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    tracker = Listing()
    with open_trackers([JsonLines(), tracker], tmp_path, 0) as own:
        assert list(own) == []
    assert tracker.calls == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [Listing, "tensorboard", None])
def test_what_is_no_tracker_is_named(wrong):
    with pytest.raises(UserError, match="which is no Tracker"):
        check_trackers([wrong])
