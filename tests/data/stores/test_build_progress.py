"""Time left goes by rows: a huge store that has begun weighs more than many small ones done."""

import io

from rich.console import Console

from instruct.data.stores.jobs import Job
from instruct.data.stores.prepare import BuildProgress
from tests.workspaces import workspace


def jobs(tmp_path, number):
    return [
        Job(workspace(), f"t{i}", "toy", "train", tmp_path / str(i), "1", None, "")
        for i in range(number)
    ]


def test_time_left_is_weighted_by_rows(tmp_path):
    huge, *small = jobs(tmp_path, 4)
    bar = BuildProgress([huge, *small], {huge: 970, small[0]: 10, small[1]: 10, small[2]: 10}, None)
    assert "? left" in bar.note(5.0)
    for job in small:
        bar.add_rows(job, 9)  # a row less than declared: finished all the same
        bar.finish(job)
    # 3 of 4 stores, 30 of 1,000 rows.
    assert bar.tasks[0].completed == 30
    assert "0:01:37 left" in bar.note(3.0)
    bar.add_rows(huge, 470)
    assert "0:00:10 left" in bar.note(10.0)
    bar.add_rows(huge, 9000)  # more than declared: not more than all
    assert "0:00:00 left" in bar.note(10.0)
    assert "3/4 stores, 9,497 rows, 950 rows/s" in bar.note(10.0)


def test_unknown_sizes_count_as_the_mean_of_the_known(tmp_path):
    known, other, unknown = jobs(tmp_path, 3)
    bar = BuildProgress([known, other, unknown], {known: 100, other: 300}, None)
    bar.finish(unknown)
    assert bar.tasks[0].completed == 200
    bar = BuildProgress([known, other], {}, None)
    bar.finish(known)
    assert "0:00:07 left" in bar.note(7.0)


def test_it_is_shown(tmp_path):
    (job,) = jobs(tmp_path, 1)
    out = io.StringIO()
    with BuildProgress([job], {job: 40}, Console(file=out, width=120)) as bar:
        bar.add_rows(job, 40)
        bar.finish(job)
    assert "1/1 stores, 40 rows" in out.getvalue() and "0:00:00 left" in out.getvalue()
