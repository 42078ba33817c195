"""What stores will take is measured where it can be, and plainly too much is refused at once."""

import collections
import io
import json

import pytest
from rich.console import Console

from instruct.data import registry
from instruct.data.sources.alternates import Alternates
from instruct.data.sources.files import FieldMap, JsonLinesSource, Part, hashed_parts
from instruct.data.sources.tfds import TfdsSource
from instruct.data.stores import disk_estimate, store
from instruct.data.stores.disk_estimate import DEFAULT_RECORD_BYTES, estimate_disk, source_size
from instruct.data.stores.jobs import store_jobs
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace

Usage = collections.namedtuple("Usage", "total used free")


def no_record(row, identity):
    return Dropped("never read")


def jobs_of(*specs):
    name = fresh_name("mix")
    registry.add_mixture(name, {registry.add_task(spec).name: 1 for spec in specs})
    resolved, config = registry.resolve(workspace(), name), toy_config(name)
    return (
        resolved,
        config,
        list(store_jobs(workspace(), resolved, config, ("train", "validation"))),
    )


def test_records_are_measured_on_what_is_there():
    resolved, config, jobs = jobs_of(
        toy_spec(ToySource("a", size=60), num_examples={"train": 60, "validation": 600}),
        toy_spec(ToySource("b", size=60), num_examples={"train": 6000}),
        toy_spec(ToySource("c")),
    )
    guess = estimate_disk(workspace(), jobs, {})
    assert guess.rows == {jobs[0]: 60, jobs[1]: 600, jobs[2]: 6000}
    assert guess.total_bytes == 6660 * DEFAULT_RECORD_BYTES
    assert "3 of unknown size not counted" in guess.describe() and "guess" in guess.describe()
    assert guess.biggest_first()[0] is jobs[2] and guess.biggest_first()[-1] is jobs[0]

    prepare(workspace(), resolved, config, ("train",)).check()
    manifests = {job: store.Store(job.path).manifest for job in jobs if job.split == "train"}
    better = estimate_disk(workspace(), [jobs[1]], manifests)
    own = manifests[jobs[0]]
    assert better.total_bytes == 600 * own.num_bytes / own.num_records
    other = estimate_disk(workspace(), [jobs[2]], {jobs[0]: own})
    assert other.total_bytes == 6000 * own.num_bytes / own.num_records
    assert "as measured" in other.describe()


def test_files_and_prepared_tfds_rows_say_how_big_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "a.jsonl").write_text("x" * 1000)
    fields = FieldMap({"question": "q"}, "a")
    files = JsonLinesSource("a", hashed_parts("a.jsonl"), field_map=fields)
    assert source_size(workspace(), files, "train") == (None, 900)
    assert source_size(workspace(), files, "test") == (None, 50)
    absent = JsonLinesSource("b", {"train": Part("b.jsonl")}, field_map=fields)
    assert source_size(workspace(), absent, "train") == (None, None)
    assert source_size(workspace(), Alternates((absent, files)), "train") == (None, 900)
    assert source_size(workspace(), Alternates((absent,)), "train") == (None, None)

    folder = tmp_path / "glue" / "sst2" / "2.0.0"
    folder.mkdir(parents=True)
    splits = [
        {"name": "train", "shardLengths": ["30", "10"], "numBytes": "5000"},
        {"name": "test", "shardLengths": ["7"], "numBytes": "300"},
    ]
    slices = {"last": "train[-10:]", "middle": "train[25%:75%]+test[5:]", "rest": "train[10:-4]"}
    parts = {"train": "train[:90%]", "both": "train+test", "none": "dev"} | slices
    tfds = TfdsSource("glue/sst2:2.0.0", parts, no_record)
    assert source_size(workspace(), tfds, "train") == (None, None)
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    assert source_size(workspace(), tfds, "train") == (36, 4500)
    assert source_size(workspace(), tfds, "last") == (10, 1250)
    assert source_size(workspace(), tfds, "middle") == (22, 2586)
    assert source_size(workspace(), tfds, "rest") == (26, 3250)
    assert source_size(workspace(), tfds, "both") == (47, 5300)
    assert source_size(workspace(), tfds, "none") == (None, None)


def test_what_plainly_does_not_fit_is_refused_before_anything_is_written(monkeypatch):
    resolved, config, _ = jobs_of(toy_spec(ToySource("a"), num_examples={"train": 10**9}))
    free = 10**9
    monkeypatch.setattr(disk_estimate.shutil, "disk_usage", lambda _: Usage(0, 0, free))
    out = io.StringIO()
    with pytest.raises(UserError, match=r"931\.3 GiB.*953\.7 MiB.*--ignore_disk_estimate"):
        prepare(workspace(), resolved, config, console=Console(file=out, width=200))
    assert "2 stores to build" in out.getvalue()
    assert not workspace().store_dir.exists()
    prepare(workspace(), resolved, config, check_disk=False).check()
    # Only what is missing counts.
    prepare(workspace(), resolved, config).check()
