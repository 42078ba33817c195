"""Stores of a bucket: copied once, continued after an interrupt, verified, uploaded when built."""

import dataclasses
import io

import pytest
from rich.console import Console

from instruct import buckets
from instruct.data.stores import staging, store
from instruct.data.stores.left_out import LeftOut, read_left_out
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.files import path_of
from tests.data.stores.test_prepare import mixture_of, statuses
from tests.data.toy import ToySource
from tests.gcs_emulator import KINDS, Faults
from tests.workspaces import workspace


@pytest.fixture
def host(gcs, tmp_path):
    """(name) -> the workspace of a host with a disk of its own, stores in the bucket."""
    address = path_of("gs://bucket/stores")
    return lambda name: workspace(store_dir=address, stage_dir=tmp_path / name)


def records(place, spec, split="train"):
    return list(store.Store(store.store_path(place, store.spec_key(spec), split)).stream(range(9)))


def test_one_host_builds_and_the_others_copy(host, gcs):
    (spec,), resolved, config = mixture_of(ToySource("a", size=30))
    first, second = host("first"), host("second")
    assert statuses(prepare(first, resolved, config)) == ["built", "built"]
    folder = f"stores/{store.spec_key(spec)}"
    names = [f"{folder}/train/{name}" for name in (store.MANIFEST_FILE, store.RECORDS_FILE)]
    assert gcs.names(f"{folder}/train/") == names
    # The source is not needed any more.
    object.__setattr__(spec, "source", ToySource("a", missing="not downloaded"))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    assert statuses(prepare(second, resolved, config, console=console)) == ["there", "there"]
    assert "staging" in screen.getvalue()
    assert records(second, spec) == records(first, spec)
    copied = gcs.requests["GET"]
    assert statuses(prepare(second, resolved, config)) == ["there", "there"]
    assert gcs.requests["GET"] - copied == 2  # the manifests


def test_an_evaluation_gets_the_splits_that_it_reads(host):
    (spec,), resolved, config = mixture_of(ToySource("a", size=30))
    prepare(host("first"), resolved, config)
    prepare(host("second"), resolved, config, ("validation",))
    own = records(host("first"), spec, "validation")
    assert records(host("second"), spec, "validation") == own
    assert not store.store_path(host("second"), store.spec_key(spec), "train").exists()


def test_a_store_that_was_not_uploaded_is_uploaded_later(host, gcs):
    (spec,), resolved, config = mixture_of(ToySource("a", size=30))
    prepare(host("first"), resolved, config)
    del gcs.objects["bucket", f"stores/{store.spec_key(spec)}/train/{store.MANIFEST_FILE}"]
    assert statuses(prepare(host("first"), resolved, config)) == ["there", "there"]
    assert statuses(prepare(host("second"), resolved, config)) == ["there", "there"]


def test_an_interrupted_copy_continues_and_is_never_taken_for_whole(host, monkeypatch):
    (spec,), resolved, config = mixture_of(ToySource("a", size=300))
    prepare(host("first"), resolved, config)
    path = store.store_path(host("second"), store.spec_key(spec), "train")
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 1000)
    read, starts = buckets.read_range, []

    def interrupted(remote, start, end):
        starts.append(start)
        if start == 2000 and starts.count(2000) == 1:
            raise OSError(5, "the bucket failed")
        return read(remote, start, end)

    monkeypatch.setattr(buckets, "read_range", interrupted)
    with pytest.raises(OSError):
        staging.stage_stores(host("second"), [path])
    assert store.read_manifest(path) is None
    staging.stage_stores(host("second"), [path])
    assert starts.count(0) == 1 and starts.count(2000) == 2
    assert records(host("second"), spec) == records(host("first"), spec)
    assert [one.name for one in path.parent.iterdir()] == ["train"]


def test_damage_is_noticed(host, gcs):
    (spec,), resolved, config = mixture_of(ToySource("a", size=30))
    prepare(host("first"), resolved, config)
    path = store.store_path(host("second"), store.spec_key(spec), "train")
    name = f"stores/{store.spec_key(spec)}/train/{store.RECORDS_FILE}"
    good = gcs.content(name)
    staging.stage_stores(host("second"), [path])
    # A copy with one changed byte: --verify reads that far.
    changed = bytearray(good)
    changed[70] ^= 255
    (path / store.RECORDS_FILE).write_bytes(bytes(changed))
    staging.stage_stores(host("second"), [path], verify=True)
    assert (path / store.RECORDS_FILE).read_bytes() == good
    # In the bucket itself: nothing of it is kept.
    for content in (bytes(changed), good[:50], b""):
        gcs.put(name, content)
        elsewhere = store.store_path(host("third"), store.spec_key(spec), "train")
        with pytest.raises(UserError, match=r"gs://bucket/stores/.*/train is damaged.*prepare"):
            staging.stage_stores(host("third"), [elsewhere])
        assert store.read_manifest(elsewhere) is None
    gcs.put(name.replace(store.RECORDS_FILE, store.MANIFEST_FILE), b"{")
    with pytest.raises(UserError, match=r"gs://bucket/stores/.*/train is damaged.*manifest"):
        staging.stage_stores(host("third"), [elsewhere])


def test_a_store_that_was_built_anew_replaces_the_copies(host):
    (spec,), resolved, config = mixture_of(ToySource("a", size=10))
    prepare(host("first"), resolved, config).check()
    prepare(host("second"), resolved, config).check()
    object.__setattr__(spec, "source", ToySource("a", size=11))
    assert [s.records for s in prepare(host("first"), resolved, config).stores] == [11, 11]
    object.__setattr__(spec, "source", ToySource("a", missing="not downloaded"))
    assert [s.records for s in prepare(host("second"), resolved, config).stores] == [11, 11]


def test_errors_of_the_service_lose_nothing(host, gcs):
    sources = [ToySource(f"a{number}", size=30) for number in range(4)]
    specs, resolved, config = mixture_of(*sources)
    gcs.faults = Faults(seed=4, count=20, share=0.5, kinds=KINDS[:-1])
    assert set(statuses(prepare(host("first"), resolved, config))) == {"built"}
    assert set(statuses(prepare(host("second"), resolved, config))) == {"there"}
    assert gcs.faults.injected.total() == 20
    for spec in specs:
        assert records(host("second"), spec) == records(host("first"), spec)


def test_no_work_before_a_bucket_that_cannot_be_written(host, gcs):
    (_,), resolved, config = mixture_of(ToySource("a", broken=True))
    elsewhere = dataclasses.replace(
        host("first"), store_dir=path_of("gs://nowhere/stores"), store_bucket=None
    )
    with pytest.raises(UserError, match="there is no bucket gs://nowhere"):
        prepare(elsewhere, resolved, config)


def test_a_full_disk_is_noticed_before_the_copy(host, monkeypatch):
    (_,), resolved, config = mixture_of(ToySource("a", size=30))
    prepare(host("first"), resolved, config)
    usage = staging.shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"0\.00 GB free.*INSTRUCT_STAGE_DIR"):
        prepare(host("second"), resolved, config)


def test_what_is_left_out_is_shared(host):
    LeftOut("mine", "today", (), 3, {}).write(host("first"))
    shared = read_left_out(host("second"), "mine")
    assert shared is not None and shared.num_tasks_left == 3
