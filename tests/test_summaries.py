"""metrics.jsonl has each step once, whatever happened to the process that wrote it."""

import json
import struct

import numpy as np

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


def test_tensorboard_gets_the_same_scalars(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.write(3, {"loss": 1.5})
    summaries.close()
    (events,) = (tmp_path / TENSORBOARD_FOLDER).iterdir()
    content = events.read_bytes()
    assert b"loss" in content and struct.pack("<f", 1.5) in content
