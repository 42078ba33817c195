"""W&B and MLflow get a run whole and continue it; a service that fails ends no run.

W&B runs offline, MLflow in a database file. They are no packages of the test extra.
"""

import functools
import json
import math
import struct
import sys

import pytest

from instruct.cli.arguments import main
from instruct.errors import RunFailed, UserError
from instruct.train.service_trackers import MLflow, ServiceTracker, WandB, recorded_trackers
from instruct.train.trackers import check_trackers, open_trackers

RUN = {"num_params": 7, "commit": "abc", "config": {"data.batch_size": 8, "optimizer.name": "x"}}
ROWS = [{"task": "a", "share": 0.5, "mode": None}, {"task": "b", "n": 3}]


def drive(tracker, folder, step, last):
    """One process of a run: steps from `step` to `last`, each logged."""
    (folder / "run.json").write_text(json.dumps(RUN))
    with open_trackers([tracker], folder, step) as trackers:
        for one in trackers:
            one.text("config.gin", "SEED = 3")
            for number in range(step + 1, last + 1):
                one.scalars(number, {"loss": number / 2, "loss/own.x[1]": math.nan})
                one.table("mixture", [*ROWS, {"task": "c", "share": number}])


class Service(ServiceTracker):
    """Records the calls that it gets, and raises the errors that a test asks for."""

    service, package, extra, record_file = "Service", "json", "some", "service.json"

    def __init__(self):
        super().__init__()
        self.calls, self.error = [], None

    def _call(self, *call):
        if self.error:
            raise self.error
        self.calls.append(call)

    def _connect(self, folder, resumes):
        self._call("connect", resumes)

    def _log_config(self, config):
        self._call("config", config)

    def _log_scalars(self, step, seconds, values):
        self._call("scalars", step, dict(values))

    def _log_text(self, name, text):
        self._call("text", name)

    def _log_table(self, name, columns, rows):
        self._call("table", name, columns, rows)

    def _log_page(self, page):
        self._call("page", page.name)

    def _end(self, failed):
        self._call("end", failed)

    def _is_outage(self, error):
        return isinstance(error, OSError)


def steps(service):
    return [call[1] for call in service.calls if call[0] == "scalars"]


def test_a_service_gets_configuration_scalars_and_the_last_table(tmp_path):
    service = Service()
    drive(service, tmp_path, 0, 3)
    assert service.calls[:2] == [
        ("connect", False),
        ("config", {"commit": "abc", "num_params": 7, **RUN["config"]}),
    ]
    tables = [call for call in service.calls if call[0] == "table"]
    assert [table[3][2][:2] for table in tables] == [["c", 1], ["c", 3]]  # the first and the last
    assert tables[0][2] == ["task", "share", "mode", "n"]
    assert steps(service) == [1, 2, 3] and service.calls[-1] == ("end", False)


def test_an_outage_loses_nothing_that_can_still_be_sent(tmp_path, caplog):
    service = Service()
    service.open(tmp_path, 0)
    service.error = OSError("no route")
    for step in (1, 2, 3):
        service.scalars(step, {"loss": 1})
    assert steps(service) == []
    service.error = None
    service.scalars(4, {"loss": 1})
    assert steps(service) == []  # too early to ask again
    service._retry_at = 0.0
    service.scalars(5, {"loss": 1})
    service.close()
    assert steps(service) == [1, 2, 3, 4, 5]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "Service does not answer (no route). Training goes on; what it misses is sent later.",
        "Service answers again and got the 5 calls it missed.",
    ]


def test_a_service_that_never_answers_is_asked_seldom_and_said(tmp_path, caplog):
    service = Service()
    service.error = OSError("no route")
    drive(service, tmp_path, 0, 50)
    assert service.calls == []
    first, last = (record.getMessage() for record in caplog.records)
    # The connection, the configuration, a text, 50 rows, two tables and the end.
    assert "no route" in first and last.startswith("Service did not get 56 of this run's calls")


def test_a_refused_call_is_lost_alone_and_said(tmp_path, caplog):
    service = Service()
    service.open(tmp_path, 0)
    service.error = ValueError("bad name")
    service.scalars(1, {"loss": 1})
    service.error = None
    service.scalars(2, {"loss": 1})
    service.close()
    assert steps(service) == [2]
    assert "refused a call: bad name" in caplog.text and "did not get 1" in caplog.text


def test_a_refused_run_ends_before_the_first_step(tmp_path):
    service = Service()
    service.error = ValueError("no such key\nat line 3")
    with pytest.raises(UserError, match="Service refuses this run: no such key. Fix that"):
        service.open(tmp_path, 0)


def test_a_run_that_raises_is_marked_failed(tmp_path):
    service = Service()
    with pytest.raises(ZeroDivisionError), open_trackers([service], tmp_path, 0):
        raise ZeroDivisionError
    assert service.calls[-1] == ("end", True)


@pytest.mark.parametrize("outcome", ["failed", "finished"])
def test_a_page_does_not_change_how_a_run_ended(outcome, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"outcome": outcome}))
    service = Service()
    service.log_page(tmp_path, tmp_path / "report.html")
    assert service.calls[-2:] == [("page", "report.html"), ("end", outcome == "failed")]


