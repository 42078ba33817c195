"""Trackers of other programs: `WandB` (Weights & Biases) and `MLflow`.

A run's configuration (run.json) becomes the service's config or parameters; scalars keep their
steps; texts, tables and pages are attached. MODEL_DIR/wandb.json and mlflow.json name the service's
run, which a resumed run continues. Rows that an interrupted run logged after the step it resumes
from are logged again, with equal values: both services show two points there.

A service that stops answering never ends a run: what it misses is sent when it answers again, and
what it never got is reported. `metrics.jsonl` has every row whatever happens.
"""

import collections
import importlib.util
import json
import logging
import math
import pathlib
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.errors import RunFailed, UserError, unknown_name
from instruct.files import is_address, replace_file
from instruct.lineage import FAILED, read_object
from instruct.train.trackers import Tracker

RETRY_SECS = 60.0  # least time between attempts to reach a service that does not answer
TABLE_SECS = 600.0  # least time between two versions of a table, but for the last one
_FINISH_SECS = 600.0  # most time that W&B's upload may take at the end of a run
_FACTS = ("command_line", "commit", "device", "mesh", "num_params", "num_params_trained")
_log = logging.getLogger(__name__)


class ServiceTracker(Tracker):
    """Queues calls to a service, so that an outage neither ends nor, for long, delays training.

    Attributes:
        service: its name for users.
        package: the Python package that it needs, `extra` the extra of this program that brings it.
        record_file: in MODEL_DIR, which run of the service this is.
    """

    service = package = extra = record_file = ""

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._retry_at, self._num_lost = 0.0, 0
        self._tables: dict[str, list[dict[str, Any]]] = {}  # not sent yet
        self._tables_sent: dict[str, float] = {}

    # What a service does; all may raise anything.

    def _connect(self, folder: pathlib.Path, resumes: bool) -> None:
        """Begins a run, or continues the one of `record_file`; writes that file."""
        raise NotImplementedError

    def _log_config(self, config: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _log_scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def _log_text(self, name: str, text: str) -> None:
        raise NotImplementedError

    def _log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def _log_page(self, page: pathlib.Path) -> None:
        raise NotImplementedError

    def _end(self, failed: bool) -> None:
        raise NotImplementedError

    def _is_outage(self, error: Exception) -> bool:
        """Whether the same call may succeed later."""
        return False

    # The tracker.

    def check(self) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"train.trackers has {type(self).__name__}, which needs {self.package}: run `pip "
                f"install 'instruct[{self.extra}]'`, or leave that tracker out."
            )

    def open(self, folder: pathlib.Path, step: int) -> None:
        def connect() -> None:
            self._connect(folder, step > 0)

        info = read_object(folder / "run.json")
        try:
            connect()
        except UserError:
            raise
        except Exception as error:
            if not self._is_outage(error):
                raise UserError(
                    f"{self.service} refuses this run: {_first_line(error)}. Fix that, or leave "
                    f"{type(self).__name__} out of train.trackers."
                ) from error
            self._calls.append(connect)
            self._pause(error, 0.0)
        if step == 0:
            facts = {name: info[name] for name in _FACTS if name in info}
            self._do(lambda: self._log_config(facts | dict(info.get("config", {}))))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        now = time.time()
        self._do(lambda: self._log_scalars(step, now, numbers))

    def text(self, name: str, text: str) -> None:
        self._do(lambda: self._log_text(name, text))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Sends a table at most once in `TABLE_SECS`, and its last state when the run ends."""
        self._tables[name] = [dict(row) for row in rows]
        if time.monotonic() - self._tables_sent.get(name, -math.inf) >= TABLE_SECS:
            self._send_table(name)

    def _send_table(self, name: str) -> None:
        rows = self._tables.pop(name)
        self._tables_sent[name] = time.monotonic()
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        self._do(lambda: self._log_table(name, columns, cells))

    def close(self) -> None:
        failed = sys.exc_info()[0] is not None  # the loop closes its trackers while it unwinds
        self._retry_at = 0.0
        for name in list(self._tables):
            self._send_table(name)
        self._do(lambda: self._end(failed))
        self._num_lost += len(self._calls)
        if self._num_lost:
            _log.warning(
                "%s did not get %d of this run's calls; metrics.jsonl has every row.",
                *(self.service, self._num_lost),
            )

    def log_page(self, folder: pathlib.Path, page: pathlib.Path) -> None:
        """Attaches a page to the run that `record_file` of the MODEL_DIR `folder` names.

        Raises UserError without the package, RunFailed if the service refuses or does not answer.
        """
        self.check()
        try:
            self._attach(folder, page)
        except Exception as error:
            raise RunFailed(
                f"{self.service} did not take {page}, which is written: {_first_line(error)}. Give "
                "the same command again."
            ) from error

    def _attach(self, folder: pathlib.Path, page: pathlib.Path) -> None:
        self._connect(folder, True)
        self._log_page(page)
        # A page does not make a success of a failed run.
        self._end(read_object(folder / "run.json").get("outcome") == FAILED)

    def _do(self, call: Callable[[], None]) -> None:
        """Makes a call after all that wait; never raises."""
        self._calls.append(call)
        waited = len(self._calls)
        if time.monotonic() < self._retry_at:
            return
        while self._calls:
            started = time.monotonic()
            try:
                self._calls[0]()
            except Exception as error:
                if self._is_outage(error):
                    self._pause(error, time.monotonic() - started)
                    return
                if not self._num_lost:
                    _log.warning("%s refused a call: %s", self.service, _first_line(error))
                self._num_lost += 1
            self._calls.popleft()
        if waited > 1:
            _log.warning("%s answers again and got the %d calls it missed.", self.service, waited)

    def _pause(self, error: Exception, secs: float) -> None:
        """Waits before the next attempt, ten times as long as this one took (`secs`) or longer."""
        if len(self._calls) == 1:
            _log.warning(
                "%s does not answer (%s). Training goes on; what it misses is sent later.",
                *(self.service, _first_line(error)),
            )
        self._retry_at = time.monotonic() + max(RETRY_SECS, 10.0 * secs)


class WandB(ServiceTracker):
    """Weights & Biases; its files are in MODEL_DIR/wandb.

    The login is W&B's own (`wandb login` or WANDB_API_KEY). If its server does not answer at the
    start, the run is logged offline: `wandb sync MODEL_DIR/wandb/offline-run-*` sends it later.

    Args:
        project, entity: where runs are listed; an entity of None is the login's default.
        mode: 'online', 'offline' (files only), or None for WANDB_MODE, else online.
    """

    service, package, extra, record_file = "W&B", "wandb", "wandb", "wandb.json"

    def __init__(
        self, project: str = "instruct", entity: str | None = None, mode: str | None = None
    ) -> None:
        super().__init__()
        self.project, self.entity, self.mode = project, entity, mode

    def __repr__(self) -> str:
        return f"WandB(project={self.project!r}, mode={self.mode!r})"

    def check(self) -> None:
        super().check()
        if self.mode not in (None, "online", "offline"):
            raise unknown_name("WandB.mode", str(self.mode), ("online", "offline"))

    def _connect(self, folder: pathlib.Path, resumes: bool) -> None:
        import wandb

        recorded = read_object(folder / self.record_file) if resumes else {}
        settings = {
            "project": recorded.get("project", self.project),
            "entity": recorded.get("entity") or self.entity,
            "id": recorded.get("id", uuid.uuid4().hex[:12]),
            "name": folder.name,
            "dir": None if is_address(folder) else str(folder),
            "resume": "allow",
            "reinit": "create_new",
            # The progress bar draws on the console; a dead network must not hold up the end.
            "settings": wandb.Settings(console="off", finish_timeout=_FINISH_SECS),
        }
        try:
            self._run = wandb.init(mode=self.mode, **settings)
        except wandb.errors.AuthenticationError:
            raise
        except (wandb.errors.CommError, TimeoutError) as error:
            _log.warning("W&B does not answer (%s): this run is offline.", _first_line(error))
            wandb.teardown()  # it still holds the run's id
            self._run = wandb.init(mode="offline", **settings)
        # W&B's own step may not go back, as that of a resumed run does.
        self._run.define_metric("*", step_metric="step")
        record = {"id": self._run.id, "project": self._run.project, "entity": self._run.entity}
        replace_file(folder / self.record_file, json.dumps(record | {"mode": self.mode}) + "\n")

    def _log_config(self, config: Mapping[str, Any]) -> None:
        self._run.config.update(dict(config), allow_val_change=True)

    def _log_scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def _log_text(self, name: str, text: str) -> None:
        path = pathlib.Path(self._run.dir) / name  # the run uploads its own folder
        path.write_text(text, encoding="utf-8")
        self._run.save(str(path), base_path=self._run.dir, policy="now")

    def _log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=list(rows), allow_mixed_types=True)
        self._run.log({name: table})

    def _log_page(self, page: pathlib.Path) -> None:
        import wandb

        html = wandb.Html(page.read_text("utf-8"), inject=False, data_is_not_path=True)
        self._run.log({page.stem: html})

    def _end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow(ServiceTracker):
    """MLflow, on a server or in a database file.

    Args:
        tracking_uri: of a server (https://...) or a database (sqlite:////home/me/mlflow.db); None
            for MLFLOW_TRACKING_URI, else MLflow's default.
        experiment: where runs are listed; created if needed.
    """

    service, package, extra, record_file = "MLflow", "mlflow", "mlflow", "mlflow.json"
    _OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    # Most characters of a parameter's value, and most entries of one request.
    _LONGEST_VALUE, _MOST_PARAMS, _MOST_METRICS = 6000, 100, 1000

    def __init__(self, tracking_uri: str | None = None, experiment: str = "instruct") -> None:
        super().__init__()
        self.tracking_uri, self.experiment = tracking_uri, experiment

    def __repr__(self) -> str:
        return f"MLflow(tracking_uri={self.tracking_uri!r}, experiment={self.experiment!r})"

    def _is_outage(self, error: Exception) -> bool:
        code = getattr(error, "error_code", "INTERNAL_ERROR" if isinstance(error, OSError) else "")
        return code in self._OUTAGES

    def _connect(self, folder: pathlib.Path, resumes: bool) -> None:
        from mlflow.tracking import MlflowClient

        recorded = read_object(folder / self.record_file) if resumes else {}
        self._client = MlflowClient(recorded.get("tracking_uri", self.tracking_uri))
        if recorded.get("run_id"):
            self._run_id = str(recorded["run_id"])
            self._client.update_run(self._run_id, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else None
        experiment = experiment or self._client.create_experiment(self.experiment)
        self._run_id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        record = {"run_id": self._run_id, "tracking_uri": self._client.tracking_uri}
        replace_file(folder / self.record_file, json.dumps(record) + "\n")

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [
            Param(_allowed(name)[:250], str(value)[: self._LONGEST_VALUE])
            for name, value in config.items()
        ]
        for start in range(0, len(params), self._MOST_PARAMS):
            part = params[start : start + self._MOST_PARAMS]
            self._client.log_batch(self._run_id, params=part)

    def _log_scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        when = int(1000 * seconds)
        metrics = [Metric(_allowed(name), value, when, step) for name, value in values.items()]
        for start in range(0, len(metrics), self._MOST_METRICS):
            part = metrics[start : start + self._MOST_METRICS]
            self._client.log_batch(self._run_id, metrics=part)

    def _log_text(self, name: str, text: str) -> None:
        self._client.log_text(self._run_id, text, name)

    def _log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = {"columns": list(columns), "data": list(rows)}  # as its own tables
        self._client.log_text(self._run_id, json.dumps(table), f"{name}.json")

    def _attach(self, folder: pathlib.Path, page: pathlib.Path) -> None:
        """Attaches the page alone: the run may have failed, or still train."""
        from mlflow.tracking import MlflowClient

        recorded = read_object(folder / self.record_file)
        self._client, self._run_id = MlflowClient(recorded["tracking_uri"]), str(recorded["run_id"])
        self._log_page(page)

    def _log_page(self, page: pathlib.Path) -> None:
        self._client.log_text(self._run_id, page.read_text("utf-8"), page.name)

    def _end(self, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


def recorded_trackers(folder: pathlib.Path) -> list[ServiceTracker]:
    """The services that have the run of a MODEL_DIR, for `log_page`."""
    trackers: list[ServiceTracker] = []
    if wandb := read_object(folder / WandB.record_file):
        trackers.append(WandB(mode=wandb.get("mode")))
    if (folder / MLflow.record_file).is_file():
        trackers.append(MLflow())
    return trackers


def _allowed(name: str) -> str:
    """A metric's or parameter's name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-./: ]", "_", name)


def _cell(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
