"""Stores built by a Beam pipeline: the same bytes, failures alone, a folder that all reach."""

import io
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
from rich.console import Console

from instruct.data import registry
from instruct.data.stores import store
from instruct.data.stores.beam import BeamBuilder, absolute, build_element
from instruct.data.stores.jobs import store_jobs
from instruct.data.stores.prepare import prepare
from instruct.errors import RunFailed, UserError
from tests.data.toy import ToySource, fresh_name, toy_config, toy_spec
from tests.workspaces import workspace


def mixture_of(*sources):
    specs = [registry.add_task(toy_spec(source)) for source in sources]
    name = fresh_name("mix")
    registry.add_mixture(name, {spec.name: 1 for spec in specs})
    return registry.resolve(workspace(), name), toy_config(name)


class StandIn:
    """As much of Beam as the builder uses; each element goes through pickle, as Beam's do."""

    class Pipeline:
        def __init__(self, options):
            self.elements, self.works = [], []

        def __or__(self, step):
            kind, value = step
            (self.elements.extend if kind == "create" else self.works.append)(value)
            return self

        def run(self):
            for element in self.elements:
                for work in self.works:
                    plain = ForkingPickler.loads(ForkingPickler.dumps((work, element)))
                    element = plain[0](plain[1])
            return self

        def wait_until_finish(self):
            return "DONE"

    @staticmethod
    def Create(elements):
        return "create", elements

    @staticmethod
    def Map(work):
        return "map", work

    @staticmethod
    def PipelineOptions(flags):
        return flags


@pytest.fixture(params=["stand-in", "real"])
def beam(request, monkeypatch):
    """Beam itself where it is installed, and in any case something that runs its pipelines."""
    if request.param == "real":
        return pytest.importorskip("apache_beam", reason="needs the extra `instruct[beam]`")
    monkeypatch.setattr("instruct.data.stores.beam._import_beam", lambda: (StandIn, StandIn))
    return StandIn


def test_a_pipeline_builds_the_same_bytes_and_a_broken_source_fails_alone(beam):
    resolved, config = mixture_of(ToySource("a"), ToySource("b", broken=True), ToySource("c"))
    out = io.StringIO()
    builder = BeamBuilder("direct", ["direct_num_workers=1"], Console(file=out, width=200))
    done = prepare(workspace(), resolved, config, ("train",), elsewhere=builder)
    assert [entry.status for entry in done.stores] == ["built", "failed", "built"]
    assert "the file ends in the middle" in done.stores[1].message
    assert "DirectRunner" in out.getvalue() and str(workspace().store_dir) in out.getvalue()
    here = prepare(workspace(), resolved, config, ("train",), rebuild=True)
    assert [entry.sha256 for entry in here.stores] == [entry.sha256 for entry in done.stores]
    assert not list(workspace().store_dir.glob(".beam-*"))


def test_a_pipeline_that_breaks_is_told(beam, monkeypatch):
    resolved, config = mixture_of(ToySource("a"))
    builder = BeamBuilder("direct")
    monkeypatch.setattr("instruct.data.stores.beam.build_element", not_a_builder)
    with pytest.raises(RunFailed, match="pipeline failed.*no builder"):
        prepare(workspace(), resolved, config, ("train",), elsewhere=builder)
    monkeypatch.setattr("instruct.data.stores.beam.build_element", builder_elsewhere)
    with pytest.raises(UserError, match=r"^STORE_DIR .* does not hold .*all workers reach[^\[]*$"):
        prepare(workspace(), resolved, config, ("train",), elsewhere=builder)
    assert not list(workspace().store_dir.glob(".beam-*"))


def test_a_store_that_nobody_reports_has_failed(beam, monkeypatch):
    resolved, config = mixture_of(ToySource("a"), ToySource("b"))
    monkeypatch.setattr("instruct.data.stores.beam.build_element", builder_of_the_first)
    done = prepare(workspace(), resolved, config, ("train",), elsewhere=BeamBuilder("direct"))
    assert [entry.status for entry in done.stores] == ["built", "failed"]
    assert done.stores[1].machine and "ended without reporting it" in done.stores[1].message


def builder_of_the_first(element, **settings):
    return build_element(element, **settings) if element[0] == 0 else element[0]


def not_a_builder(element, **settings):
    raise RuntimeError("no builder")


def builder_elsewhere(element, **settings):
    return build_element(element, **(settings | {"exchange": "/not/there"}))


def test_an_element_is_built_with_the_settings_of_the_starting_process(tmp_path, monkeypatch):
    resolved, config = mixture_of(ToySource("a", size=7))
    exchange = tmp_path / "exchange"
    monkeypatch.setenv("INSTRUCT_DATA_DIR", "elsewhere")
    monkeypatch.setenv("INSTRUCT_DOWNLOAD", "1")
    (job, _) = store_jobs(workspace(), resolved, config, ("train", "validation"))
    job = absolute(job)
    settings = {"exchange": str(exchange)}
    sent = ForkingPickler.loads(ForkingPickler.dumps(job)).workspace
    assert sent.data_dir.is_absolute() and sent.data_dir.name == "elsewhere" and sent.downloads
    with pytest.raises(UserError, match="does not hold what the starting process wrote there"):
        build_element((3, job), **settings)
    assert not job.path.exists()
    exchange.mkdir()
    (exchange / "started").touch()
    assert build_element((3, job), **settings) == 3
    assert '"records": 7' in (exchange / "3.json").read_text()
    assert len(store.Store(job.path)) == 7


def test_wrong_settings_are_named(monkeypatch):
    with pytest.raises(UserError, match="unknown runner 'dirct'.*Did you mean 'direct'"):
        BeamBuilder("dirct")
    for option in ("direct_num_workers", "=4", "--a=b"):
        with pytest.raises(UserError, match="KEY=VALUE"):
            BeamBuilder("direct", [option])
    with pytest.raises(UserError, match="--runner"):
        BeamBuilder("direct", ["runner=FlinkRunner"])
    flags = BeamBuilder("dataflow", ["project=p", "region=r"]).flags()
    assert flags == ["--runner=DataflowRunner", "--project=p", "--region=r"]


def test_without_beam_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    resolved, config = mixture_of(ToySource("a"))
    with pytest.raises(UserError, match=r"instruct\[beam\].*--runner=local"):
        prepare(workspace(), resolved, config, ("train",), elsewhere=BeamBuilder("direct"))


def test_a_bucket_is_no_store_dir(beam, gcs, monkeypatch, tmp_path):
    monkeypatch.setenv("INSTRUCT_STAGE_DIR", str(tmp_path / "staged"))
    resolved, config = mixture_of(ToySource("a"))
    monkeypatch.setenv("INSTRUCT_STORE_DIR", "gs://bucket/stores")
    with pytest.raises(UserError, match="gs://bucket/stores is in a bucket.*--runner=local"):
        prepare(workspace(), resolved, config, ("train",), elsewhere=BeamBuilder("direct"))


def test_beam_is_imported_late():
    code = "import sys, instruct.data.stores.beam; assert 'apache_beam' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
