"""Plain lines where nobody watches, a bar on a terminal, nothing when quiet."""

import io
import itertools
import types

import pytest
from rich.console import Console

from instruct.train.progress import ProgressReport

SCALARS = {"loss": 2.34567, "accuracy": 0.5, "real_tokens_per_sec": 12345.6, "peak_share": 0.42}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every look at the clock is two seconds later than the one before."""
    looks = types.SimpleNamespace(perf_counter=itertools.count(100.0, 2.0).__next__)
    monkeypatch.setattr("instruct.train.progress.time", looks)


def shown(scalars, **console):
    text = io.StringIO()
    report = ProgressReport(100, 300, Console(file=text, width=160, **console))
    with report:
        report.note("begins [here]")
        report.advance(199)
        report.show(200, scalars, "eval/own.a/f1")
    return text.getvalue()


def test_log_lines():
    scalars = SCALARS | {"eval/loss": 3.0, "eval/own.a/f1": 41.25678}
    lines = shown(scalars, force_terminal=False).splitlines()
    assert lines[0] == "begins [here]"
    expected = "step 200 of 300  loss 2.3457  accuracy 0.500  tokens/s 12,346  of peak 42%"
    assert lines[1].startswith(expected + "  eval loss 3.0000  eval/own.a/f1 41.26  left 0:00:02")
    assert len(lines) == 2


def test_bar_on_a_terminal():
    text = shown(SCALARS, force_terminal=True)
    assert "200/300" in text and "loss 2.3457" in text and "left" in text and "[here]" in text


def test_quiet():
    assert shown(SCALARS, quiet=True) == ""