@pytest.mark.parametrize("tracker", [WandB(), MLflow()])
def test_a_missing_package_is_named_before_anything_is_built(tracker, monkeypatch):
    monkeypatch.setitem(sys.modules, tracker.package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'instruct\[{tracker.package}\]'"):
        check_trackers([tracker])


def test_a_page_of_a_run_without_services_is_refused(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    assert main(["report", f"--model_dir={tmp_path}", "--track"]) == 2
    assert "wandb.json" in capsys.readouterr().err and not (tmp_path / "report.html").exists()


# The services themselves.


def wandb_records(folder):
    """Records of an offline run's file: protobufs in LevelDB's log format, after a header."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # as at the end of a program: its own process writes what it still holds
    (path,) = folder.glob("*.wandb")
    content, position, whole, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:  # a block's rest is padding
            position += left
            continue
        size, kind = struct.unpack_from("<HB", content, position + 4)
        whole += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def history(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


@pytest.mark.slow
def test_wandb_offline_gets_the_run_and_continues_it(offline, capsys):
    tracker = WandB(project="flan", mode="offline")
    check_trackers([tracker])
    drive(tracker, offline, 0, 4)
    drive(WandB(project="other", mode="offline"), offline, 2, 5)  # from the checkpoint of step 2
    folders = sorted((offline / "wandb").glob("offline-run-*"))
    first, second = (wandb_records(folder) for folder in folders)
    runs = [next(r.run for r in rs if r.HasField("run")) for rs in (first, second)]
    recorded = json.loads((offline / "wandb.json").read_text())
    assert {run.run_id for run in runs} == {recorded["id"]}
    assert {run.project for run in runs} == {"flan"} and runs[0].display_name == "run"
    losses = [
        [(r["step"], r["loss"]) for r in history(rs) if "loss" in r] for rs in (first, second)
    ]
    assert losses == [[(n, n / 2) for n in (1, 2, 3, 4)], [(n, n / 2) for n in (3, 4, 5)]]
    configured = {
        update.key or update.nested_key[0]: update.value_json
        for record in first
        if record.HasField("config")
        for update in record.config.update
    }
    assert json.loads(configured["data.batch_size"]) == 8
    (text,) = folders[0].glob("files/config.gin")
    assert text.read_text() == "SEED = 3"
    tables = [json.loads(path.read_text()) for path in folders[0].glob("files/media/table/*.json")]
    assert sorted(table["data"][2][1] for table in tables) == [1, 4]
    assert tables[0]["columns"] == ["task", "share", "mode", "n"]
    assert main(["report", f"--model_dir={offline}", "--track"]) == 0
    assert "attached to the run in W&B" in capsys.readouterr().out
    (page,) = offline.glob("wandb/offline-run-*/files/media/html/*.html")
    assert page.read_text() == (offline / "report.html").read_text()


@pytest.mark.slow
def test_wandb_that_does_not_answer_is_offline(offline, monkeypatch, caplog):
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    nowhere = {"init_timeout": 2, "base_url": "http://127.0.0.1:1"}
    monkeypatch.setattr(wandb, "Settings", functools.partial(wandb.Settings, **nowhere))
    drive(WandB(), offline, 0, 1)
    assert "W&B does not answer" in caplog.text
    (folder,) = (offline / "wandb").glob("offline-run-*")
    assert [row["loss"] for row in history(wandb_records(folder)) if "loss" in row] == [0.5]


@pytest.fixture
def mlflow_folder(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.slow
def test_mlflow_in_a_database_gets_the_run_and_continues_it(mlflow_folder, capsys):
    pytest.importorskip("sqlalchemy")
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{mlflow_folder.parent}/mlflow.db"
    drive(MLflow(uri, "flan"), mlflow_folder, 0, 4)
    drive(MLflow(uri, "flan"), mlflow_folder, 2, 5)  # from the checkpoint of step 2
    recorded, client = json.loads((mlflow_folder / "mlflow.json").read_text()), MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("flan").experiment_id])
    run_id = run.info.run_id
    assert run_id == recorded["run_id"] and run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["data.batch_size"] == "8" and run.data.params["commit"] == "abc"
    assert sorted((p.step, p.value) for p in client.get_metric_history(run_id, "loss")) == [
        (n, n / 2)
        for n in (1, 2, 3, 3, 4, 4, 5)  # 3 and 4 by both processes
    ]
    assert math.isnan(run.data.metrics["loss/own.x_1_"])
    assert main(["report", f"--model_dir={mlflow_folder}", "--track"]) == 0
    assert "attached to the run in MLflow" in capsys.readouterr().out
    client.set_terminated(run_id, "FAILED")
    assert main(["report", f"--model_dir={mlflow_folder}", "--track"]) == 0
    assert client.get_run(run_id).info.status == "FAILED"
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert names == {"config.gin", "mixture.json", "report.html"}
    path = download_artifacts(run_id=run_id, artifact_path="mixture.json", tracking_uri=uri)
    with open(path) as file:
        table = json.load(file)
    assert table["columns"] == ["task", "share", "mode", "n"] and table["data"][2][1] == 5


@pytest.mark.slow
def test_mlflow_that_does_not_answer_ends_no_run(mlflow_folder, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    drive(MLflow("http://127.0.0.1:1"), mlflow_folder, 0, 3)
    assert "MLflow does not answer" in caplog.text and "MLflow did not get" in caplog.text
    (mlflow_folder / "mlflow.json").write_text('{"run_id": "1", "tracking_uri": "http://[::1]:1"}')
    (tracker,) = recorded_trackers(mlflow_folder)
    with pytest.raises(RunFailed, match="MLflow did not take"):
        tracker.log_page(mlflow_folder, mlflow_folder / "run.json")
