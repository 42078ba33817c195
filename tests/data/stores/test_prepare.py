"""Building stores: only what is missing, one broken source alone, the same bytes by any process."""

import errno
import io

import pytest
from rich.console import Console

from instruct import files
from instruct.data import registry
from instruct.data.stores import store
from instruct.data.stores.prepare import prepare, prepare_once
from instruct.errors import UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def mixture_of(*sources, **changes):
    specs = [registry.add_task(toy_spec(source, **changes)) for source in sources]
    name = fresh_name("mix")
    registry.add_mixture(name, {spec.name: 1 for spec in specs})
    return specs, registry.resolve(workspace(), name), toy_config(name)


def statuses(done):
    return [entry.status for entry in done.stores]


def test_what_is_there_is_kept_and_what_is_damaged_is_built_anew():
    (spec,), resolved, config = mixture_of(ToySource("a", size=30, drop_every=10))
    first = prepare(workspace(), resolved, config)
    assert statuses(first) == ["built", "built"]
    assert [(s.split, s.records, s.dropped) for s in first.stores] == [
        ("train", 27, {"empty answer": 3}),
        ("validation", 27, {"empty answer": 3}),
    ]
    assert statuses(prepare(workspace(), resolved, config)) == ["there", "there"]
    path = store.store_path(workspace(), store.spec_key(spec), "train")
    before = (path / store.RECORDS_FILE).read_bytes()
    # Same size, one byte changed: only --verify reads that far.
    changed = bytearray(before)
    changed[70] ^= 255
    (path / store.RECORDS_FILE).write_bytes(bytes(changed))
    assert statuses(prepare(workspace(), resolved, config, verify=True)) == ["built", "there"]
    assert (path / store.RECORDS_FILE).read_bytes() == before
    (path / store.MANIFEST_FILE).write_text("{")
    assert statuses(prepare(workspace(), resolved, config)) == ["built", "there"]
    assert statuses(prepare(workspace(), resolved, config, rebuild=True)) == ["built", "built"]


def test_finished_stores_may_be_in_a_folder_that_cannot_be_written(monkeypatch):
    _, resolved, config = mixture_of(ToySource("a"))

    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match="STORE_DIR .* cannot be written: Read-only"):
        prepare_once(workspace(), resolved, config, ("train",))
    monkeypatch.undo()
    prepare(workspace(), resolved, config).check()
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    assert statuses(prepare_once(workspace(), resolved, config, ("train",))) == ["there"]


def test_a_changed_source_is_read_again_and_an_absent_one_leaves_its_store():
    (spec,), resolved, config = mixture_of(ToySource("a", size=10))
    prepare(workspace(), resolved, config).check()
    object.__setattr__(spec, "source", ToySource("a", size=11))
    assert [s.records for s in prepare(workspace(), resolved, config).stores] == [11, 11]
    object.__setattr__(spec, "source", ToySource("a", size=12, missing="not downloaded"))
    assert statuses(prepare(workspace(), resolved, config)) == ["there", "there"]


def test_a_broken_source_fails_alone():
    _, resolved, config = mixture_of(
        ToySource("good"), ToySource("bad", broken=True), ToySource("gone", missing="download it")
    )
    done = prepare(workspace(), resolved, config, ("train",))
    assert statuses(done) == ["built", "failed", "failed"]
    assert [s.message for s in done.failed] == [
        "RuntimeError: the file ends in the middle",
        "download it",
    ]
    with pytest.raises(UserError, match=r"2 of 3 record stores(.|\n)*ends in the middle"):
        done.check()
    out = io.StringIO()
    done.print_failures(Console(file=out, width=40))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and lines[-1].endswith("(train): download it")


class Confused(ToySource):
    """Cannot even tell whether it is there."""

    def available(self, workspace):
        raise OSError("the folder's index is broken")


def test_a_source_that_cannot_be_asked_keeps_its_store_and_stops_no_other():
    (spec, _), resolved, config = mixture_of(ToySource("a"), ToySource("b"))
    prepare(workspace(), resolved, config).check()
    object.__setattr__(spec, "source", Confused("a"))
    assert statuses(prepare(workspace(), resolved, config)) == ["there"] * 4


def test_what_is_not_here_takes_no_disk_and_no_process():
    _, resolved, config = mixture_of(
        ToySource("gone", missing="download it"), Confused("broken"), num_examples={"train": 10**15}
    )
    out = io.StringIO()
    done = prepare(workspace(), resolved, config, ("train",), console=Console(file=out))
    assert statuses(done) == ["failed", "failed"] and not out.getvalue()
    assert done.failures()[1].endswith("(train): OSError: the folder's index is broken")


def test_processes_build_the_same_bytes():
    sources = [ToySource(f"p{i}", broken=i == 2) for i in range(6)]
    _, resolved, config = mixture_of(*sources, splits={"train": "train"})
    out = io.StringIO()
    done = prepare(workspace(), resolved, config, ("train",), workers=2, console=Console(file=out))
    assert statuses(done) == ["built", "built", "failed", "built", "built", "built"]
    assert "6/6 stores" in out.getvalue()
    paths = [
        store.store_path(workspace(), store.spec_key(leaf.spec), "train")
        for leaf in resolved.leaves
    ]
    manifests = [store.read_manifest(path) for path in paths]
    assert manifests[2] is None
    again = prepare(workspace(), resolved, config, ("train",), rebuild=True)
    assert statuses(again) == statuses(done)
    assert [store.read_manifest(path) for path in paths] == manifests


def test_few_shot_modes_need_the_exemplar_split():
    _, resolved, config = mixture_of(ToySource("a"), modes={"fs_noopt": 1})
    done = prepare(workspace(), resolved, config, ("validation", "test"))
    assert [s.split for s in done.stores] == ["validation", "train"]
